"""Cameras, rays, projection and sampling of maps: pure functions on tensors.

Cameras have OpenCV axes, poses are world-to-camera, pixel centres lie at integers, lengths are metres.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F

from dataset.camera import scale_intrinsics
from dataset.views import Cameras

MIN_ABS_DEPTH = 1e-4  # a projection closer to the camera plane than this is invalid ...
REPLACEMENT_DEPTH = 1e-3  # ... and is computed with this depth, so that pixels are finite
NEIGHBOURS = 4  # nearest other views that a view is matched with in training, at most
LAST_INTERVAL = 1e6  # the interval behind the last sample of a ray, in normalised inverse depth


class Projection(NamedTuple):
    """Projections of N points into V views: pixels (V, N, 2), z-depth (V, N), valid (V, N) bool."""

    pixels: torch.Tensor
    depth: torch.Tensor
    valid: torch.Tensor


def full_precision(function):
    """Disable autocast in `function`: bfloat16 has too few bits for a pixel's position."""

    @functools.wraps(function)
    def guarded(first: torch.Tensor, *others):
        with torch.autocast(first.device.type, enabled=False):
            return function(first, *others)

    return guarded


def scaled_cameras(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """Return the same cameras with images resized to `size` (h, w)."""
    return replace(cameras, Ks=scale_intrinsics(cameras.Ks, cameras.size, size), size=size)


def nearest_views(cameras: Cameras, most: int = NEIGHBOURS) -> torch.Tensor:
    """Return the nearest other views of each, by camera centre: (V, n) indices, n at most `most`."""
    distances = torch.cdist(cameras.centres(), cameras.centres())
    distances.fill_diagonal_(float("inf"))
    return distances.argsort(1)[:, : min(most, len(distances) - 1)]


def pixel_grid(height: int, width: int, device=None) -> torch.Tensor:
    """Return all pixel centres of an image, row by row: (height * width, 2) of x, y."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2).float()


@full_precision
def pixel_rays(pixels: torch.Tensor, poses: torch.Tensor, Ks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rays through pixels (V, N, 2): centres (V, 3) and directions (V, N, 3) with z = 1 in the camera."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
    rotations = poses[:, :, :3]
    directions = homogeneous @ inverse(Ks).transpose(1, 2) @ rotations
    centres = -(rotations.transpose(1, 2) @ poses[:, :, 3:])[..., 0]
    return centres, directions


def inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Return the inverse of 3x3 matrices (..., 3, 3), by cross products: `torch.linalg.inv` makes the host wait for the
    device."""
    a, b, c = matrices.unbind(-2)
    columns = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    return columns / (a * columns[..., 0]).sum(-1)[..., None, None]


@full_precision
def project(points: torch.Tensor, cameras: Cameras) -> Projection:
    """Project points (N, 3) of the world into V views.

    Valid means at least 1e-4 m from the camera plane and inside [-0.5, w-0.5) x [-0.5, h-0.5).
    A point behind a camera is not marked invalid: the network was trained that way.
    """
    height, width = cameras.size
    matrices = cameras.Ks @ cameras.poses
    x, y, z = points.unbind(-1)
    # Sums of products instead of a matrix product: fused with what follows where a pass is compiled.
    projected = [
        x * row[:, None, 0] + y * row[:, None, 1] + z * row[:, None, 2] + row[:, None, 3] for row in matrices.unbind(1)
    ]
    depth = projected[2]
    near_plane = depth.abs() < MIN_ABS_DEPTH
    depth = depth.masked_fill(near_plane, REPLACEMENT_DEPTH)
    x, y = projected[0] / depth, projected[1] / depth
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    return Projection(torch.stack([x, y], -1), depth, inside & ~near_plane)


@full_precision
def directions_to_cameras(points: torch.Tensor, cameras: Cameras) -> torch.Tensor:
    """Return the unit vectors from points (N, 3) to the V camera centres: (V, N, 3)."""
    offsets = cameras.centres()[:, None] - points
    return offsets / offsets.norm(dim=-1, keepdim=True).clamp_min(1e-5)


def read_map(
    maps: torch.Tensor, pixels: torch.Tensor, image_size: tuple[int, int], align_corners: bool
) -> torch.Tensor:
    """Sample maps (V, C, H, W) bilinearly at pixels (V, N, 2) of an image of `image_size` (h, w): (V, N, C).

    Pixels are normalised by the size of the image, even if the map has another size. Outside of the image, and for
    pixels that are not finite, the border value is returned.
    """
    height, width = image_size
    x, y = pixels.unbind(-1)
    grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], -1)
    values = F.grid_sample(maps, grid[:, :, None], mode="bilinear", padding_mode="border", align_corners=align_corners)
    return values[..., 0].transpose(1, 2)


def to_inverse_depth(depth: torch.Tensor, depth_range: torch.Tensor) -> torch.Tensor:
    """Convert metres (V, ...) to normalised inverse depth: 0 at each view's near, 1 at its far; `depth_range` is (V,
    2)."""
    near, far = _ends(depth, depth_range)
    return (-1 / depth.clamp_min(1e-5) - near) / (far - near)


def from_inverse_depth(inverse: torch.Tensor, depth_range: torch.Tensor) -> torch.Tensor:
    """Apply the inverse of `to_inverse_depth`."""
    near, far = _ends(inverse, depth_range)
    return -1 / (inverse * (far - near) + near)


def _ends(values: torch.Tensor, depth_range: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return -1/near and -1/far, shaped to broadcast over `values` (V, ...)."""
    ends = (-1 / depth_range).reshape(len(depth_range), 2, *[1] * (values.dim() - 1))
    return ends[:, 0], ends[:, 1]


def inverse_depth_intervals(depths: torch.Tensor, depth_range: torch.Tensor) -> torch.Tensor:
    """Return the steps in normalised inverse depth from each sample to the next: (R, S); the last is `LAST_INTERVAL`.

    depths: (R, S), depth_range: (R, 2).
    """
    inverse = to_inverse_depth(depths, depth_range)
    return torch.cat([inverse[:, 1:] - inverse[:, :-1], torch.full_like(inverse[:, :1], LAST_INTERVAL)], -1)


def interval_halves(intervals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return half the intervals (R, S) before and after each sample, (R, S) each. The first sample, which has no
    interval before it, has that after it on both sides."""
    half = intervals / 2
    return torch.cat([half[:, :1], half[:, :-1]], -1), half


@torch.no_grad()
def fill_unknown(values: torch.Tensor, known: torch.Tensor, otherwise: float = 0.5) -> torch.Tensor:
    """Return values (V, C, h, w) in which pixels that are not `known` (V, 1, h, w) bool are interpolated smoothly from
    the known ones; `otherwise` if none is known.

    Pull-push interpolation (Gortler et al., The Lumigraph, 1996): holes are filled from means over ever larger blocks,
    from coarse to fine. A block of which at least a quarter is known has full weight.
    """
    weight = known.to(values.dtype)
    total, levels = values * weight, []
    while max(total.shape[-2:]) > 1:
        levels.append((total, weight))
        total, weight = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (total, weight))
        full = (4 * weight).clamp_max(1)
        total, weight = total / weight.clamp_min(1e-12) * full, full
    filled = torch.where(weight > 0, total / weight.clamp_min(1e-12), otherwise)
    for total, weight in reversed(levels):
        height, width = total.shape[-2:]
        coarse = F.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        filled = total + (1 - weight) * coarse
    return torch.where(known, values, filled)
