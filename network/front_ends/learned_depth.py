"""Geometry features of the references from depth that is predicted from the references themselves.

Ours, not the paper's: a light plane sweep on the image encoder's features at a quarter of the size, in one
differentiable step, whose depth the front end for depth maps then reads.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from dataset.render_dataset import Needs
from dataset.scene import scale_intrinsics
from dataset.views import Cameras, Views
from network.front_ends import GeometryFeatures
from network.front_ends.depth import DepthFrontEnd
from network.layers import Conv2d, Conv3d, Norm3d, PreActivationBlock
from network.ops import NO_KERNELS, Kernels
from network.ops.sweep import agreement, agreement_kernel, kernel_takes
from utils.errors import UserError

PLANES = 64
GROUPS = 4  # of channels that are correlated separately
NEIGHBOURS = 4  # nearest other references that a reference is matched with, at most


class PlaneSweep(nn.Module):
    """Features (V, channels, H, W) of V views -> log depth (V, 1, H, W). channels: a multiple of GROUPS.

    The volume's convolutions are the same for all planes (a 2D network over planes as channels learns to match
    many times slower); what they leave open is decided from the features around it.
    """

    kernels: Kernels = NO_KERNELS

    def __init__(self, channels: int):
        super().__init__()
        if channels % GROUPS:
            raise UserError(
                f"init_net_type: learned_depth needs image features of a multiple of {GROUPS} channels, not {channels}"
            )
        self.match = nn.Conv2d(channels, channels, 1)
        self.regularise = nn.Sequential(
            *_volume_block(GROUPS, 16), *_volume_block(16, 16), *_volume_block(16, 16, dilation=2), Conv3d(16, 1)
        )
        self.refine = nn.Sequential(
            Conv2d(PLANES + channels, 64, 3), PreActivationBlock(64), Conv2d(64, PLANES, 3, bias=True)
        )
        nn.init.zeros_(self.refine[-1].weight)  # starts from what matching says
        nn.init.zeros_(self.refine[-1].bias)

    def forward(self, features: torch.Tensor, cameras: Cameras) -> torch.Tensor:
        """cameras: (V) of the features' size."""
        planes = log_planes(cameras.depth_range)
        matched = F.normalize(self.match(features).unflatten(1, (GROUPS, -1)), dim=2).flatten(1, 2)
        in_kernel = self.kernels.volumes and kernel_takes(matched.shape[1], GROUPS)
        agree = agreement_kernel if in_kernel else agreement
        scores = self.regularise(agree(matched, GROUPS, cameras, planes.exp(), nearest_views(cameras)))[:, 0]
        scores = scores + self.refine(torch.cat([torch.softmax(scores, 1), features], 1))
        return (torch.softmax(scores, 1) * planes[:, :, None, None]).sum(1, keepdim=True)


def _volume_block(in_channels: int, out_channels: int, dilation: int = 1) -> list[nn.Module]:
    # The norm brings its ReLU; in its place nothing keeps the numbers that weights have.
    return [Conv3d(in_channels, out_channels, dilation), Norm3d(out_channels), nn.Identity()]


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


class LearnedDepthInitNet(DepthFrontEnd):
    """The front end for depth maps, on depth that it predicts. Its own layers are `sweep_new`."""

    reads_image_features = True

    def __init__(self, image_channels: int):
        super().__init__(fill_holes=False)
        self.sweep_new = PlaneSweep(image_channels)

    @classmethod
    def of(cls, cfg, image_channels: int) -> LearnedDepthInitNet:
        return cls(image_channels)

    @staticmethod
    def needs(cfg) -> Needs:
        return Needs(supervision=True)

    def forward(self, views: Views, image_features: torch.Tensor) -> GeometryFeatures:
        log_depth = self.sweep_new(image_features, scaled_cameras(views.cameras, tuple(image_features.shape[-2:])))
        full = F.interpolate(log_depth, size=views.cameras.size, mode="bilinear", align_corners=False).exp()
        return GeometryFeatures(self.features(replace(views, depth=full)), log_depth.exp())


def scaled_cameras(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """The same cameras with images of another size (h, w)."""
    return replace(cameras, Ks=scale_intrinsics(cameras.Ks, cameras.size, size), size=size)
