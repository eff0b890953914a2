"""What a network knows of the geometry of its references. A front end owns its config keys, its needs and its weights.

`network.init_net` chooses one by `init_net_type`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from dataset.render_dataset import Needs
from dataset.views import Views


class GeometryFeatures(NamedTuple):
    """What a front end finds: features (V, channels, H, W), usually at a quarter of the images' size, and depth
    (V, 1, h/4, w/4) in metres if it predicts it."""

    features: torch.Tensor
    depth: torch.Tensor | None


class FrontEnd(nn.Module, ABC):
    """`channels`: of its features. `multiple`: of which the sides of the images it is given are. reads_image_features: those that
    do not run next to the network that makes them."""

    SECTION = "init_net_cfg"  # of the config, that holds its ...
    DEFAULTS: ClassVar[dict] = {}
    channels = 32
    multiple = 16
    reads_image_features = False

    @classmethod
    @abstractmethod
    def of(cls, cfg, image_channels: int) -> FrontEnd:
        """The front end of a config. image_channels: of the image features it may read."""

    @staticmethod
    @abstractmethod
    def needs(cfg) -> Needs:
        """What the references of a batch must have."""

    @abstractmethod
    def forward(self, views: Views, image_features: torch.Tensor | None = None) -> GeometryFeatures:
        """views: images (V, 3, h, w) and what is needed; image_features: (V, image_channels, …), given to those that read them."""

    def load_weights(self, cfg) -> None:
        """Loads what training starts from besides the network's own checkpoints. Raises UserError if it is not there."""
