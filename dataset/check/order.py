"""Do pose, depth and colour of a frame belong together, or is one of them that of the frame before or after it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataset.check.color import compare_color
from dataset.check.warping import Pair, choose_pairs, warp
from dataset.scene import Scene
from utils.errors import UserError

PAIRS, FEWEST_PAIRS = 24, 8
FITS, TIMES = (
    0.2,
    2.0,
)  # least fit, and so many times the fit as it is, with which another order of the poses is the right one
GAIN, SURE = 0.04, 3.0  # of agreement times correlation of detail, that counts; in standard errors
SHIFTS = {  # of which frame's pose and colour fit the depth of a frame, counted from it: what was mixed up
    (-1, 0): "the pose of the frame after it",
    (1, 0): "the pose of the frame before it",
    (1, 1): "the depth of the frame after it",
    (-1, -1): "the depth of the frame before it",
    (0, -1): "the colour of the frame after it",
    (0, 1): "the colour of the frame before it",
}


def find_order(scene: Scene) -> tuple[str | None, str | None]:
    """Return what is wrong with geometry, and with colour, where each frame has something of its neighbour's; None where frames fit
    as they are, move too little, or are too few to tell."""
    rows = {frame: row for row, frame in enumerate(scene.frame_ids)}
    inner = scene.frame_ids[1:-1]
    pairs = [pair for pair in choose_pairs(scene, PAIRS) if set(pair.frames) <= set(inner)]
    if len(pairs) < FEWEST_PAIRS:
        return None, None

    def colors(row: int) -> np.ndarray:
        return scene.views([scene.frame_ids[row]]).images[0].permute(1, 2, 0).numpy()

    def shifted(pair: Pair, pose: int, color: int) -> Pair:
        own = [rows[frame] for frame in pair.frames]
        images = [colors(row + color) for row in own] if color else pair.colors
        return replace(pair, poses=[scene.camera_to_world[row + pose] for row in own], colors=images)

    as_it_is = fit(pairs)
    try:
        gains = {shift: fit([shifted(pair, *shift) for pair in pairs]) - as_it_is for shift in SHIFTS}
    except UserError:  # for an image that cannot be read, which the inventory says
        return None, None
    best = max(gains, key=lambda shift: gains[shift].mean())
    gain = gains[best]
    if gain.mean() <= max(GAIN, SURE * gain.std() / np.sqrt(len(gain))):
        return None, None
    text = f"each frame has {SHIFTS[best]}"
    return (text, None) if best[0] else (None, text)


def find_permutation(scene: Scene) -> str | None:
    """Return how the order of all poses differs from that of the frames; None where no order that is known here makes frames fit
    far better."""

    def reached(rows: np.ndarray | slice) -> float:
        pairs = choose_pairs(scene, PAIRS, scene.camera_to_world[rows])
        return float(fit(pairs).mean()) if len(pairs) >= FEWEST_PAIRS else 0.0

    found = {text: reached(rows) for text, rows in _orders(scene.frame_ids).items()}
    best = max(found, key=found.__getitem__)
    return best if found[best] > max(FITS, TIMES * reached(slice(None))) else None


def _orders(frames: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what may have happened to the order of poses, and for each frame the row of its pose, (N,)."""
    by_text = np.array(sorted(range(len(frames)), key=lambda row: frames[row]))
    told = "as text (0, 1, 10, 11, …, 2), {} by number"
    orders = {
        f"poses are in the order of the frames' names {told.format('frames')}": np.argsort(by_text),
        f"frames are in the order of their names {told.format('poses')}": by_text,
        "poses are in reverse order": np.arange(len(frames))[::-1],
    }
    return {text: rows for text, rows in orders.items() if (rows != np.arange(len(frames))).any()}


def fit(pairs: list[Pair]) -> np.ndarray:
    """Return how well depth, poses and colour fit each other, (N,): agreement of surfaces times correlation of what is fine in
    colour."""
    warps = [warp(pair) for pair in pairs]
    details = [compare_color(pair, one)[1] for pair, one in zip(pairs, warps, strict=True)]
    return np.array([one.agreement for one in warps]) * np.maximum(np.nan_to_num(details), 0)
