"""Flicker of a film: changes from frame to frame that the camera's movement does not explain."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from dataset.views import Cameras
from network.geometry import pixel_grid, pixel_rays, project, read_map
from network.rendering import RenderedView

SAME = 0.03  # depths that differ by less, relative, are of one point


@torch.no_grad()
def jumps(views: list[RenderedView], cameras: Cameras) -> np.ndarray:
    """Return for each of N views but the first how far its colours are, in grey levels of 255 and in the mean, from those of the
    view before it, warped by the rendered depth: (N - 1,).

    Points count that both views show. What warping itself blurs counts too: compare films of the same path.
    """
    steps = enumerate(pairwise(views))
    return np.array([_jump(before, view, cameras.one(i), cameras.one(i + 1)) for i, (before, view) in steps])


def _jump(before: RenderedView, view: RenderedView, camera_before: Cameras, camera: Cameras) -> float:
    size, device = camera.size, view.depth.device
    camera_before, camera = camera_before.to(device), camera.to(device)
    centres, directions = pixel_rays(pixel_grid(*size, device=device)[None], camera.poses, camera.Ks)
    landed = project(centres + view.depth[:, None] * directions[0], camera_before)
    known = torch.cat([before.color, before.depth[:, None], before.seen[:, None]], -1).T.reshape(1, 5, *size)
    found = read_map(known, landed.pixels, size, align_corners=True)[0]
    same = (found[:, 3] - landed.depth[0]).abs() < SAME * landed.depth[0]
    shown = landed.valid[0] & (landed.depth[0] > 0) & same & (found[:, 4] > 0.99) & view.seen
    if not shown.any():
        return float("nan")
    return 255 * (found[shown, :3] - view.color[shown]).abs().mean().item()
