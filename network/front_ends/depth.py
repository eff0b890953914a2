"""Geometry features of the references from depth maps, measured or predicted."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from dataset.render_dataset import Needs
from dataset.views import Views
from network.front_ends import FrontEnd, GeometryFeatures
from network.geometry import (
    fill_unknown,
    from_inverse_depth,
    pixel_grid,
    pixel_rays,
    project,
    read_map,
    to_inverse_depth,
)
from network.layers import Conv2d, ResUNet
from utils.errors import UserError

MAX_DEPTH_DIFFERENCE = 1.5  # in units of the view's inverse depth range
IMAGE_AND_DEPTH, DIFFERENCES = 4, 8  # channels


class DepthFrontEnd(FrontEnd):
    """Images and depth of V views, and how well they agree between the views -> features (V, channels, h/4, w/4)."""

    def __init__(self, fill_holes: bool, channels: int = 32):
        super().__init__()
        self.fill_holes, self.channels = fill_holes, channels
        stem = Conv2d(IMAGE_AND_DEPTH + DIFFERENCES, 32, 8, stride=2, padding=2)
        self.res_net = ResUNet(stem, stages=(2, 2, 2))
        skip = 16
        self.depth_skip = nn.Sequential(nn.Conv2d(1, 8, 2, stride=2), nn.ReLU(), nn.Conv2d(8, skip, 2, stride=2))
        self.conv_out = nn.Conv2d(skip + self.res_net.channels, channels, 1)

    def features(self, views: Views) -> torch.Tensor:
        """Return features (V, channels, h/4, w/4) from the views' images and depth."""
        inverse = to_inverse_depth(views.depth, views.cameras.depth_range).clamp(0, 1)
        known = None
        if self.fill_holes:
            known = views.depth > 0
            inverse = fill_unknown(inverse, known)
        decoded = replace(views, depth=from_inverse_depth(inverse, views.cameras.depth_range))
        differences = view_differences(decoded, known)
        features = self.res_net(torch.cat([views.images, inverse, differences], 1))
        return self.conv_out(torch.cat([self.depth_skip(inverse), features], 1))


class DepthInitNet(DepthFrontEnd):
    """The front end of measured depth maps."""

    DEFAULTS: ClassVar[dict] = {
        "fill_holes": False  # depth of 0 is unknown, and interpolated from around it; false: it is near, as published
    }

    @classmethod
    def of(cls, cfg, image_channels: int) -> DepthInitNet:
        return cls(cfg.init_net_cfg.fill_holes)

    @staticmethod
    def needs(cfg) -> Needs:
        return Needs(depth=True)

    def forward(self, views: Views, image_features: torch.Tensor | None = None) -> GeometryFeatures:
        if views.depth is None:
            raise UserError("init_net_type: depth needs depth maps of the reference views, and this scene has none")
        return GeometryFeatures(self.features(views), None)


@torch.no_grad()
def view_differences(views: Views, known: torch.Tensor | None = None) -> torch.Tensor:
    """Return how the views disagree at each reference pixel: (V, 8, h, w).

    Each pixel is unprojected by its depth and projected into all views. The result is the mean and variance, over the
    views in which it lands, of the absolute differences of colour and inverse depth. Channels: colour mean 3, colour
    variance 3, depth mean 1, depth variance 1. known: (V, 1, h, w) bool; pixels of unknown depth are left out of all
    comparisons. None: all are known.
    """
    cameras, size = views.cameras, views.cameras.size
    count = len(views)
    pixels = pixel_grid(*size, device=views.images.device).to(views.images.dtype)
    centres, directions = pixel_rays(pixels.expand(count, -1, -1), cameras.poses, cameras.Ks)
    points = centres[:, None] + directions * views.depth.flatten(1)[..., None]

    projection = project(points.reshape(-1, 3), cameras)
    read = read_map(torch.cat([views.images, views.depth], 1), projection.pixels, size, align_corners=True)
    read = read.unflatten(1, (count, -1))  # (target view, source view, pixels, 4)
    colours = views.images.flatten(2).transpose(1, 2)
    colour_difference = (read[..., :3] - colours).abs()

    near, far = (1 / cameras.depth_range)[:, :, None, None].unbind(1)
    projected_depth = projection.depth.unflatten(1, (count, -1))
    depth_difference = (1 / projected_depth.clamp_min(1e-5) - 1 / read[..., 3].clamp_min(1e-5)).abs() / (near - far)
    depth_difference = depth_difference.clamp_max(MAX_DEPTH_DIFFERENCE)[..., None]

    valid = projection.valid.unflatten(1, (count, -1))[..., None]
    if known is not None:
        seen = read_map(known.to(views.images.dtype), projection.pixels, size, align_corners=True) > 0.99
        valid = valid & seen.unflatten(1, (count, -1)) & known.flatten(1)[..., None]
    valid = valid.to(views.images.dtype)
    statistics = [*_mean_and_variance(colour_difference, valid), *_mean_and_variance(depth_difference, valid)]
    return torch.cat(statistics, -1).transpose(1, 2).unflatten(2, size)


def _mean_and_variance(x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance over the first axis, of the entries whose weights are 1."""
    total = weights.sum(0).clamp_min(1e-4)
    mean = (x * weights).sum(0) / total
    return mean, ((x - mean) ** 2 * weights).sum(0) / total
