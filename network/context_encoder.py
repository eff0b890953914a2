"""An image encoder whose features depend on the whole image: an object's class depends on its surroundings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from network import imagenet
from network.imagenet import ImageNetFeatures

WIDTHS = 32, 48, 64, 128, 192  # channels at strides 2, 4, 8, 16 and 32
GROUPS = 8  # of a group norm


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm beside a shortcut: (V, in, H, W) -> (V, out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(GROUPS, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ContextEncoder(nn.Module):
    """Colour (V, 3, h, w) in [0, 1] -> features (V, channels, h/4, w/4), h and w multiples of 32.

    A U-Net (Ronneberger et al. 2015) of residual blocks, with the mean over the image added where it is smallest, and
    features of a classifier of photographs added at strides 8, 16 and 32.
    """

    multiple = 32

    def __init__(self, channels: int = 32, widths: tuple[int, ...] = WIDTHS, imagenet_features: bool = False):
        """imagenet_features: add the features of `network.imagenet`."""
        super().__init__()
        self.channels = channels
        half, quarter, eighth, sixteenth, smallest = widths
        self.stem = nn.Sequential(nn.Conv2d(3, half, 5, 2, 2), nn.GroupNorm(GROUPS, half), nn.ReLU())
        self.down4 = nn.Sequential(ResidualBlock(half, quarter, 2), ResidualBlock(quarter, quarter))
        self.down8 = nn.Sequential(ResidualBlock(quarter, eighth, 2), ResidualBlock(eighth, eighth))
        self.down16 = nn.Sequential(
            ResidualBlock(eighth, sixteenth, 2), *[ResidualBlock(sixteenth, sixteenth) for _ in range(2)]
        )
        self.down32 = nn.Sequential(ResidualBlock(sixteenth, smallest, 2), ResidualBlock(smallest, smallest))
        self.whole = nn.Linear(smallest, smallest)
        self.up16 = ResidualBlock(smallest + sixteenth, sixteenth)
        self.up8 = ResidualBlock(sixteenth + eighth, eighth)
        self.up4 = ResidualBlock(eighth + quarter, 2 * channels)
        self.out = nn.Conv2d(2 * channels, channels, 1)
        self.imagenet = ImageNetFeatures() if imagenet_features else None
        if imagenet_features:
            adapters = [nn.Conv2d(a, b, 1) for a, b in zip(imagenet.CHANNELS, widths[2:], strict=True)]
            self.from_imagenet = nn.ModuleList(adapters)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = 0, 0, 0
        if self.imagenet is not None:
            seen = [adapt(x) for adapt, x in zip(self.from_imagenet, self.imagenet(images), strict=True)]
        quarter = self.down4(self.stem(2 * images - 1))
        eighth = self.down8(quarter) + seen[0]
        sixteenth = self.down16(eighth) + seen[1]
        x = self.down32(sixteenth) + seen[2]
        x = x + F.relu(self.whole(x.mean((2, 3))))[:, :, None, None]
        x = self.up16(join_upsampled(x, sixteenth))
        x = self.up8(join_upsampled(x, eighth))
        return self.out(self.up4(join_upsampled(x, quarter)))


def join_upsampled(x: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
    """Upsample x (V, C, H/2, W/2) by 2 and concatenate `skipped` (V, D, H, W): (V, C + D, H, W)."""
    x = F.interpolate(x, size=skipped.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([x, skipped], 1)
