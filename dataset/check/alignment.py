"""Does depth lie on the colour that it belongs to? Where depth jumps, colour should change."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

JUMP = 0.08  # neighbouring pixels whose depth differs by more, relative, are an edge
EDGES = 400  # of a frame that are looked at
FEWEST_EDGES = 1000  # of all frames: fewer say nothing
SMOOTHING = 1.0  # pixels
SEARCH = (  # steps of scale, steps of shift in pixels, and how many of each to either side: coarse to fine
    (0.02, 3.0, 7, 4),
    (0.01, 1.5, 2, 2),
    (0.005, 0.75, 2, 2),
)
CLEARLY_BETTER = 1.25  # times as much change of colour at the edges of depth
SMALLEST = 0.012  # of the width: how far corners have to be off


class Misalignment(NamedTuple):
    """Misalignment of depth and colour: a depth pixel p, counted from the middle of the image, lies at scale p + shift
    in the colour image; shift is (x, y) in image widths."""

    scale: float
    shift: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"depth is not registered to colour: it fits {self.scale:.3g} times as large and moved by {self.shift[0]:+.1%} of the "
            f"width to the right and {self.shift[1]:+.1%} down; give the depth camera (depth_fl_x, …, or intrinsic_depth.txt), if colour is of the same frames"
        )


def find_misalignment(colors: list[np.ndarray], depths: list[np.ndarray]) -> Misalignment | None:
    """Return how depth maps (h, w) lie on colour images (h, w, 3) of the same size, all frames alike; None where they fit as they
    are, or there are too few edges to tell."""
    rng = np.random.default_rng(0)
    maps = np.stack([color_changes(color) for color in colors])
    edges = [_edges(depth, rng) for depth in depths]
    frames = np.repeat(np.arange(len(edges)), [len(found) for found in edges])
    points = np.concatenate(edges)
    if len(points) < FEWEST_EDGES:
        return None
    height, width = maps.shape[1:]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])

    def score(candidate: np.ndarray) -> float:
        """Return how much colour changes at the edges of depth, were it of this (scale, x, y)."""
        x, y = ((points - middle) * candidate[0] + middle + candidate[1:]).round().astype(int).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return float(maps[frames[inside], y[inside], x[inside]].mean()) if inside.sum() > len(points) / 2 else 0.0

    best = as_it_is = np.array([1.0, 0, 0])
    for scale, shift, scales, shifts in SEARCH:
        steps = [np.arange(-n, n + 1) * step for n, step in ((scales, scale), (shifts, shift), (shifts, shift))]
        around = best + np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
        best = max(around, key=score)
    corner = np.abs(middle * (best[0] - 1)) + np.abs(best[1:])
    if score(best) < CLEARLY_BETTER * score(as_it_is) or corner.max() < SMALLEST * width:
        return None
    return Misalignment(float(best[0]), (float(best[1] / width), float(best[2] / width)))


def _edges(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return points (N, 2) of x, y between pixels of which one is much farther than the other; at most EDGES of them."""
    found = []
    for down, right in ((0, 1), (1, 0)):
        first, second = depth[: depth.shape[0] - down, : depth.shape[1] - right], depth[down:, right:]
        jump = np.abs(first - second) > JUMP * np.minimum(first, second)
        y, x = np.nonzero(jump & (first > 0) & (second > 0))
        found.append(np.stack([x + right / 2, y + down / 2], -1))
    points = np.concatenate(found)
    return rng.permutation(points)[:EDGES]


def color_changes(color: np.ndarray) -> np.ndarray:
    """Return how much colour changes around each pixel, (h, w), less what it does in the middle of the image's pixels."""
    smooth = cv2.GaussianBlur(color.astype(np.float32), (0, 0), SMOOTHING)
    slopes = [cv2.Sobel(smooth, -1, x, y, scale=1 / 8) for x, y in ((1, 0), (0, 1))]
    size = np.sqrt(sum(np.square(slope).sum(-1) for slope in slopes))
    size = cv2.GaussianBlur(np.minimum(size / max(np.quantile(size, 0.95), 1e-6), 1), (0, 0), SMOOTHING)
    return size - size.mean()
