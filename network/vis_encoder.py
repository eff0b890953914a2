"""Ray features: they encode the visibility along the rays of each reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from network.layers import Conv2d, PreActivationBlock


class VisEncoder(nn.Module):
    """Joins image features (V, image, H, W) and geometry features (V, geometry, …) -> ray features (V, out, H, W)."""

    def __init__(self, image: int = 32, geometry: int = 32, out: int = 32):
        super().__init__()
        self.channels = out
        self.out_conv = nn.Sequential(
            Conv2d(image + geometry, out, 3), PreActivationBlock(out), PreActivationBlock(out), Conv2d(out, out, 1)
        )

    def forward(self, image_features: torch.Tensor, geometry_features: torch.Tensor) -> torch.Tensor:
        """Encode visibility. Geometry features are resized to the size of the image features if it differs."""
        size = image_features.shape[-2:]
        if geometry_features.shape[-2:] != size:
            geometry_features = F.interpolate(geometry_features, size=size, mode="bilinear", align_corners=False)
        return self.out_conv(torch.cat([image_features, geometry_features], 1))
