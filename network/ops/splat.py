"""Splatting of the references' pixels into another view by their depth, and blending of their colours there.

Nothing is learned here. A depth map is z-depth in metres, 0 where unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from dataset.views import Cameras, Views
from network.geometry import directions_to_cameras, full_precision, inverse, pixel_grid, pixel_rays, project, read_map

AGREEMENT = 0.03  # a reference sees a surface if its depth there is off by no more than this part of it
SHARPNESS = 20.0  # a reference counts e times less for each 1/20 rad more between its ray and the query's
FOOTPRINT = ((0, 0), (1, 0), (0, 1), (1, 1))  # a pixel is splatted onto the four around where it lands


@full_precision
def splat_depth(depth: torch.Tensor, cameras: Cameras, query: Cameras) -> torch.Tensor:
    """Return each reference's depth as the query camera would see it: (V, h, w), 0 in holes.

    depth: (V, 1, H, W) of V cameras. Of what is splatted onto one pixel of the query (2x2 splats) the nearest is kept.
    """
    height, width = query.size
    matrices, offsets = _pixel_to_pixel(cameras, query)
    pixels = pixel_grid(*cameras.size, device=depth.device)
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[:, :1])], -1)
    depth = depth.flatten(1)
    x, y, z = (depth[..., None] * (homogeneous @ matrices.transpose(1, 2)) + offsets[:, None]).unbind(-1)
    landed = (depth > 0) & (z > 1e-3)
    left, top = ((axis / z).nan_to_num().clamp(-2, 2**20).floor().int() for axis in (x, y))
    # The bits of positive floats are ordered as the floats are, and GPUs have an atomic minimum of integers alone.
    bits = torch.where(landed, z, torch.inf).view(torch.int32)
    unseen = torch.full_like(bits, 0x7F800000)  # infinity
    nearest = unseen.new_full((len(depth), height * width), 0x7F800000)
    for right, below in FOOTPRINT:
        column, row = left + right, top + below
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        # What lands outside changes nothing where it is sent: spread out, since one place would be a queue.
        place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        nearest.scatter_reduce_(1, place.long(), torch.where(inside, bits, unseen), "amin")
    found = nearest.view(torch.float32)
    return torch.where(found.isinf(), 0, found).view(-1, height, width)


def _pixel_to_pixel(cameras: Cameras, query: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matrices (V, 3, 3) and offsets (V, 3) by which pixel p of a camera at depth z lands at z (M p) + o in the
    query."""
    Ks, poses, query_K, query_pose = (x.double() for x in (cameras.Ks, cameras.poses, query.Ks[0], query.poses[0]))
    turn = query_pose[:, :3] @ poses[:, :, :3].transpose(1, 2)
    offsets = query_pose[:, 3:] - turn @ poses[:, :, 3:]
    return (query_K @ turn @ inverse(Ks)).float(), (query_K @ offsets)[..., 0].float()


def merge_depth(splats: torch.Tensor) -> torch.Tensor:
    """Return one depth map (h, w) of what references see (V, h, w): the nearest of them at each pixel, holes filled from
    the nearest known pixel, and a 3x3 median. 0 everywhere if nothing is known."""
    merged = torch.where(splats > 0, splats, torch.inf).amin(0)
    merged = torch.where(merged.isinf(), 0, merged)
    filled = merged.flatten()[nearest_known(merged > 0)]
    padded = F.pad(filled[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    return padded.unfold(0, 3, 1).unfold(1, 3, 1).flatten(2).median(-1).values


def nearest_known(known: torch.Tensor) -> torch.Tensor:
    """Return, for each pixel of a map (h, w) bool, the flat index of the nearest known one; its own if none is known.

    By jump flooding (Rong and Tan 2006), with a second pass of step 1: off by a pixel at times.
    """
    height, width = known.shape
    place = pixel_grid(height, width, known.device).T.view(2, height, width)
    far = 1e6
    nearest = torch.where(known, place, far)
    steps = [2**power for power in reversed(range((max(height, width) - 1).bit_length()))]
    for step in [*steps, 1]:
        padded = F.pad(nearest, (step,) * 4, value=far)
        windows = [padded[:, y : y + height, x : x + width] for y in (0, step, 2 * step) for x in (0, step, 2 * step)]
        candidates = torch.stack(windows)
        closest = (candidates - place).square().sum(1).argmin(0)
        nearest = candidates.gather(0, closest.expand(1, 2, -1, -1))[0]
    x, y = torch.where(nearest < far, nearest, place).long()
    return y * width + x


class Sighting(NamedTuple):
    """Projections of a query view's surface into V references: pixels (V, N, 2) and weights (V, N), which add up to 1
    over the references, or to 0 where none sees it; N = h * w."""

    pixels: torch.Tensor
    weights: torch.Tensor

    @property
    def seen(self) -> torch.Tensor:
        """Return which pixels a reference sees, (N,) bool."""
        return self.weights.sum(0) > 0


def see_surface(references: Views, query: Cameras, depth: torch.Tensor) -> Sighting:
    """Return where references with depth see the surface at `depth` (h, w) of the query camera, if they do.

    A reference sees a point if its own depth there differs by less than 3%. Its weight falls with the angle between its
    ray and the query's.
    """
    grid = pixel_grid(*query.size, device=depth.device)
    centres, directions = pixel_rays(grid[None], query.poses, query.Ks)
    points = centres + directions[0] * depth.reshape(-1, 1)
    landed = project(points, references.cameras)
    known = read_nearest(references.depth[:, 0], landed.pixels)
    agrees = landed.valid & ((known - landed.depth).abs() < AGREEMENT * landed.depth)
    to_query = -directions[0] / directions[0].norm(dim=-1, keepdim=True)
    cosine = (directions_to_cameras(points, references.cameras) * to_query).sum(-1)
    angle = torch.acos(cosine.clamp(-1, 1))
    # Relative to the closest one that agrees: of references that are all far off the best still counts.
    least = torch.where(agrees, angle, torch.inf).amin(0)
    weights = torch.where(agrees, torch.exp((least - angle).clamp_max(0) * SHARPNESS), 0)
    return Sighting(landed.pixels, weights / weights.sum(0).clamp_min(1e-8))


def blend_colors(references: Views, sighting: Sighting) -> torch.Tensor:
    """Return the references' colours where they see the surface, blended: (N, 3), 0 where none does."""
    colors = read_map(references.images, sighting.pixels, references.cameras.size, align_corners=True)
    return (colors * sighting.weights[..., None]).sum(0)


def vote_labels(labels: torch.Tensor, sighting: Sighting, classes: int) -> torch.Tensor:
    """Return the class (N,) that most weight is given to by the references' labels (V, H, W); `classes` where none."""
    votes = F.one_hot(read_nearest(labels, sighting.pixels), classes + 1)[..., :classes] * sighting.weights[..., None]
    most, winner = votes.sum(0).max(-1)
    return torch.where(most > 0, winner, classes)


def read_nearest(maps: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Read maps (V, H, W) at the nearest entries to pixels (V, N, 2): (V, N)."""
    height, width = maps.shape[-2:]
    x, y = pixels.nan_to_num().round().long().unbind(-1)
    return maps.flatten(1).gather(1, y.clamp(0, height - 1) * width + x.clamp(0, width - 1))
