"""A small convolutional network in the query view, which sees neighbouring pixels; a ray alone does not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from network.context_encoder import ResidualBlock, join_upsampled
from network.geometry import fill_unknown

WIDTHS = 32, 48, 64, 96  # channels at strides 1, 2, 4 and 8


class QueryDecoder(nn.Module):
    """U-Net from the rendered values of rays to residuals of colour and class logits. Its last layer is initialised to
    zero, so that it starts as the identity."""

    multiple = 8

    def __init__(self, channels: int, outputs: int, widths: tuple[int, ...] = WIDTHS):
        """channels: of the input. outputs: channels of the residuals."""
        super().__init__()
        full, half, quarter, eighth = widths
        self.stem = nn.Conv2d(channels, full, 3, 1, 1)
        self.down1 = ResidualBlock(full, full)
        self.down2 = ResidualBlock(full, half, 2)
        self.down4 = ResidualBlock(half, quarter, 2)
        self.down8 = nn.Sequential(ResidualBlock(quarter, eighth, 2), ResidualBlock(eighth, eighth))
        self.up4 = ResidualBlock(eighth + quarter, quarter)
        self.up2 = ResidualBlock(quarter + half, half)
        self.up1 = ResidualBlock(half + full, full)
        self.out = nn.Conv2d(full, outputs, 3, 1, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rays: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """rays: (R, channels), R = Q * h * w of `shape` (Q, h, w), row by row. Return residuals (R, outputs)."""
        _, height, width = shape
        x = rays.view(*shape, -1).permute(0, 3, 1, 2)
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        full = self.down1(F.relu(self.stem(x)))
        half = self.down2(full)
        quarter = self.down4(half)
        x = self.up4(join_upsampled(self.down8(quarter), quarter))
        x = self.up1(join_upsampled(self.up2(join_upsampled(x, half)), full))
        return self.out(x)[..., :height, :width].permute(0, 2, 3, 1).flatten(0, 2)


def from_around(
    values: Sequence[torch.Tensor | None], seen: torch.Tensor, shape: tuple[int, int, int]
) -> list[torch.Tensor | None]:
    """Return `values` of rays, (R, …) each or None, in which the rays that no reference sees are interpolated from the
    rays around them, without gradient. seen: (R,) bool. shape: (Q, h, w) of the rays."""
    given = [x.view(len(seen), -1) for x in values if x is not None]
    known = seen.view(shape)[:, None]
    maps = torch.cat([x.detach().float() for x in given], 1).view(*shape, -1).permute(0, 3, 1, 2)
    filled = fill_unknown(maps, known, 0.0).permute(0, 2, 3, 1).flatten(0, 2)
    parts = iter(filled.split([x.shape[1] for x in given], 1))
    return [
        None if x is None else torch.where(seen[:, None], x.view(len(seen), -1), next(parts).to(x.dtype)).view(x.shape)
        for x in values
    ]
