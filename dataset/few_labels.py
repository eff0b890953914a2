"""Simulation of cheap annotation: fewer, coarser and wrong labels of training frames.

Test and validation frames keep all of their labels, and are not among the frames with reduced labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch

from dataset.scene import Scene
from dataset.view_selection import evenly
from dataset.views import Views
from utils.config import Setting
from utils.errors import UserError

SCANNED_FRAMES = 100  # frames of a scene from which its classes and the share of labels left are estimated
DEFAULTS = {
    # number (5) or share (0.1) of the training frames that have labels, evenly spaced; null: all
    "frames": Setting(None, float, minimum=0),
    # labels are known in blocks of so many pixels a side alone (8, 16): all of a block has the label of its central
    # pixel, as in the dense setting of Semantic-NeRF's super-resolution
    "coarseness": Setting(1, int, minimum=1),
    "clicks": Setting(None, int, minimum=1),  # number of labelled pixels of each class in a frame; null: all
    # share of the objects (connected components of a class in a frame) whose class is replaced by another one of the
    # scene
    "wrong_objects": Setting(0.0, float, minimum=0, maximum=0.9),
    # share of the remaining labelled pixels whose class is replaced by another one of the scene
    "wrong_pixels": Setting(0.0, float, minimum=0, maximum=0.9),
}


@dataclass(frozen=True)
class FewLabels:
    """The reduced labels of a scene; they depend on the seed and the frame alone.

    settings: the config's `few_labels`. frames: those with labels. among: number of frames from which these were
    chosen. classes: (N,) uint8, sorted, the scene's classes, if the settings ask for wrong labels; else empty. ignore:
    K, of pixels without a label.
    """

    settings: Any
    seed: int
    frames: tuple[str, ...]
    among: int
    classes: np.ndarray
    ignore: int

    @classmethod
    def of(cls, scene: Scene, cfg) -> FewLabels | None:
        """Return the reduced labels of a scene by the config's `few_labels`; None if it keeps all, or the scene has
        none.

        Raise UserError if the scene has too few frames.
        """
        settings = cfg.few_labels
        if scene.labels is None or all(settings[key] == setting.default for key, setting in DEFAULTS.items()):
            return None
        candidates = scene.training_frames(hold_out_tests=True, validated=cfg.validation_frames)
        frames = labelled_frames(scene, candidates, settings.frames, cfg.seed)
        ignore, classes = scene.labels.ignore, np.empty(0, np.uint8)
        if settings.wrong_objects or settings.wrong_pixels:
            maps = [labels for _, labels in scene.label_maps(evenly(frames, SCANNED_FRAMES))]
            classes = np.setdiff1d(np.concatenate([np.unique(labels) for labels in maps] or [classes]), [ignore])
        return cls(settings, cfg.seed, tuple(frames), len(candidates), classes, ignore)

    def of_frame(self, labels: np.ndarray, frame: str) -> np.ndarray:
        """Return the reduced labels of a frame, (h, w) uint8. labels: all of its labels."""
        if frame not in self.frames:
            return np.full_like(labels, self.ignore)
        return degrade(labels, self.settings, self.classes, self.ignore, np.random.default_rng([self.seed, int(frame)]))

    def of_views(self, views: Views, frames: Sequence[str]) -> Views:
        """Return views of these frames with reduced labels, if they have labels."""
        if views.labels is None:
            return views
        labels = [self.of_frame(labels.numpy(), frame) for labels, frame in zip(views.labels, frames, strict=True)]
        return replace(views, labels=torch.from_numpy(np.stack(labels)))

    def share_left(self, scene: Scene) -> float:
        """Return the share of the labelled pixels of all training frames that is left, an estimate."""
        before = after = 0
        for frame, labels in scene.label_maps(evenly(self.frames, SCANNED_FRAMES)):
            before += int((labels != self.ignore).sum())
            after += int((self.of_frame(labels, frame) != self.ignore).sum())
        return after / max(before, 1) * len(self.frames) / max(self.among, 1)


def labelled_frames(scene: Scene, frames: list[str], wanted: float | None, seed: int) -> list[str]:
    """Choose the training frames that have labels, evenly spaced from a random start.

    They are chosen from the reference pool of the tests if it is large enough, so that tests can use them as
    references. wanted: number, or share, of the frames; None: all. Raise UserError if there are too few frames.
    """
    if wanted is None:
        return frames
    if not frames:
        raise UserError(f"{scene.name}: no training frame is left for `few_labels.frames`; lower validation_frames")
    count = max(1, round(wanted * len(frames))) if wanted < 1 else int(wanted)
    if not 0 < wanted < 1 and wanted not in range(1, len(frames) + 1):
        raise UserError(
            f"`few_labels.frames` should be a share between 0 and 1, or a whole number up to the {len(frames)} training frames "
            f"of {scene.name}, but is {wanted:g}"
        )
    pool = [frame for frame in scene.split().references if frame in set(frames)]
    candidates = pool if count <= len(pool) else frames
    start = np.random.default_rng(seed).random()
    return [candidates[int((i + start) * len(candidates) / count)] for i in range(count)]


def degrade(
    labels: np.ndarray, settings: Any, classes: np.ndarray, ignore: int, rng: np.random.Generator
) -> np.ndarray:
    """Return labels (h, w) uint8 with errors and gaps by `settings`: all keys of `DEFAULTS` except `frames`.

    Wrong objects are applied first, wrong pixels last: `wrong_pixels` is a share of the labels that are left.
    """
    if settings.wrong_objects:
        labels = mistake_objects(labels, settings.wrong_objects, classes, ignore, rng)
    if settings.coarseness > 1:
        labels = coarsen(labels, settings.coarseness)
    if settings.clicks is not None:
        labels = keep_clicks(labels, settings.clicks, ignore, rng)
    if settings.wrong_pixels:
        wrong = (rng.random(labels.shape) < settings.wrong_pixels) & (labels != ignore)
        labels = np.where(wrong, another_class(labels, classes, rng), labels)
    return labels


def mistake_objects(
    labels: np.ndarray, share: float, classes: np.ndarray, ignore: int, rng: np.random.Generator
) -> np.ndarray:
    """Return labels (h, w) of which a share of the connected parts of each class has another class."""
    result = labels
    for known in np.setdiff1d(labels, [ignore]):
        count, part = cv2.connectedComponents((labels == known).astype(np.uint8))
        wrong = rng.random(count) < share
        wrong[0] = False  # component 0 is the background
        result = np.where(wrong[part], another_class(np.full(count, known), classes, rng)[part], result)
    return result


def coarsen(labels: np.ndarray, block: int) -> np.ndarray:
    """Return labels (h, w) of which each block of `block` pixels a side has that of its central pixel."""
    rows, columns = (np.minimum(np.arange(side) // block * block + block // 2, side - 1) for side in labels.shape)
    return labels[rows[:, None], columns]


def keep_clicks(labels: np.ndarray, count: int, ignore: int, rng: np.random.Generator) -> np.ndarray:
    """Return labels (h, w) of which `count` random pixels of each class are left."""
    result = np.full(labels.size, ignore, labels.dtype)
    for known in np.setdiff1d(labels, [ignore]):
        pixels = np.flatnonzero(labels == known)
        result[rng.choice(pixels, min(count, len(pixels)), replace=False)] = known
    return result.reshape(labels.shape)


def another_class(labels: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each label a random other one of `classes`, sorted; the label itself if there is no other."""
    if len(classes) < 2:
        return labels
    shift = rng.integers(1, len(classes), labels.shape)
    return classes[(np.searchsorted(classes, labels) + shift) % len(classes)]
