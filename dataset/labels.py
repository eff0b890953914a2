"""Label sets: the mapping of a dataset's raw ids to training classes, and the names and colours of these."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from utils.colors import distinct_colors
from utils.errors import UserError
from utils.files import read_json, read_text

UNKNOWN = 255  # in a lookup: a raw id that is not in the label table

SCANNET_CLASSES = {  # name: (NYU40 id, colour)
    "wall": (1, (174, 199, 232)),
    "floor": (2, (152, 223, 138)),
    "cabinet": (3, (31, 119, 180)),
    "bed": (4, (255, 187, 120)),
    "chair": (5, (188, 189, 34)),
    "sofa": (6, (140, 86, 75)),
    "table": (7, (255, 152, 150)),
    "door": (8, (214, 39, 40)),
    "window": (9, (197, 176, 213)),
    "bookshelf": (10, (148, 103, 189)),
    "picture": (11, (196, 156, 148)),
    "counter": (12, (23, 190, 207)),
    "desk": (14, (247, 182, 210)),
    "curtain": (16, (219, 219, 141)),
    "refrigerator": (24, (255, 127, 14)),
    "shower curtain": (28, (91, 163, 138)),
    "toilet": (33, (44, 160, 44)),
    "sink": (34, (112, 128, 144)),
    "bathtub": (36, (227, 119, 194)),
    "otherfurniture": (39, (82, 84, 163)),
}
_CLASS_OF_NYU40 = {nyu40: index for index, (nyu40, _) in enumerate(SCANNET_CLASSES.values())}
NYU40_LAST_ID, NYU40_FLOOR, RAW_FLOOR = 40, 2, 3
LARGEST_ID = 65535  # in 16-bit label maps
NOTHING = 0  # the NYU40 id of a category without one
INVALID_COLOR = (248, 166, 116)
SCANNET_COLORS = np.array([*(color for _, color in SCANNET_CLASSES.values()), INVALID_COLOR], np.uint8)  # (K+1, 3)
SCANNET_TABLE = "scannetv2-labels.combined.tsv"

REPLICA_CLASSES = (
    3, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 26, 29, 31, 34, 35, 37, 40, 44, 47, 52, 54, 56, 59,
    60, 61, 62, 63, 64, 65, 70, 71, 76, 78, 79, 80, 82, 83, 87, 88, 91, 92, 93, 95, 97, 98,
)  # fmt: skip
REPLICA_LAST_ID = 101


@dataclass(frozen=True, eq=False)
class LabelSet:
    """K classes and the mapping of raw ids to them.

    names: of the K classes. colors: (K+1, 3) uint8, the last one for "invalid". lookup: raw id -> class, K: ignored,
    `UNKNOWN`: not in the table. source: name of the table, for messages.
    """

    names: tuple[str, ...]
    colors: np.ndarray
    lookup: np.ndarray
    source: str

    @property
    def ignore(self) -> int:
        return len(self.names)

    def ids(self) -> np.ndarray:
        """Return one raw id for each class, and last one that is ignored, (K+1,) uint16. If a class has several, it is
        the lowest, which in ScanNet's table is the most frequent. Raise UserError for a class without an id."""
        known, first = np.unique(self.lookup, return_index=True)
        missing = np.setdiff1d(np.arange(self.ignore + 1), known)
        if len(missing):
            name = (*self.names, "to be ignored")[missing[0]]
            raise UserError(f"{self.source}: has no id for the class '{name}', so that it cannot be written")
        return first[: self.ignore + 1].astype(np.uint16)

    def classes(self, raw: np.ndarray, origin: Path) -> np.ndarray:
        """Return the classes (h, w) uint8 of raw ids (h, w). Raise UserError for ids that the table does not have."""
        raw = raw.astype(np.int64)
        inside = raw.clip(0, len(self.lookup) - 1)
        classes = np.where(raw == inside, self.lookup[inside], UNKNOWN).astype(np.uint8)
        if (classes == UNKNOWN).any():
            unknown = np.unique(raw[classes == UNKNOWN])
            some = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
            raise UserError(f"{origin}: label ids {some} are not in {self.source}; is this the table of these labels?")
        return classes


