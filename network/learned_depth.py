"""Geometry features of the references from depth that is predicted from the references themselves.

Ours, not the paper's: a light plane sweep on the image encoder's features at a quarter of the size, in one
differentiable step, whose depth the front end for depth maps then reads.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from dataset.scene import scale_intrinsics
from dataset.views import Cameras, Views
from network import layers
from network.depth_init_net import DepthInitNet, Geometry
from network.geometry import pixel_grid, pixel_rays, project, read_map
from network.layers import Conv2d, Conv3d, PreActivationBlock, normalize

try:
    from network.kernels import sweep as kernels
except ImportError:  # no Triton here
    kernels = None

PLANES = 64
GROUPS = 4  # of channels that are correlated separately
NEIGHBOURS = 4  # nearest other references that a reference is matched with, at most


class PlaneSweep(nn.Module):
    """Features (V, 32, H, W) of V views -> log depth (V, 1, H, W).

    The volume's convolutions are the same for all planes (a 2D network over planes as channels learns to match
    many times slower); what they leave open is decided from the features around it.
    """

    def __init__(self):
        super().__init__()
        self.match = nn.Conv2d(32, 32, 1)
        self.regularise = nn.Sequential(
            *_volume_block(GROUPS, 16), *_volume_block(16, 16), *_volume_block(16, 16, dilation=2), Conv3d(16, 1)
        )
        self.refine = nn.Sequential(
            Conv2d(PLANES + 32, 64, 3), PreActivationBlock(64), Conv2d(64, PLANES, 3, bias=True)
        )
        nn.init.zeros_(self.refine[-1].weight)  # starts from what matching says
        nn.init.zeros_(self.refine[-1].bias)

    def forward(self, features: torch.Tensor, cameras: Cameras) -> torch.Tensor:
        """cameras: (V) of the features' size."""
        planes = log_planes(cameras.depth_range)
        matched = F.normalize(self.match(features).unflatten(1, (GROUPS, -1)), dim=2).flatten(1, 2)
        agree = kernels.agreement if layers.has_kernels(matched) else agreement
        scores = self._regularised(agree(matched, GROUPS, cameras, planes.exp(), nearest_views(cameras)))
        scores = scores + self.refine(torch.cat([torch.softmax(scores, 1), features], 1))
        return (torch.softmax(scores, 1) * planes[:, :, None, None]).sum(1, keepdim=True)

    def _regularised(self, volumes: torch.Tensor) -> torch.Tensor:
        """(V, GROUPS, PLANES, H, W) -> (V, PLANES, H, W)."""
        *blocks, last = self.regularise
        for convolution, norm in zip(blocks[::3], blocks[1::3], strict=True):
            volumes = normalize(norm, convolution(volumes), "relu", border=False)
        return last(volumes)[:, 0]


def _volume_block(in_channels: int, out_channels: int, dilation: int = 1) -> list[nn.Module]:
    return [Conv3d(in_channels, out_channels, dilation), nn.InstanceNorm3d(out_channels, affine=True), nn.ReLU()]


def agreement(
    features: torch.Tensor, groups: int, cameras: Cameras, depths: torch.Tensor, neighbours: torch.Tensor
) -> torch.Tensor:
    """How well each view agrees with its neighbours if its pixels lay on each plane: products of features, summed over
    groups of channels, mean over the neighbours that see it.

    Features (V, C, H, W), cameras of that size, plane depths (V, D), neighbours (V, n) -> (V, groups, D, H, W).
    """
    volumes = [_agreement(features, groups, cameras, depths[v], v, neighbours[v]) for v in range(len(features))]
    return torch.stack(volumes)


def _agreement(features, groups, cameras, depths, view, neighbours) -> torch.Tensor:
    """Of one view with depths (D): (groups, D, H, W)."""
    count, size = len(neighbours), cameras.size
    pixels = pixel_grid(*size, device=features.device).to(features.dtype)
    centre, directions = pixel_rays(pixels[None], cameras.poses[view : view + 1], cameras.Ks[view : view + 1])
    points = centre[0] + depths[:, None, None] * directions[0]
    others = Cameras(cameras.poses[neighbours], cameras.Ks[neighbours], cameras.depth_range[neighbours], size)
    landed = project(points.reshape(-1, 3), others)
    seen = (landed.valid & (landed.depth > 0)).to(features.dtype).reshape(count, 1, len(depths), size[0] * size[1])
    read = read_map(features[neighbours], landed.pixels, size, align_corners=True)
    read = read.transpose(1, 2).reshape(count, groups, features.shape[1] // groups, *seen.shape[2:])
    own = features[view].flatten(1).unflatten(0, (groups, -1))
    products = (read * own[:, :, None]).sum(2)  # (n, groups, D, H W)
    return ((products * seen).sum(0) / seen.sum(0).clamp_min(1)).unflatten(-1, size)


def log_planes(depth_range: torch.Tensor) -> torch.Tensor:
    """Logarithms of PLANES depths a view (V, PLANES), in equal ratios from near to far (V, 2)."""
    steps = torch.linspace(0, 1, PLANES, device=depth_range.device, dtype=depth_range.dtype)
    near, far = depth_range.log().unbind(1)
    return near[:, None] * (1 - steps) + far[:, None] * steps


def nearest_views(cameras: Cameras) -> torch.Tensor:
    """The nearest other views of each, (V, n) with n at most NEIGHBOURS, by camera centre."""
    distances = torch.cdist(cameras.centres(), cameras.centres())
    distances.fill_diagonal_(float("inf"))
    return distances.argsort(1)[:, : min(NEIGHBOURS, len(distances) - 1)]


class LearnedDepthInitNet(DepthInitNet):
    """The front end for depth maps, on depth that it predicts. Its own layers are `sweep_new`."""

    reads_image_features = True

    def __init__(self):
        super().__init__(fill_holes=False)
        self.sweep_new = PlaneSweep()

    def forward(self, views: Views, image_features: torch.Tensor) -> Geometry:
        """views: images (V, 3, h, w); image_features (V, 32, h/4, w/4)."""
        log_depth = self.sweep_new(image_features, scaled_cameras(views.cameras, tuple(image_features.shape[-2:])))
        full = F.interpolate(log_depth, size=views.cameras.size, mode="bilinear", align_corners=False).exp()
        return Geometry(self.features(replace(views, depth=full)), log_depth.exp())


def scaled_cameras(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """The same cameras with images of another size (h, w)."""
    return replace(cameras, Ks=scale_intrinsics(cameras.Ks, cameras.size, size), size=size)
