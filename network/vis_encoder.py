"""Ray features: what each reference knows of the visibility along its own rays."""

from __future__ import annotations

import torch
from torch import nn

from network.layers import Conv2d, PreActivationBlock


class VisEncoder(nn.Module):
    """Joins image features and geometry features (V, 32, H, W) each -> ray features (V, 32, H, W)."""

    def __init__(self):
        super().__init__()
        self.out_conv = nn.Sequential(
            Conv2d(64, 32, 3), PreActivationBlock(32), PreActivationBlock(32), Conv2d(32, 32, 1)
        )

    def forward(self, image_features: torch.Tensor, geometry_features: torch.Tensor) -> torch.Tensor:
        return self.out_conv(torch.cat([image_features, geometry_features], 1))
