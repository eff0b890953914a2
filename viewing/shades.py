"""Painting of a rendered view in one of several modes: colour, classes, overlay, depth, entropy."""

from __future__ import annotations

import cv2
import numpy as np

from train.pictures import Picture
from utils.colors import color_depth
from utils.panels import mark_unseen
from viewing.session import Classes

COLOR, CLASSES, OVERLAY, DEPTH, ENTROPY = "colour", "classes", "overlay", "depth", "entropy"
GREY = 70  # of pixels without a class to show


def modes(classes: Classes | None) -> list[str]:
    """Return the modes that a network supports."""
    return [COLOR, DEPTH] if classes is None else [COLOR, CLASSES, OVERLAY, DEPTH, ENTROPY]


def paint(
    picture: Picture, mode: str, classes: Classes | None, opacity: float = 0.5, hidden: frozenset[int] = frozenset()
) -> np.ndarray:
    """Paint a picture (h, w, 3) uint8 of one of `modes`, hatched where no reference sees anything. opacity: of classes
    over colour. hidden: classes not to show."""
    return mark_unseen(_paint(picture, mode, classes, opacity, hidden), picture.seen)


def _paint(picture: Picture, mode: str, classes: Classes | None, opacity: float, hidden: frozenset[int]) -> np.ndarray:
    if mode == COLOR:
        return picture.color
    if mode == DEPTH:
        known = picture.depth[picture.seen]
        near, far = np.quantile(known, [0.02, 0.98]) if known.size else (0, 1)
        return color_depth(np.where(picture.seen, picture.depth, 0), near, far)
    if mode == ENTROPY:
        return cv2.applyColorMap((entropy(picture) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    number = picture.probabilities.argmax(-1)
    invalid = len(classes.names) - 1
    shown = ~np.isin(number, [*hidden, invalid])
    painted = classes.colors[number]
    if mode == CLASSES:
        return np.where(shown[..., None], painted, np.uint8(GREY))
    mixed = (1 - opacity) * picture.color + opacity * painted
    return np.where(shown[..., None], mixed.round().astype(np.uint8), picture.color)


def entropy(picture: Picture) -> np.ndarray:
    """Return the normalised entropy of the classes, (h, w): 0 certain, 1 uniform."""
    p = picture.probabilities.clip(1e-9, 1)
    return (-(p * np.log(p)).sum(-1) / np.log(p.shape[-1])).clip(0, 1)


def describe(picture: Picture, x: float, y: float, classes: Classes | None) -> str:
    """Return the depth and the three most probable classes at a place of the picture, x and y from 0 to 1, as
    Markdown."""
    height, width = picture.depth.shape
    row, column = min(max(int(y * height), 0), height - 1), min(max(int(x * width), 0), width - 1)
    if not picture.seen[row, column]:
        return "no reference shows this place"
    lines = [f"{picture.depth[row, column]:.2f} m away"]
    if classes is not None:
        p = picture.probabilities[row, column]
        lines += [f"**{classes.names[i]}** {p[i]:.0%}" for i in np.argsort(-p)[:3]]
    return "  \n".join(lines)
