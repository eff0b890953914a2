"""Flicker of a film: changes of colour from frame to frame that are not due to the motion of the camera."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from dataset.views import Cameras
from network.geometry import pixel_grid, pixel_rays, project, read_map
from network.rendering import RenderedView

SAME = 0.03  # relative difference of depth below which two pixels show the same point


@torch.no_grad()
def jumps(views: list[RenderedView], cameras: Cameras) -> np.ndarray:
    """Return the mean colour difference of each view but the first to the view before it, warped by the rendered depth,
    in grey levels of 255: (N - 1,).

    Only points that both views show are compared. Blur by the warping is included, so compare films of the same path
    only.
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
