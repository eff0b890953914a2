"""Geometry features of the references from depth that is predicted from the references themselves.

Ours, not the paper's: a light plane sweep on the image encoder's features at a quarter of the size, in one
differentiable step, whose depth the front end for depth maps then reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from dataset.render_dataset import Needs
from dataset.views import Cameras, Views
from network.front_ends import GeometryFeatures, at_size
from network.front_ends.depth import DepthFrontEnd
from network.geometry import nearest_views, scaled_cameras
from network.layers import Conv2d, Conv3d, Norm3d, PreActivationBlock
from network.ops import NO_KERNELS, Kernels
from network.ops.sweep import agreement, agreement_kernel, kernel_takes
from utils.config import Setting
from utils.errors import UserError

PLANES = 64
GROUPS = 4  # of channels that are correlated separately
RENDERED_NEIGHBOURS = 7  # views that a view is matched with outside training, where their cost counts less
FEATURE_STRIDE = 4  # of the image features, on which depth is predicted


class PlaneSweep(nn.Module):
    """Features (V, channels, H, W) of V views -> log depth (V, 1, H, W). channels: a multiple of GROUPS.

    The volume is regularised by 3D convolutions, which share their weights over the planes: a 2D network with the
    planes as channels learns many times slower. A 2D network then refines the scores from the image features.
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
        nn.init.zeros_(self.refine[-1].weight)  # training starts from the matching scores alone
        nn.init.zeros_(self.refine[-1].bias)

    def forward(self, features: torch.Tensor, cameras: Cameras) -> torch.Tensor:
        """Predict depth. cameras: V of them, for images of the features' size."""
        planes = log_planes(cameras.depth_range)
        matched = F.normalize(self.match(features).unflatten(1, (GROUPS, -1)), dim=2).flatten(1, 2)
        in_kernel = self.kernels.volumes and kernel_takes(matched.shape[1], GROUPS)
        agree = agreement_kernel if in_kernel else agreement
        neighbours = nearest_views(cameras) if self.training else nearest_views(cameras, RENDERED_NEIGHBOURS)
        scores = self.regularise(agree(matched, GROUPS, cameras, planes.exp(), neighbours))[:, 0]
        scores = scores + self.refine(torch.cat([torch.softmax(scores, 1), features], 1))
        return (torch.softmax(scores, 1) * planes[:, :, None, None]).sum(1, keepdim=True)


def _volume_block(in_channels: int, out_channels: int, dilation: int = 1) -> list[nn.Module]:
    # Norm3d includes the ReLU; nn.Identity takes its place so that the indices of the weights stay.
    return [Conv3d(in_channels, out_channels, dilation), Norm3d(out_channels), nn.Identity()]


def log_planes(depth_range: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of PLANES depths a view (V, PLANES), in equal ratios from near to far (V, 2)."""
    steps = torch.linspace(0, 1, PLANES, device=depth_range.device, dtype=depth_range.dtype)
    near, far = depth_range.log().unbind(1)
    return near[:, None] * (1 - steps) + far[:, None] * steps


class ConvexUpsampling(nn.Module):
    """Maps (V, 1, H, W) -> (V, 1, s H, s W): each value is a convex combination of the 3x3 values around it, with
    weights predicted from features (V, channels, H, W), so that edges stay sharp (Teed and Deng, RAFT, 2020, section
    3.3)."""

    def __init__(self, channels: int, factor: int):
        super().__init__()
        self.factor = factor
        self.weigh = nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 9 * factor**2, 1))

    def forward(self, maps: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        count, _, height, width = maps.shape
        weights = torch.softmax(self.weigh(features).view(count, 9, self.factor**2, height, width), 1)
        around = F.unfold(F.pad(maps, (1, 1, 1, 1), mode="replicate"), 3).view(count, 9, 1, height, width)
        return F.pixel_shuffle((weights * around).sum(1), self.factor)


class LearnedDepthInitNet(DepthFrontEnd):
    """The front end for depth maps, applied to depth that it predicts by `sweep_new` and `upsampling_new`."""

    DEFAULTS: ClassVar[dict] = {
        # upsampling of predicted depth from a quarter of the size; convex: learned, with sharp edges
        "upsampling": Setting("bilinear", str, choices=("bilinear", "convex")),
        "measured_depth": False,  # depth maps of the references are used where they are known, predicted depth elsewhere
    }
    reads_image_features = True

    def __init__(self, image_channels: int, measured_depth: bool = False, convex: bool = False):
        super().__init__(fill_holes=False)
        self.measured_depth = measured_depth
        self.sweep_new = PlaneSweep(image_channels)
        self.upsampling_new = ConvexUpsampling(image_channels, FEATURE_STRIDE) if convex else None

    @classmethod
    def of(cls, cfg, image_channels: int) -> LearnedDepthInitNet:
        section = cfg.init_net_cfg
        return cls(image_channels, section.measured_depth, section.upsampling == "convex")

    @staticmethod
    def needs(cfg) -> Needs:
        return Needs(depth_if_there=cfg.init_net_cfg.measured_depth, supervision=True)

    def forward(self, views: Views, image_features: torch.Tensor) -> GeometryFeatures:
        if self.measured_depth and not self.training and _complete(views):
            return GeometryFeatures(self.features(views), None, views.depth)
        predicted, full = self._predict(views.cameras, image_features.float())
        if self.measured_depth and views.depth is not None:
            full = torch.where(views.depth > 0, views.depth, full)
        return GeometryFeatures(self.features(replace(views, depth=full)), predicted, full)

    def _predict(self, cameras: Cameras, image_features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return depth in metres, (V, 1, …), and at the images' size; in float32 under autocast too."""
        with torch.autocast(image_features.device.type, enabled=False):
            quarter = self.sweep_new(image_features, scaled_cameras(cameras, tuple(image_features.shape[-2:])))
            if self.upsampling_new is None:
                return quarter.exp(), at_size(quarter.exp(), cameras.size)
            full = self.upsampling_new(quarter, image_features).exp()
            return full, full


def _complete(views: Views) -> bool:
    """Return whether depth is known everywhere. If that was not determined before, depth on a GPU counts as incomplete:
    to look at it would make the host wait."""
    if views.depth is None or views.complete is not None:
        return bool(views.complete)
    return views.depth.device.type == "cpu" and bool((views.depth > 0).all())
