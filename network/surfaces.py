"""Surfaces that the references' depth shows, and the points where query rays meet them.

Reference depth (V, 1, h, w) is z-depth in metres, 0 where unknown, measured or predicted. A query ray can meet several
surfaces: the references that look past an edge show what is behind it. They are its layers, the nearest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from dataset.views import Cameras, Rows, Views
from network.geometry import fill_unknown, full_precision, project
from network.ops.splat import splat_depth
from utils.errors import UserError

if TYPE_CHECKING:
    from network.rendering import Rays

LAYERS = 3  # of a ray, at most
SAME_SURFACE = 0.03  # depths closer than this, relative, are of one surface
SMOOTH = 0.02  # neighbouring pixels of a smooth surface differ by less, relative
MEETING_STEPS = 2  # of the fixed-point iteration that moves a splat onto the surface
LARGEST_MOVE = 0.07  # relative, in one such step; a larger move would be to another surface
LONE_SPREAD = 0.01  # relative spread of a layer that only one reference shows
UNKNOWN_DEPTH = 2.0  # metres, where no reference has depth


@dataclass(frozen=True)
class Layers(Rows):
    """Surfaces that R rays meet, nearest first.

    depth: (R, LAYERS) metres, 0 where there is no such layer. spread: (R, LAYERS), relative standard deviation of the
    references' depths. found: (R,) bool, a reference shows a surface on the ray; otherwise the first layer is
    interpolated from neighbouring rays.
    """

    depth: torch.Tensor
    spread: torch.Tensor
    found: torch.Tensor

    def nearest(self, count: int) -> Layers:
        """Return the first `count` layers of each ray."""
        return Layers(self.depth[:, :count], self.spread[:, :count], self.found)


def reference_surfaces(views: Views, found: torch.Tensor | None, padded: tuple[int, int]) -> torch.Tensor:
    """Return the depth of references `with_neighbours`: (V, *padded, 4).

    found: (V, 1, *padded), depth of the front end; None for that of the views. Masked pixels and padding have unknown
    depth. Raise UserError if there is no depth.
    """
    height, width = views.cameras.size
    if found is not None:
        depth = found[..., :height, :width]
    elif views.depth is not None:
        depth = views.depth
    else:
        raise UserError(
            "sampler: surfaces needs depth of the references: a scene with depth maps, or a front end that finds it"
        )
    if views.mask is not None:
        depth = depth * (views.mask > 0)
    # No gradient: predicted depth is learned by its own loss, not through the rendering.
    depth = depth.detach()
    return with_neighbours(F.pad(depth, (0, padded[1] - width, 0, padded[0] - height)))


def with_neighbours(depth: torch.Tensor) -> torch.Tensor:
    """Return for each pixel of maps (V, 1, h, w) the values at (x, y), (x+1, y), (x, y+1) and (x+1, y+1): (V, h, w,
    4)."""
    padded = F.pad(depth, (0, 1, 0, 1), mode="replicate")[:, 0]
    return torch.stack([padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]], -1)


@full_precision
def read_neighbours(maps: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the four values around pixels (V, N, 2) of maps `with_neighbours` (V, h, w, 4), and their bilinear
    weights: (V, N, 4) each."""
    count, height, width, _ = maps.shape
    x, y = pixels.nan_to_num().unbind(-1)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().clamp_max(width - 2), y.floor().clamp_max(height - 2)
    first = torch.arange(count, device=maps.device)[:, None] * (height * width)
    values = maps.view(-1, 4)[(first + (top * width + left).long()).flatten()].view(*left.shape, 4)
    right, below = x - left, y - top
    weights = [(1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right]
    return values, torch.stack(weights, -1)


def interpolate_depth(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Interpolate depth between four neighbours (V, N, 4): (V, N), 0 where it is unknown.

    On a smooth surface bilinear in inverse depth, which is exact on planes; otherwise the value of the nearest pixel.
    """
    nearest, farthest = values.amin(-1), values.amax(-1)
    smooth = (nearest > 0) & (farthest < nearest * (1 + SMOOTH))
    inverse = (weights / values.clamp_min(1e-3)).sum(-1)
    closest = values.gather(-1, weights.argmax(-1, keepdim=True))[..., 0]
    return torch.where(smooth, 1 / inverse.clamp_min(1e-6), closest)


@full_precision
def depth_disagreement(values: torch.Tensor, weights: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Return how far points at z-depth (V, N) lie behind the surface that their view sees: the logarithm of the ratio
    of depths, (V, N), nan where the surface is unknown.

    The surface is the best match among the interpolated depth and the four values (V, N, 4) around, since at an edge
    there are two surfaces.
    """
    surfaces = torch.cat([values, interpolate_depth(values, weights)[..., None]], -1)
    ratio = depth.clamp_min(1e-3).log()[..., None] - surfaces.clamp_min(1e-3).log()
    size = torch.where(surfaces > 0, ratio.abs(), torch.inf)
    best = ratio.gather(-1, size.argmin(-1, keepdim=True))[..., 0]
    return torch.where((surfaces > 0).any(-1), best, torch.nan)


@torch.no_grad()
def find_layers(rays: Rays, maps: torch.Tensor, cameras: Cameras, query: Cameras) -> Layers:
    """Return the layers of the rays through all pixels of one query camera, R = h * w.

    maps: depth of the references `with_neighbours` (V, H, W, 4). cameras: of the references.
    """
    splats = splat_depth(maps[..., 0][:, None], cameras, query).flatten(1)
    layers = group_depths(meet_surfaces(splats, rays, maps, cameras))
    first = layers.depth[:, 0].clamp_min(1e-3).log().view(1, 1, *query.size)
    found = layers.found.view(first.shape)
    filled = fill_unknown(first, found, torch.tensor(UNKNOWN_DEPTH).log().item()).exp().flatten()
    depth = torch.cat([filled[:, None], layers.depth[:, 1:]], -1)
    return Layers(depth, layers.spread, layers.found)


def meet_surfaces(splats: torch.Tensor, rays: Rays, maps: torch.Tensor, cameras: Cameras) -> torch.Tensor:
    """Refine splatted depths (V, R) to the intersection of the ray with the surface: a splat is off by up to half a
    pixel.

    Fixed-point iteration: a point at depth z is projected into the reference. If the surface there has r times the
    depth of the point, the ray meets it near r z.
    """
    depths = splats
    for _ in range(MEETING_STEPS):
        points = rays.centres + torch.where(depths > 0, depths, 1.0)[..., None] * rays.directions
        landed = project(points, cameras)
        ratio = interpolate_depth(*read_neighbours(maps, landed.pixels)) / landed.depth.clamp_min(1e-3)
        on_it = (depths > 0) & ((ratio - 1).abs() < LARGEST_MOVE)
        depths = torch.where(on_it, depths * ratio, depths)
    return depths


def group_depths(depths: torch.Tensor) -> Layers:
    """Group the depths (V, R) that V references show on each ray, 0 where unknown, into layers.

    The first layer is the nearest one on which at least two references agree, or the nearest of all if none agree.
    Further layers are the nearest of the remaining depths. The depth of a layer is the geometric mean of its members.
    """
    known = depths > 0
    depths = torch.where(known, depths, torch.inf)
    logs = torch.where(known, depths, 1.0).log()
    near = ((logs[:, None] - logs).abs() < SAME_SURFACE) & known[:, None] & known  # (V, V, R)
    agreed = known & (near.sum(0) > 1)
    candidates, layers = torch.where(agreed.any(0), agreed, known), []
    for _ in range(LAYERS):
        nearest = torch.where(candidates, depths, torch.inf).argmin(0, keepdim=True)
        members = near.gather(0, nearest[None].expand(1, *near.shape[1:]))[0] & candidates.any(0)
        count = members.sum(0)
        mean = (logs * members).sum(0) / count.clamp_min(1)
        deviation = (((logs - mean).square() * members).sum(0) / count.clamp_min(1)).sqrt()
        layers.append((torch.where(count > 0, mean.exp(), 0), torch.where(count > 1, deviation, LONE_SPREAD)))
        known = known & ~members
        candidates = known
    depth, spread = (torch.stack(parts, -1) for parts in zip(*layers, strict=True))
    return Layers(depth, spread, depth[:, 0] > 0)
