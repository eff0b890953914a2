"""Geometry features of the references, from sensor depth or from neighbouring views.

A front end is built by `build_init_net` and turns `Views` into features (V, 32, h/4, w/4).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from dataset.render_dataset import Needs
from dataset.views import Views
from network.geometry import from_inverse_depth, pixel_grid, pixel_rays, project, read_map, to_inverse_depth
from network.layers import PreActivationBlock, ResUNet, conv
from network.mvsnet import FEATURE_STRIDE, PLANES, VOLUME_STRIDE, MVSNet
from utils.config import Setting
from utils.errors import UserError

DEFAULTS = {
    "init_net_type": Setting("depth", str, choices=("depth", "cost_volume")),
    "init_net_cfg": {"fill_holes": False},  # depth of 0 is unknown; False: it is near, as in the published code
    "mvsnet": {  # of cost_volume
        "frozen": True,
        "weights": Setting(None, str),  # the published mvsnet_pl.ckpt, or safetensors of it
    },
}
SOURCES = 3  # neighbours that a reference is matched with
MAX_DEPTH_DIFFERENCE = 1.5  # in units of the view's inverse depth range


class DepthInitNet(nn.Module):
    """Reads the geometry off depth maps, and how well they agree between the views."""

    def __init__(self, fill_holes: bool):
        super().__init__()
        self.fill_holes = fill_holes
        stem = nn.Conv2d(12, 32, 8, stride=2, padding=2, bias=False, padding_mode="reflect")
        self.res_net = ResUNet(stem, stages=(2, 2, 2))
        self.depth_skip = nn.Sequential(nn.Conv2d(1, 8, 2, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 2, stride=2))
        self.conv_out = nn.Conv2d(48, 32, 1)

    def forward(self, views: Views) -> torch.Tensor:
        """views: images (V, 3, h, w) and depth (V, 1, h, w) -> (V, 32, h/4, w/4)."""
        if views.depth is None:
            raise UserError("init_net_type: depth needs depth maps of the reference views, and this scene has none")
        inverse = to_inverse_depth(views.depth, views.cameras.depth_range).clamp(0, 1)
        known = None
        if self.fill_holes:
            known = views.depth > 0
            inverse = fill_unknown(inverse, known)
        decoded = replace(views, depth=from_inverse_depth(inverse, views.cameras.depth_range))
        differences = view_differences(decoded, known)
        features = self.res_net(torch.cat([views.images, inverse, differences], 1))
        return self.conv_out(torch.cat([self.depth_skip(inverse), features], 1))


@torch.no_grad()
def fill_unknown(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Values (V, 1, h, w) with what is not `known` (bool, same shape) taken from the surroundings; 0.5 if nothing is known.

    Pull-push interpolation (Gortler et al., The Lumigraph, 1996): means over ever larger blocks of what is
    known fill the holes, from coarse to fine.
    """
    total, weight = values * known, known.to(values.dtype)
    levels = []
    while max(total.shape[-2:]) > 1:
        levels.append((total, weight))
        total, weight = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (total, weight))
    filled = torch.where(weight > 0, total / weight.clamp_min(1e-12), 0.5)
    for total, weight in reversed(levels):
        coarse = F.interpolate(filled, scale_factor=2, mode="nearest")[..., : total.shape[-2], : total.shape[-1]]
        filled = torch.where(weight > 0, total / weight.clamp_min(1e-12), coarse)
    return filled


@torch.no_grad()
def view_differences(views: Views, known: torch.Tensor | None = None) -> torch.Tensor:
    """How the views disagree at each reference pixel: (V, 8, h, w).

    Each pixel is lifted by its depth and projected into all views; the absolute differences of colour
    and inverse depth found there have a mean and a variance over the views it falls into.
    Channels: colour mean 3, colour variance 3, depth mean 1, depth variance 1.
    known: (V, 1, h, w) bool, None for everywhere: a pixel of unknown depth is compared with nothing, and
    nothing is compared with one.
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
    """Over the first axis, counting only where weights are 1."""
    total = weights.sum(0).clamp_min(1e-4)
    mean = (x * weights).sum(0) / total
    return mean, ((x - mean) ** 2 * weights).sum(0) / total


class CostVolumeInitNet(nn.Module):
    """Finds the geometry by plane sweeps over neighbouring views; needs no depth. MVSNet's weights stay as they are
    unless they are to be trained."""

    def __init__(self, frozen: bool):
        super().__init__()
        self.frozen = frozen
        self.mvsnet = MVSNet()
        self.volume_conv2d = _residual_head(PLANES)
        self.depth_conv = _residual_head(1)
        self.res_net = ResUNet(conv(3, 32, 7, stride=2), stages=(2, 3, 6))
        self.out_conv = _residual_head(96)
        self.register_buffer("imagenet_mean", torch.tensor([0.485, 0.456, 0.406])[None, :, None, None])
        self.register_buffer("imagenet_std", torch.tensor([0.229, 0.224, 0.225])[None, :, None, None])
        self.mvsnet.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> CostVolumeInitNet:
        """A frozen MVSNet keeps its running statistics."""
        super().train(mode)
        if self.frozen:
            self.mvsnet.eval()
        return self

    def forward(self, views: Views) -> torch.Tensor:
        """views: images (V, 3, h, w) with `sources` -> (V, 32, h/4, w/4)."""
        if views.sources is None:
            raise UserError(
                "init_net_type: cost_volume needs neighbours of the reference views, and the batch has none"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            probability, inverse_depth = self._sweep(views)
        features = [self.res_net(views.images), self.volume_conv2d(probability), self.depth_conv(inverse_depth)]
        return self.out_conv(torch.cat(features, 1))

    def _sweep(self, views: Views) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of the planes (V, PLANES, h/4, w/4), and the expected depth as inverse depth (V, 1, h/4, w/4)."""
        height, width = (side // FEATURE_STRIDE for side in views.cameras.size)
        below, right = -height % VOLUME_STRIDE * FEATURE_STRIDE, -width % VOLUME_STRIDE * FEATURE_STRIDE

        def prepare(images: torch.Tensor) -> torch.Tensor:
            return F.pad((images - self.imagenet_mean) / self.imagenet_std, (0, right, 0, below), mode="reflect")

        sources = views.sources
        probability, planes = self.mvsnet(
            prepare(views.images), views.cameras, prepare(sources.views.images), sources.views.cameras, sources.index
        )
        depth = (probability * planes[:, :, None, None]).sum(1, keepdim=True)
        inverse = to_inverse_depth(depth, views.cameras.depth_range).clamp(0, 1)
        return probability[..., :height, :width], inverse[..., :height, :width]


def _residual_head(in_channels: int) -> nn.Sequential:
    return nn.Sequential(conv(in_channels, 32, 3), PreActivationBlock(32), conv(32, 32, 1))


def build_init_net(cfg) -> nn.Module:
    """The front end that `init_net_type` names."""
    if cfg.init_net_type == "depth":
        return DepthInitNet(cfg.init_net_cfg.fill_holes)
    return CostVolumeInitNet(cfg.mvsnet.frozen)


def needs(cfg) -> Needs:
    """What the references of a batch must have for the front end of a config."""
    return Needs(depth=True) if cfg.init_net_type == "depth" else Needs(sources=SOURCES)
