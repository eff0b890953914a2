"""The ways to look at a rendered view: colour, classes, both, depth, doubt."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from network.rendering import RenderedView
from utils.colors import color_depth
from utils.panels import mark_unseen
from viewing.session import Classes

COLOR, CLASSES, OVERLAY, DEPTH, ENTROPY = "colour", "classes", "overlay", "depth", "entropy"
GREY = 70  # where there is no class to show


@dataclass(frozen=True)
class Snapshot:
    """A rendered view as arrays: color (h, w, 3) uint8, probabilities (h, w, K+1) or None, depth (h, w) metres, and
    seen (h, w) bool, by a reference."""

    color: np.ndarray
    probabilities: np.ndarray | None
    depth: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, view: RenderedView, size: tuple[int, int]) -> Snapshot:
        def array(values):
            return values.float().cpu().numpy().reshape(*size, -1)

        probabilities = None if view.logits is None else array(view.logits.float().softmax(-1))
        color = (array(view.color).clip(0, 1) * 255).round().astype(np.uint8)
        return cls(color, probabilities, array(view.depth)[..., 0], array(view.seen)[..., 0] > 0)

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of a place in the picture, x and y from 0 to 1."""
        height, width = self.depth.shape
        return min(max(int(y * height), 0), height - 1), min(max(int(x * width), 0), width - 1)


def modes(classes: Classes | None) -> list[str]:
    """What a network can show."""
    return [COLOR, DEPTH] if classes is None else [COLOR, CLASSES, OVERLAY, DEPTH, ENTROPY]


def paint(
    snapshot: Snapshot, mode: str, classes: Classes | None, opacity: float = 0.5, hidden: frozenset[int] = frozenset()
) -> np.ndarray:
    """A picture (h, w, 3) uint8 of one of `modes`, hatched where no reference sees anything. opacity: of classes over colour.
    hidden: classes not to show."""
    return mark_unseen(_paint(snapshot, mode, classes, opacity, hidden), snapshot.seen)


def _paint(
    snapshot: Snapshot, mode: str, classes: Classes | None, opacity: float, hidden: frozenset[int]
) -> np.ndarray:
    if mode == COLOR:
        return snapshot.color
    if mode == DEPTH:
        known = snapshot.depth[snapshot.seen]
        near, far = np.quantile(known, [0.02, 0.98]) if known.size else (0, 1)
        return color_depth(np.where(snapshot.seen, snapshot.depth, 0), near, far)
    if mode == ENTROPY:
        return cv2.applyColorMap((entropy(snapshot) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    number = snapshot.probabilities.argmax(-1)
    invalid = len(classes.names) - 1
    shown = ~np.isin(number, [*hidden, invalid])
    painted = classes.colors[number]
    if mode == CLASSES:
        return np.where(shown[..., None], painted, np.uint8(GREY))
    mixed = (1 - opacity) * snapshot.color + opacity * painted
    return np.where(shown[..., None], mixed.round().astype(np.uint8), snapshot.color)


def entropy(snapshot: Snapshot) -> np.ndarray:
    """How undecided the class is, (h, w): 0 sure, 1 all as likely."""
    p = snapshot.probabilities.clip(1e-9, 1)
    return (-(p * np.log(p)).sum(-1) / np.log(p.shape[-1])).clip(0, 1)


def describe(snapshot: Snapshot, x: float, y: float, classes: Classes | None) -> str:
    """What is at a place of the picture, x and y from 0 to 1: its likeliest classes and its depth, as Markdown."""
    row, column = snapshot.at(x, y)
    if not snapshot.seen[row, column]:
        return "no reference shows this place"
    lines = [f"{snapshot.depth[row, column]:.2f} m away"]
    if classes is not None:
        p = snapshot.probabilities[row, column]
        lines += [f"**{classes.names[i]}** {p[i]:.0%}" for i in np.argsort(-p)[:3]]
    return "  \n".join(lines)