@lru_cache(maxsize=8)
def scannet_labels(table: Path) -> LabelSet:
    """Return the label set of ScanNet's raw ids, mapped to its 20 classes by the NYU40 ids in its tab-separated
    table."""
    text = read_text(table, "the label table is missing; it is part of the ScanNet release")
    rows = []
    try:
        for row in csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"):
            if row["id"].strip():
                rows.append((int(row["id"]), int((row["nyu40id"] or "").strip() or NOTHING)))
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error):
        raise UserError(f"{table}: not ScanNet's label table (tab-separated, with columns id and nyu40id)") from None
    if not rows or min(rows)[0] < 0:
        raise UserError(f"{table}: the label table has no rows")
    wrong = next((row for row in rows if row[0] > LARGEST_ID or not NOTHING <= row[1] <= NYU40_LAST_ID), None)
    if wrong:
        raise UserError(
            f"{table}: id {wrong[0]}, nyu40id {wrong[1]}: should be 0 to {LARGEST_ID}, 0 to {NYU40_LAST_ID}"
        )
    lookup = np.full(max(raw for raw, _ in rows) + 1, UNKNOWN, np.uint8)
    lookup[0] = len(SCANNET_CLASSES)  # unlabelled
    for raw, nyu40 in rows:
        # of two rows of one id the last counts, as in ScanNet's own scripts
        lookup[raw] = _CLASS_OF_NYU40.get(nyu40, len(SCANNET_CLASSES))
    return _scannet_classes(lookup, str(table))


def nyu40_labels() -> LabelSet:
    """Return the label set of NYU40 ids, mapped to ScanNet's 20 classes."""
    lookup = [_CLASS_OF_NYU40.get(nyu40, len(SCANNET_CLASSES)) for nyu40 in range(NYU40_LAST_ID + 1)]
    return _scannet_classes(np.array(lookup, np.uint8), f"NYU40's ids 0 to {NYU40_LAST_ID}")


def _scannet_classes(lookup: np.ndarray, source: str) -> LabelSet:
    return LabelSet(tuple(SCANNET_CLASSES), SCANNET_COLORS, lookup, source)


def look_like_nyu40(pixels: dict[int, int]) -> bool:
    """Return whether label ids are NYU40's rather than ScanNet's raw ids. pixels: id -> number of pixels.

    They are if no id exceeds 40, and 2 (floor in NYU40, chair in raw ids) covers more pixels than 3 (cabinet, floor).
    """
    present = {raw for raw, count in pixels.items() if count and raw}
    if not present or max(present) > NYU40_LAST_ID:
        return False
    return pixels.get(NYU40_FLOOR, 0) > pixels.get(RAW_FLOOR, 0)


def capture_labels(names: tuple[str, ...], source: str, ids: tuple[int, ...] | None = None) -> LabelSet:
    """Return the label set of a user's capture. ids: of each class in its label maps, and last the ignored one; None:
    class numbers and 255."""
    if len(names) >= UNKNOWN:
        raise UserError(f"{source}: {len(names)} classes are too many (at most {UNKNOWN - 1})")
    ids = (*range(len(names)), 255) if ids is None else ids
    lookup = np.full(max(ids) + 1, UNKNOWN, np.uint8)
    lookup[list(ids)] = np.arange(len(names) + 1)
    return LabelSet(
        names, np.concatenate([distinct_colors(len(names)), [INVALID_COLOR]]).astype(np.uint8), lookup, source
    )


@lru_cache(maxsize=64)
def replica_labels(info: Path | None) -> LabelSet:
    """Return Replica's 51 classes of the Semantic-NeRF renderings; `info` is an `info_semantic.json` with their
    names."""
    titles: dict[int, str] = {}
    if info is not None:
        try:
            titles = {int(entry["id"]): str(entry["name"]) for entry in read_json(info, "is missing")["classes"]}
        except (UserError, ValueError, KeyError, TypeError):
            raise UserError(f"{info}: should hold Replica's classes as {{'classes': [{{'id', 'name'}}, …]}}") from None
    lookup = np.full(REPLICA_LAST_ID + 1, len(REPLICA_CLASSES), np.uint8)
    lookup[list(REPLICA_CLASSES)] = np.arange(len(REPLICA_CLASSES))
    names = tuple(titles.get(raw, f"class {raw}") for raw in REPLICA_CLASSES)
    colors = np.concatenate([distinct_colors(len(names)), [INVALID_COLOR]]).astype(np.uint8)
    return LabelSet(names, colors, lookup, "Replica's ids 0 to 101")
