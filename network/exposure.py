"""Compensation of exposure: hand-held cameras choose another exposure for every frame.

Where two references show the same surface, their colours tell the ratio of their exposures. Nothing is learned.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from dataset.views import Cameras, Views
from network.geometry import read_map, scaled_cameras
from network.ops.splat import merge_depth, see_surface, splat_depth
from network.rendering import Encoding

COARSER = 3  # gains are computed from every third pixel of the query along each axis
FEWEST_SHARED = 0.007  # share of the query's pixels that two references must both show to be compared
HELD = 3e-4  # weight of the prior that gains are 1, as a share of the query's pixels
DARKEST = 0.02  # darker colours are raised to this before the logarithm


def balanced(encoding: Encoding, query: Cameras) -> Encoding:
    """Return an encoding whose images have the same exposure in what the query camera sees; features are not changed.

    Needs `surfaces`. The geometric mean of the gains, weighted by what the references show of the query, is 1.
    """
    height, width = (max(1, side // COARSER) for side in query.size)
    gains = exposure_gains(encoding, scaled_cameras(query, (height, width)))
    return replace(encoding, images=(encoding.images * gains[:, None, None, None]).clamp(0, 1))


def exposure_gains(encoding: Encoding, query: Cameras) -> torch.Tensor:
    """Return the gains of the images of V references, (V,): a least-squares fit of their logarithms to the median
    difference of the logarithms of colours of each pair."""
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
    """Solve `matrix` x = `vector` for a small positive definite matrix (n, n), by Gauss-Jordan elimination in float64.

    The solvers of torch.linalg cannot be recorded in a CUDA graph.
    """
    rows = torch.cat([matrix, vector[:, None]], 1).double()
    for i in range(len(rows)):
        row = rows[i] / rows[i, i]
        rows = rows - rows[:, i, None] * row
        rows[i] = row
    return rows[:, -1].to(vector)
