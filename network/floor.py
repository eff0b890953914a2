"""The floor, from the references' depth: what lies on it is floor, and what stands higher is not, whatever it looks like.

What a floor looks like differs from room to room, where it lies does not. Nothing is learned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from dataset.views import Cameras
from network.geometry import pixel_grid, pixel_rays

ACROSS = 80  # so many points along a row of an image, or nearly; a normal is of three neighbours
LARGEST_STEP = 0.15  # relative, between the depths of such points of one surface
CONES = 40.0, 25.0, 15.0, 10.0  # degrees about upright, in which normals are averaged in turn
FEWEST_POINTS = 100  # on level surfaces: fewer tell nothing
BIN = 0.04  # metres, of the histogram of their heights
LEAST_SHARE = 0.1  # of these points, that the floor has
MOST_BELOW = 0.05  # of these points, that may lie lower: below a table is a floor, whatever the unit of the poses
BELOW_CAMERAS = 1.0, 2.2  # metres from a floor up to the cameras of somebody who stands on it
ON_IT, ABOVE_IT = 0.04, 0.12  # metres above the floor: what is lower is floor, what is higher is not
EVIDENCE = 6.0  # that is added to the logit of the floor there, or taken from it


class Floor(NamedTuple):
    """The points p with p @ up = height: up (3,) of length 1, height ()."""

    up: torch.Tensor
    height: torch.Tensor


def find_floor(depth: torch.Tensor, cameras: Cameras) -> Floor | None:
    """Return the floor in the depth (V, h, w) of cameras in metres, 0 where unknown: the lowest large level surface, if it
    is as far below the cameras as a floor is and next to nothing lies lower; None if there is none."""
    points, normals = surface_points(depth, cameras)
    up = upright(normals, cameras)
    if up is None:
        return None
    heights = points[_within(normals, up, CONES[-1])] @ up
    above = (cameras.centres() @ up).median()
    deeper = int(BELOW_CAMERAS[1] / BIN) + 1  # the bin of all that lies lower
    bins = ((above - heights) / BIN).long().clamp(0, deeper)
    counts = bins.bincount(minlength=deeper + 1)
    of_two = (counts[:-1] + counts[1:])[:-1]  # bins, since a level may lie between them
    large = (of_two >= LEAST_SHARE * len(heights)).nonzero()[:, 0].tolist()
    if not large or large[-1] * BIN < BELOW_CAMERAS[0] or counts[large[-1] + 2 :].sum() > MOST_BELOW * len(heights):
        return None
    return Floor(up, heights[(bins == large[-1]) | (bins == large[-1] + 1)].median())


def surface_points(depth: torch.Tensor, cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points (N, 3) of the surfaces that depth (V, h, w) shows, and their normals (N, 3) towards the cameras, in the
    world."""
    step = max(1, depth.shape[-1] // ACROSS)
    depth = depth[:, ::step, ::step]
    count, height, width = depth.shape
    pixels = step * pixel_grid(height, width, device=depth.device)
    centres, directions = pixel_rays(pixels.expand(count, -1, 2), cameras.poses, cameras.Ks)
    points = (centres[:, None] + depth.flatten(1)[..., None] * directions).view(count, height, width, 3)
    here, right, below = points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, :-1]
    normals = torch.nn.functional.normalize(torch.linalg.cross(below - here, right - here, dim=-1), dim=-1)
    depths = torch.stack([depth[:, :-1, :-1], depth[:, :-1, 1:], depth[:, 1:, :-1]], -1)
    smooth = (depths.amin(-1) > 0) & (depths.amax(-1) < depths.amin(-1) * (1 + LARGEST_STEP))
    return here[smooth], normals[smooth]


def upright(normals: torch.Tensor, cameras: Cameras) -> torch.Tensor | None:
    """Return the direction (3,) upwards: the mean of those normals (N, 3) that are about as upright as the cameras are held;
    None if there are too few of them."""
    up = torch.nn.functional.normalize(-cameras.poses[:, 1, :3].mean(0), dim=0)
    for degrees in CONES:
        inside = _within(normals, up, degrees)
        if inside.sum() < FEWEST_POINTS:
            return None
        up = torch.nn.functional.normalize(normals[inside].mean(0), dim=0)
    return up


def _within(normals: torch.Tensor, up: torch.Tensor, degrees: float) -> torch.Tensor:
    return normals @ up > math.cos(math.radians(degrees))


def with_floor(logits: torch.Tensor, points: torch.Tensor, floor: Floor, floor_class: int) -> torch.Tensor:
    """Return class logits (R, K+1) of points (R, 3) with what their height above the floor says of the class of floors."""
    height = points @ floor.up - floor.height
    high = ((height - ON_IT) / (ABOVE_IT - ON_IT)).clamp(0, 1)
    logits = logits.clone()
    logits[:, floor_class] += (EVIDENCE * (1 - 2 * high)).to(logits)
    return logits
