"""Inventory of a scene's files: sizes, holes, classes, and the files that are missing or cannot be read."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from dataset.labels import UNKNOWN, LabelSet
from dataset.scene import Scene
from utils.errors import UserError
from utils.images import require_whole

THREADS = 8
FEWEST = 3  # of 255 that colours of an image differ by, if it shows anything
SHOWN_FILES = 3  # of those that have the same problem


@dataclass
class Inventory:
    """Of a scene: frames usable, skipped by reason, gaps in the numbering, (w, h) of each kind of image -> how many,
    files that cannot be read, or are of another scene, and why, share of pixels with depth and how many those are, pixels of each class, of each raw id, and of ids that the table does not know,
    length of the camera's path in metres, frames that were decoded, images and maps (color, depth, mask) that hold nothing, pixels at the largest depth of
    a map by that depth, and at the smallest, pixels of labels between two others in number and place, pixels at borders of labels, share of
    images that their masks leave, images in grey, and the largest value of colour, 0 to 255."""

    name: str
    frames: int
    skipped: dict[str, int]
    gaps: int
    path_length: float
    decoded: int
    sizes: dict[str, Counter] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    depth_valid: float | None = None
    depth_known: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    ids: Counter = field(default_factory=Counter)
    unknown_ids: dict[int, int] = field(default_factory=dict)
    empty: Counter = field(default_factory=Counter)
    highest: Counter = field(default_factory=Counter)
    lowest: Counter = field(default_factory=Counter)
    blended: int = 0
    borders: int = 0
    mask_left: float | None = None
    grey: int = 0
    brightest: int = 0


def take_inventory(scene: Scene, sample: int) -> Inventory:
    """Reads the images of `sample` frames spread over the scene (0: of all)."""
    chosen = spread(scene.frame_ids, sample)
    numbers = scene.numbers_on_disk()
    step = int(np.median(np.diff(numbers))) if len(numbers) > 1 else 1
    result = Inventory(
        scene.name,
        len(scene),
        scene.skipped,
        int((np.diff(numbers) > step).sum()),
        float(np.linalg.norm(np.diff(scene.camera_to_world[:, :3, 3], axis=0), axis=1).sum()),
        len(chosen),
    )
    known = depth_pixels = 0
    left: list[float] = []
    classes = np.zeros(0 if scene.labels is None else scene.labels.ignore + 1, np.int64)
    with ThreadPoolExecutor(THREADS) as pool:
        for found in tqdm(
            pool.map(lambda frame: _read_frame(scene, frame), chosen), total=len(chosen), desc=scene.name, leave=False
        ):
            result.unreadable += found.problems
            for kind, size in found.sizes.items():
                result.sizes.setdefault(kind, Counter())[size] += 1
            known, depth_pixels = known + found.depth_known, depth_pixels + found.depth_pixels
            classes += found.classes if found.classes is not None else 0
            result.ids.update(found.ids)
            result.empty.update(found.empty)
            result.highest.update(found.highest)
            result.lowest.update(found.lowest)
            result.grey, result.brightest = result.grey + found.grey, max(result.brightest, found.brightest)
            left += [] if found.mask_left is None else [found.mask_left]
            result.blended, result.borders = result.blended + found.blended, result.borders + found.borders
    if depth_pixels:
        result.depth_valid, result.depth_known = known / depth_pixels, known
    result.mask_left = float(np.mean(left)) if left else None
    if scene.labels is not None:
        result.unknown_ids = {raw: count for raw, count in sorted(result.ids.items()) if _is_unknown(scene.labels, raw)}
        result.classes = dict(zip([*scene.labels.names, "ignored"], classes.tolist(), strict=True))
    return result


def spread(frames: list[str], count: int) -> list[str]:
    """Return `count` of the frames, evenly spread; all of them if 0 or there are fewer."""
    if count <= 0 or count >= len(frames):
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def summarize(unreadable: list[tuple[str, str]]) -> list[str]:
    """Return a line for each reason: how many files, which they are, and why."""
    by_reason: dict[str, list[str]] = {}
    for file, reason in unreadable:
        by_reason.setdefault(reason, []).append(file)
    return [f"{_named(files)}: {reason}" for reason, files in by_reason.items()]


def _named(files: list[str]) -> str:
    more = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
    return (f"{len(files)} files: " if len(files) > 1 else "") + ", ".join(files[:SHOWN_FILES]) + more


@dataclass
class _Found:
    problems: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    depth_known: int = 0
    depth_pixels: int = 0
    classes: np.ndarray | None = None
    ids: dict[int, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    highest: dict[int, int] = field(default_factory=dict)
    lowest: dict[int, int] = field(default_factory=dict)
    blended: int = 0
    borders: int = 0
    mask_left: float | None = None
    grey: bool = False
    brightest: int = 0


def _read_frame(scene: Scene, frame: str) -> _Found:
    found = _Found()
    for kind in scene.kinds:
        path = scene.path(frame, kind)
        if path is None:  # a frame without a mask
            continue
        try:
            values = scene.stored(frame, kind)
            if kind == "color":
                require_whole(path)
        except UserError as error:
            found.problems.append((str(path), str(error).removeprefix(f"{path}: ")))
            continue
        found.sizes[kind] = (values.shape[1], values.shape[0])
        _look_at(found, kind, values, scene.labels)
    return found


def _look_at(found: _Found, kind: str, values: np.ndarray, labels: LabelSet | None) -> None:
    if kind == "color":
        found.brightest = int(values.max())
        found.grey = bool((values == values[..., :1]).all())
    if kind == "depth":
        known = values[values > 0]
        found.depth_known, found.depth_pixels = known.size, values.size
        if known.size:
            found.highest = {int(known.max()): int((known == known.max()).sum())}
            found.lowest = {int(known.min()): int((known == known.min()).sum())}
    if kind == "mask":
        found.mask_left = float(values.mean())
    if (kind in ("depth", "mask") and not values.any()) or (kind == "color" and np.ptp(values, (0, 1)).max() < FEWEST):
        found.empty.append(kind)
    if kind == "labels":
        found.blended, found.borders = count_blended(values)
        found.classes, found.ids = _count_classes(labels, values)


def count_blended(ids: np.ndarray) -> tuple[int, int]:
    """Return how many pixels of a label map (h, w) have a number between those of two opposite neighbours, as resizing with
    interpolation leaves them at borders, and how many have another number than one of these."""
    blended, border = np.zeros(ids.shape, bool), np.zeros(ids.shape, bool)
    for one, two, middle in ((ids[:-2], ids[2:], np.s_[1:-1]), (ids[:, :-2], ids[:, 2:], np.s_[:, 1:-1])):
        here = ids[middle]
        blended[middle] |= (np.minimum(one, two) < here) & (here < np.maximum(one, two))
        border[middle] |= (here != one) | (here != two)
    return int(blended.sum()), int(border.sum())


def _count_classes(labels: LabelSet, raw: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    ids, counts = np.unique(raw, return_counts=True)
    found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    classes = np.zeros(labels.ignore + 1, np.int64)
    for raw_id, count in found.items():
        if not _is_unknown(labels, raw_id):
            classes[labels.lookup[raw_id]] += count
    return classes, found


def _is_unknown(labels: LabelSet, raw_id: int) -> bool:
    return not 0 <= raw_id < len(labels.lookup) or labels.lookup[raw_id] == UNKNOWN
