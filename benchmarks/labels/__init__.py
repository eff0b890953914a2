"""Classes drawn by hand on frames of real captures: kitchen.json (7-Scenes, as distributed with tsdf-fusion-python) and
hololens.json (sample data of deep-video-mvs).

A file holds the `size` [w, h] of the images and, for each labelled frame, polygons [class, [[x, y], …]] that are
painted one over the other; pixel centres lie at integers. Classes are ScanNet's; small things on tables, what is
between the slats of chairs and what nobody could tell are "ignore", as is all that no polygon covers.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dataset.labels import SCANNET_CLASSES
from utils.errors import UserError
from utils.files import read_json

IGNORE, IGNORED = "ignore", 255
BORDER = 5  # pixels wide: how much between two classes has none


def read_polygons(name: str) -> dict[str, list]:
    """Return frame -> polygons of a labelled capture. Raise UserError naming a class that there is not."""
    path = Path(__file__).parent / f"{name}.json"
    frames = read_json(path, "there are no labels of this capture")["frames"]
    for frame, polygons in frames.items():
        for kind, _ in polygons:
            if kind != IGNORE and kind not in SCANNET_CLASSES:
                raise UserError(f"{path}: {frame} has a '{kind}', which is none of ScanNet's classes")
    return frames


def rasterise(polygons: list, size: tuple[int, int]) -> np.ndarray:
    """Return the classes (h, w) uint8 of a frame's polygons at `size` (h, w): places in ScanNet's 20 classes, 255
    ignored."""
    ids = {name: number for number, name in enumerate(SCANNET_CLASSES)} | {IGNORE: IGNORED}
    painted = np.full(size, IGNORED, np.uint8)
    for kind, points in polygons:
        cv2.fillPoly(painted, [np.array(points, np.int32)], ids[kind])
    window = np.ones((BORDER, BORDER), np.uint8)
    return np.where(cv2.erode(painted, window) == cv2.dilate(painted, window), painted, IGNORED).astype(np.uint8)
