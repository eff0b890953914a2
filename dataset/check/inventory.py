"""What the files of a scene hold: sizes, holes, classes, what is missing or cannot be read."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from dataset.labels import UNKNOWN
from dataset.scene import NO_DEPTH_READING, Scene
from utils.errors import UserError
from utils.files import read_color, read_map

THREADS = 8


@dataclass
class Inventory:
    """Of a scene: frames usable, skipped by reason, gaps in the numbering, (w, h) of each kind of image -> how many,
    unreadable files, share of pixels with depth, pixels of each class and of ids that the table does not know,
    length of the camera's path in metres, frames that were decoded."""

    name: str
    frames: int
    skipped: dict[str, int]
    gaps: int
    path_length: float
    decoded: int
    sizes: dict[str, Counter] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    depth_valid: float | None = None
    classes: dict[str, int] = field(default_factory=dict)
    unknown_ids: dict[int, int] = field(default_factory=dict)


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
            for raw, count in found.unknown.items():
                result.unknown_ids[raw] = result.unknown_ids.get(raw, 0) + count
    if depth_pixels:
        result.depth_valid = known / depth_pixels
    if scene.labels is not None:
        result.classes = dict(zip([*scene.labels.names, "ignored"], classes.tolist(), strict=True))
    return result


def spread(frames: list[str], count: int) -> list[str]:
    """`count` of the frames, evenly spread; all of them if 0 or there are fewer."""
    if count <= 0 or count >= len(frames):
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


@dataclass
class _Found:
    problems: list[str] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    depth_known: int = 0
    depth_pixels: int = 0
    classes: np.ndarray | None = None
    unknown: dict[int, int] = field(default_factory=dict)


def _read_frame(scene: Scene, frame: str) -> _Found:
    found = _Found()
    for kind in scene.kinds:
        try:
            values = (read_color if kind == "color" else read_map)(scene.path(frame, kind))
        except UserError as error:
            found.problems.append(str(error))
            continue
        found.sizes[kind] = (values.shape[1], values.shape[0])
        if kind == "depth":
            found.depth_known = int(((values > 0) & (values < NO_DEPTH_READING)).sum())
            found.depth_pixels = values.size
        if kind == "labels":
            found.classes, found.unknown = _count_classes(scene, values)
    return found


def _count_classes(scene: Scene, raw: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    lookup = scene.labels.lookup
    ids, counts = np.unique(raw, return_counts=True)
    classes = np.zeros(scene.labels.ignore + 1, np.int64)
    unknown = {}
    for raw_id, count in zip(ids.tolist(), counts.tolist(), strict=True):
        if raw_id >= len(lookup) or lookup[raw_id] == UNKNOWN:
            unknown[raw_id] = count
        else:
            classes[lookup[raw_id]] += count
    return classes, unknown
