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

    depth: (V, 1, H, W) metres, of any size, if the front end predicts it. surfaces: (V, 1, h, w), depth at the images'
    size for `sampler: surfaces`; None: the views' own depth.
    """

    features: torch.Tensor
    depth: torch.Tensor | None
    surfaces: torch.Tensor | None = None


def at_size(depth: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return predicted depth (V, 1, H, W) at another size (h, w), bilinear in its logarithm."""
    return F.interpolate(depth.log(), size=size, mode="bilinear", align_corners=False).exp()


class FrontEnd(nn.Module, ABC):
    """Base of all front ends.

    channels: of its features. multiple: the sides of input images must be multiples of it. reads_image_features: it
    needs the image features, so that it cannot run in parallel with the image encoder. measured_depth: it predicts
    depth only where the references have none.
    """

    SECTION = "init_net_cfg"  # the section of the config ...
    DEFAULTS: ClassVar[dict] = {}  # ... to which it adds these keys
    channels = 32
    multiple = 16
    reads_image_features = False
    measured_depth = False

    @classmethod
    @abstractmethod
    def of(cls, cfg, image_channels: int) -> FrontEnd:
        """Build the front end of a config. image_channels: of the image features."""

    @staticmethod
    @abstractmethod
    def needs(cfg) -> Needs:
        """Return the fields that the references of a batch must have."""

    @abstractmethod
    def forward(self, views: Views, image_features: torch.Tensor | None = None) -> GeometryFeatures:
        """Compute geometry features of views: images (V, 3, h, w) and the fields of `needs`. image_features: (V,
        image_channels, …), if `reads_image_features`."""

    def load_weights(self, cfg) -> None:
        """Load further weights that training starts from, such as MVSNet's. Raise UserError if they are missing."""
