"""Reading of the maps of a frame: depth, class ids, masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.view_selection import evenly
from utils.errors import UserError
from utils.images import read_map, read_palette, read_pixels

NO_READING = (0, 65535, 2**31 - 1, 2**32 - 1)  # integers that mean unknown depth
FARTHEST = 65534  # largest depth in millimetres that is stored; larger depth is unknown
ENDLESS = 1e5  # floats from here on mean "nothing" in the output of renderers
NEAREST = 0.03  # metres: smallest plausible median of a depth map
PALETTES_LOOKED_AT = 32  # label images


@dataclass(frozen=True)
class DepthUnit:
    """Metres per unit of integers (whole) and of floats (floating). stated: given by a file; otherwise 8-bit depth, and
    floats that cannot be metres, are errors."""

    whole: float = 0.001
    floating: float = 1.0
    stated: bool = False


MILLIMETRES = DepthUnit()


def require_one_palette(paths: list[Path]) -> None:
    """Raise UserError if label images have different palettes, since then a number has a different meaning in each."""
    first: tuple[Path, bytes] | None = None
    for path in evenly(paths, PALETTES_LOOKED_AT):
        palette = read_palette(path)
        if palette is not None and first is not None and palette[: len(first[1])] != first[1][: len(palette)]:
            raise UserError(
                f"{path}: has another palette than {first[0].name}, so that its numbers mean something else; write class numbers"
            )
        first = (path, palette) if first is None and palette is not None else first


def read_depth(path: Path, unit: DepthUnit = MILLIMETRES) -> np.ndarray:
    """Return depth in millimetres (h, w) uint16, 0 where it is unknown. Raise UserError for a file that is not a depth
    map."""
    values = read_map(path)
    if values.dtype.kind not in "uif":
        raise UserError(f"{path}: depth should be numbers, but is {values.dtype}")
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    if values.dtype.itemsize == 1 and not unit.stated:
        raise UserError(
            f"{path}: depth has 8 bits, which is too few for millimetres; export 16-bit PNG or floats in metres"
        )
    _require_plausible(values, unit, path)
    return to_millimetres(values, unit)


def middle_of(values: np.ndarray) -> float | None:
    """Return the median of known depth in its stored unit; None if all is unknown."""
    given = values[_is_known(values)]
    return float(np.median(given)) if given.size else None


def is_of_a_room(metres: float) -> bool:
    """Return whether a depth in metres is plausible as the median of a room's depth map."""
    return NEAREST <= metres <= FARTHEST / 1000


def _require_plausible(values: np.ndarray, unit: DepthUnit, path: Path) -> None:
    """Raise UserError for depth behind the camera, or whose middle no room has."""
    whole = values.dtype.kind != "f"
    middle = middle_of(values)
    if middle is None:
        return
    if middle < 0:
        raise UserError(f"{path}: depth is negative; it should be along the camera's axis, forwards")
    metres = middle * (unit.whole if whole else unit.floating)
    if not is_of_a_room(metres):
        by_type = "as integers are millimetres" if whole else "as floats are metres"
        what = "by the stated unit" if unit.stated else by_type
        raise UserError(
            f"{path}: the median depth is {middle:.4g} ({metres:.3g} m, {what}), which is implausible for a room; "
            "set depth_unit_scale_factor (metres per unit) in transforms.json"
        )


def _is_known(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.isfinite(values) & (values != 0) & (np.abs(values) < ENDLESS)
    return ~np.isin(values, NO_READING)


def to_millimetres(values: np.ndarray, unit: DepthUnit) -> np.ndarray:
    """Convert depth (h, w) of any type to millimetres, uint16; 0 where it is unknown or exceeds FARTHEST."""
    if values.dtype == np.uint16 and unit.whole == MILLIMETRES.whole:
        return np.where(values > FARTHEST, 0, values).astype(np.uint16)
    known = _is_known(values) & (values > 0)
    scale = 1000 * (unit.floating if values.dtype.kind == "f" else unit.whole)
    millimetres = np.where(known, values, 0).astype(np.float64) * scale
    return np.where(millimetres <= FARTHEST, millimetres, 0).round().astype(np.uint16)


def read_ids(path: Path) -> np.ndarray:
    """Return the class ids of a label map (h, w), int64. Raise UserError for a map that does not hold integers."""
    values = read_map(path)
    if values.dtype.kind not in "ui":
        raise UserError(f"{path}: class ids should be whole numbers, but are {values.dtype}")
    return values.astype(np.int64)


def read_mask(path: Path) -> np.ndarray:
    """Return a mask (h, w) uint8: 0 where the file is black or transparent, else 1."""
    values = read_pixels(path)
    if values.ndim == 2:
        values = values[..., None]
    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    shown = (values > (127 if lossy else 0)).astype(np.uint8)
    if values.shape[2] != 4:
        return shown.max(-1)
    plain = (values[..., :3] == values[:1, :1, :3]).all()  # of one colour: the mask is the alpha channel alone
    return shown[..., 3] if plain else shown[..., :3].max(-1) & shown[..., 3]
