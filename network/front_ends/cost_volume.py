"""Geometry features of the references by plane sweeps over neighbouring views with MVSNet; needs no depth."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from dataset.render_dataset import Needs
from dataset.views import Views
from network.front_ends import FrontEnd, GeometryFeatures, at_size
from network.front_ends.mvsnet import FEATURE_STRIDE, PLANES, VOLUME_STRIDE, MVSNet
from network.geometry import to_inverse_depth
from network.layers import Conv2d, PreActivationBlock, ResUNet
from network.weights import find_weights, read_mvsnet
from utils.config import Setting
from utils.errors import UserError

SOURCES = 3  # neighbours that a reference is matched with


class CostVolumeInitNet(FrontEnd):
    """The front end of MVSNet's cost volumes. MVSNet is frozen unless the config says otherwise."""

    SECTION = "mvsnet"
    DEFAULTS: ClassVar[dict] = {
        "frozen": True,  # MVSNet is not trained; false: it is trained with the rest
        "weights": Setting(None, str),  # MVSNet's published mvsnet_pl.ckpt, or safetensors of it
    }

    def __init__(self, frozen: bool):
        super().__init__()
        self.frozen = frozen
        self.mvsnet = MVSNet()
        self.volume_conv2d = _residual_head(PLANES, self.channels)
        self.depth_conv = _residual_head(1, self.channels)
        self.res_net = ResUNet(Conv2d(3, 32, 7, stride=2), stages=(2, 3, 6), channels=self.channels)
        self.out_conv = _residual_head(3 * self.channels, self.channels)
        self.register_buffer("imagenet_mean", torch.tensor([0.485, 0.456, 0.406])[None, :, None, None])
        self.register_buffer("imagenet_std", torch.tensor([0.229, 0.224, 0.225])[None, :, None, None])
        self.mvsnet.requires_grad_(not frozen)

    @classmethod
    def of(cls, cfg, image_channels: int) -> CostVolumeInitNet:
        return cls(cfg.mvsnet.frozen)

    @staticmethod
    def needs(cfg) -> Needs:
        return Needs(sources=SOURCES, supervision=not cfg.mvsnet.frozen)

    def load_weights(self, cfg) -> None:
        """Load MVSNet's published weights. Raise UserError for a frozen MVSNet without weights."""
        if cfg.mvsnet.weights is not None:
            load_mvsnet(self.mvsnet, find_weights("mvsnet.weights", cfg.mvsnet.weights, "trains it from scratch"))
        elif self.frozen and cfg.load_pretrain is None:
            raise UserError(
                "`mvsnet.frozen` is true, but there are no mvsnet.weights; name them, or set mvsnet.frozen=false"
            )

    def train(self, mode: bool = True) -> CostVolumeInitNet:
        """Set the mode; a frozen MVSNet keeps its running statistics."""
        super().train(mode)
        if self.frozen:
            self.mvsnet.eval()
        return self

    def forward(self, views: Views, image_features: torch.Tensor | None = None) -> GeometryFeatures:
        """Find features and depth. views: images (V, 3, h, w) with `sources`."""
        if views.sources is None:
            raise UserError(
                "init_net_type: cost_volume needs neighbours of the reference views, and the batch has none"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            probability, depth = self._sweep(views)
        inverse_depth = to_inverse_depth(depth, views.cameras.depth_range).clamp(0, 1)
        features = [self.res_net(views.images), self.volume_conv2d(probability), self.depth_conv(inverse_depth)]
        return GeometryFeatures(self.out_conv(torch.cat(features, 1)), depth, at_size(depth, views.cameras.size))

    def _sweep(self, views: Views) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities of the planes (V, PLANES, h/4, w/4), and the expected depth (V, 1, h/4, w/4) in
        metres."""
        height, width = (side // FEATURE_STRIDE for side in views.cameras.size)
        below, right = -height % VOLUME_STRIDE * FEATURE_STRIDE, -width % VOLUME_STRIDE * FEATURE_STRIDE

        def prepare(images: torch.Tensor) -> torch.Tensor:
            return F.pad((images - self.imagenet_mean) / self.imagenet_std, (0, right, 0, below), mode="reflect")

        sources = views.sources
        probability, planes = self.mvsnet(
            prepare(views.images), views.cameras, prepare(sources.views.images), sources.views.cameras, sources.index
        )
        depth = (probability * planes[:, :, None, None]).sum(1, keepdim=True)
        return probability[..., :height, :width], depth[..., :height, :width]


def _residual_head(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(Conv2d(in_channels, channels, 3), PreActivationBlock(channels), Conv2d(channels, channels, 1))


def load_mvsnet(mvsnet: nn.Module, path: Path) -> None:
    """Load all of MVSNet's weights. Raise UserError if they are those of another network."""
    weights, own = read_mvsnet(path), mvsnet.state_dict()
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
        different = sorted(set(weights) ^ set(own)) or [name for name in own if weights[name].shape != own[name].shape]
        raise UserError(f"{path}: not weights of this MVSNet ({different[0]} differs)")
    mvsnet.load_state_dict(weights, strict=False)  # not strict: batch norms would ask for a counter
