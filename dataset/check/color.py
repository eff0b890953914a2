"""What is wrong with colour where depth and poses agree: is it of these frames, does it lie on their depth, is red red?"""

from __future__ import annotations

import cv2
import numpy as np

from dataset.check.alignment import find_misalignment
from dataset.check.warping import Pair, Warp

ENOUGH_DETAIL = 0.4  # correlation of fine detail in an average pair
DETAIL_SIZE = 60  # of an image's width: detail is what is finer than a 60th of it
SWAPPED, FEWEST_OF_COLOR, COLORFUL = -0.5, 1000, 3.0  # correlation of red less blue; pixels; of 255, its spread
FEWEST_PIXELS = 100  # that show the same surface, for colours to be compared
TURNS = {  # what may have happened to colour alone: its name, and what undoes it
    "turned by 180 degrees": lambda image: image[::-1, ::-1],
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
}


def compare_color(pair: Pair, one: Warp, turn=lambda image: image) -> tuple[float, float]:
    """Return, where surfaces agree, the median difference of colour, 0 to 1, and the correlation of fine detail. turn:
    what is done to the colour images first."""
    source, rows, columns = one.source[one.visible], one.rows[one.visible], one.columns[one.visible]
    if len(source) < FEWEST_PIXELS:
        return float("nan"), float("nan")
    first, second = (np.ascontiguousarray(turn(image)).astype(np.float32) for image in pair.colors)
    difference = np.abs(first.reshape(-1, 3)[source] - second[rows, columns]).mean(-1)
    first_detail, second_detail = _detail(first).ravel()[source], _detail(second)[rows, columns]
    spread = first_detail.std() * second_detail.std()
    covariance = ((first_detail - first_detail.mean()) * (second_detail - second_detail.mean())).mean()
    return float(np.median(difference)) / 255, float(covariance / spread) if spread > 1e-3 else float("nan")


def is_swapped(pair: Pair, one: Warp) -> bool:
    """Return whether red and blue are the other way round in one of two frames: where surfaces agree, what is red in one is blue in the
    other."""
    source, rows, columns = one.source[one.visible], one.rows[one.visible], one.columns[one.visible]
    colors = pair.colors[0].reshape(-1, 3)[source], pair.colors[1][rows, columns]
    redness = np.stack([color[:, 0].astype(float) - color[:, 2] for color in colors])
    if len(source) < FEWEST_OF_COLOR or redness.std(1).min() < COLORFUL:
        return False
    return bool(np.corrcoef(redness)[0, 1] < SWAPPED)


def _detail(image: np.ndarray) -> np.ndarray:
    """Return what is finer than a 60th of the width, (h, w)."""
    grey = image.mean(-1)
    return grey - cv2.GaussianBlur(grey, (0, 0), grey.shape[1] / DETAIL_SIZE)


def find_color_cause(pairs: list[Pair], warps: list[Warp], now: float) -> str | None:
    """Return what is wrong with colour: red and blue, or how it lies against depth and poses, where another way fits much better; None
    otherwise."""
    if swapped := [pair.frames for pair, one in zip(pairs, warps, strict=True) if is_swapped(pair, one)]:
        some = ", ".join(f"one of {first} and {second}" for first, second in swapped[:3])
        return f"red and blue are swapped in some frames, and not in others ({some})"
    found = {}
    for name, turn in TURNS.items():
        details = [compare_color(pair, one, turn)[1] for pair, one in zip(pairs, warps, strict=True)]
        found[name] = np.median([detail for detail in details if np.isfinite(detail)] or [-1.0])
    name = max(found, key=found.get)
    if found[name] > max(ENOUGH_DETAIL, now + 0.3):
        return f"colour is {name} against depth"
    frames = {
        name: (color, depth)
        for pair in pairs
        for name, color, depth in zip(pair.frames, pair.colors, pair.depths, strict=True)
    }
    misalignment = find_misalignment(*map(list, zip(*frames.values(), strict=True)))
    return None if misalignment is None else str(misalignment)
