"""One exposure for all references of a view: hand-held cameras choose another one for every frame.

Two references that show the same surface of the query say how much brighter one is than the other. Nothing is learned.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from dataset.views import Cameras, Views
from network.geometry import read_map, scaled_cameras
from network.ops.splat import merge_depth, see_surface, splat_depth
from network.rendering import Encoding

COARSER = 3  # a gain needs few pixels: one in so many along each axis of the query
FEWEST_SHARED = 0.007  # of the query, that two references show both: less tells nothing
HELD = 3e-4  # of the query: the weight of a gain of 1
DARKEST = 0.02  # colours below it have no logarithm to speak of


def balanced(encoding: Encoding, query: Cameras) -> Encoding:
    """Return an encoding whose images have one exposure where the query camera looks; what is learned of them stays as it is.

    Needs `surfaces`. The mean gain over what the references show of the query is 1.
    """
    height, width = (max(1, side // COARSER) for side in query.size)
    gains = exposure_gains(encoding, scaled_cameras(query, (height, width)))
    return replace(encoding, images=(encoding.images * gains[:, None, None, None]).clamp(0, 1))


def exposure_gains(encoding: Encoding, query: Cameras) -> torch.Tensor:
    """Return by what to multiply the images of V references, (V,): least squares of the logarithms over all pairs, whose difference
    is the median of those of their pixels."""
    depth = encoding.surfaces[..., 0][:, None]
    references = Views(encoding.cameras, encoding.images, depth)
    surface = merge_depth(splat_depth(depth, encoding.cameras, query))
    pixels, weights = see_surface(references, query, surface)
    colors = read_map(encoding.images, pixels, encoding.cameras.size, align_corners=True)
    logs = colors.float().mean(-1).clamp_min(DARKEST).log()
    logs = torch.where(weights > 0, logs, torch.nan)
    differences = logs[None] - logs[:, None]  # (V, V, N): of the second from the first
    shared = differences.isfinite().float().mean(-1)
    weight = torch.where(shared > FEWEST_SHARED, shared, 0).fill_diagonal_(0)
    middle = differences.nanmedian(-1).values.nan_to_num()
    system = torch.diag(weight.sum(1) + HELD) - weight
    gains = solve_positive(system, (weight * middle).sum(1))
    share = weights.sum(1) / weights.sum().clamp_min(1e-8)
    return (gains - (share * gains).sum()).exp()


def solve_positive(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return x of `matrix` x = `vector` for a small positive definite matrix (n, n), by Gauss-Jordan elimination in float64.

    What torch.linalg has cannot be recorded on a GPU.
    """
    rows = torch.cat([matrix, vector[:, None]], 1).double()
    for i in range(len(rows)):
        row = rows[i] / rows[i, i]
        rows = rows - rows[:, i, None] * row
        rows[i] = row
    return rows[:, -1].to(vector)
