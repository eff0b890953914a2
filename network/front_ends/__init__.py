"""Front ends, which find the geometry of the references. Each owns its config keys, its needs and its weights.

`network.init_net` chooses one by `init_net_type`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from dataset.render_dataset import Needs
from dataset.views import Views


class GeometryFeatures(NamedTuple):
    """Output of a front end: features (V, channels, H, W), usually at a quarter of the images' size.

    depth: (V, 1, H, W) metres, of any size, if it predicts it. surfaces: depth at the images' size (V, 1, h, w) that says
    where surfaces are; None: the views' own depth does.
    """

    features: torch.Tensor
    depth: torch.Tensor | None
    surfaces: torch.Tensor | None = None


def at_size(depth: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return predicted depth (V, 1, H, W) at another size (h, w), bilinear in its logarithm."""
    return F.interpolate(depth.log(), size=size, mode="bilinear", align_corners=False).exp()


class FrontEnd(nn.Module, ABC):
    """`channels`: of its features. `multiple`: of which the sides of the images it is given are. reads_image_features: those that
    do not run next to the network that makes them. measured_depth: what the depth of the references lacks is predicted."""

    SECTION = "init_net_cfg"  # of the config, that holds its ...
    DEFAULTS: ClassVar[dict] = {}
    channels = 32
    multiple = 16
    reads_image_features = False
    measured_depth = False

    @classmethod
    @abstractmethod
    def of(cls, cfg, image_channels: int) -> FrontEnd:
        """Build the front end of a config. image_channels: of the image features it may read."""

    @staticmethod
    @abstractmethod
    def needs(cfg) -> Needs:
        """Return what the references of a batch must have."""

    @abstractmethod
    def forward(self, views: Views, image_features: torch.Tensor | None = None) -> GeometryFeatures:
        """views: images (V, 3, h, w) and what is needed; image_features: (V, image_channels, …), given to those that read them."""

    def load_weights(self, cfg) -> None:
        """Load further weights that training starts from, such as MVSNet's. Raise UserError if they are missing."""
