"""Building blocks of the convolutional encoders. Every convolution larger than 1x1 pads by reflection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A reflection-padded convolution that keeps the size at stride 1 (kernel odd)."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias, padding_mode="reflect")


def norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=False)


class BasicBlock(nn.Module):
    """ResNet's basic block with instance norm: (V, in, H, W) -> (V, out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = norm(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.bn2 = norm(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(conv(in_channels, out_channels, 1, stride), norm(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class PreActivationBlock(nn.Module):
    """Norm, ReLU, conv, twice, added to the input: (V, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Sequential(
            norm(channels),
            nn.ReLU(),
            conv(channels, channels, 3),
            norm(channels),
            nn.ReLU(),
            conv(channels, channels, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


class ConvBlock(nn.Module):
    """3x3 convolution, instance norm, ELU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = conv(in_channels, out_channels, 3, bias=True)
        self.bn = norm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(self.bn(self.conv(x)))


class UpsampleBlock(nn.Module):
    """Bilinear x2, then a `ConvBlock`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBlock(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):  # which would interpolate in float32
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.conv(x)


class ResUNet(nn.Module):
    """A small ResNet encoder with a decoder back to a quarter of the input size.

    (V, in_channels, h, w) -> (V, 32, h/4, w/4), h and w multiples of 16.
    stages: basic blocks in each of the three stages, to 32, 64 and 128 channels, stride 2 each.
    stem: the first convolution, of stride 2, to `stem.out_channels`.
    """

    def __init__(self, stem: nn.Conv2d, stages: tuple[int, int, int]):
        super().__init__()
        self.conv1 = stem
        self.bn1 = norm(stem.out_channels)
        self.layer1 = self._stage(stem.out_channels, 32, stages[0])
        self.layer2 = self._stage(32, 64, stages[1])
        self.layer3 = self._stage(64, 128, stages[2])
        self.upconv3 = UpsampleBlock(128, 64)
        self.iconv3 = ConvBlock(128, 64)
        self.upconv2 = UpsampleBlock(64, 32)
        self.iconv2 = ConvBlock(64, 32)
        self.out_conv = nn.Conv2d(32, 32, 1)

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(in_channels, out_channels, stride=2)
        return nn.Sequential(first, *[BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        quarter = self.layer1(x)
        eighth = self.layer2(quarter)
        x = self.layer3(eighth)
        x = self.iconv3(_concatenate(self.upconv3(x), eighth))
        x = self.iconv2(_concatenate(self.upconv2(x), quarter))
        return self.out_conv(x)


def _concatenate(upsampled: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """[upsampled, skip] along channels, the skip map zero-padded to the upsampled one's size."""
    rows, columns = (upsampled.shape[i] - skip.shape[i] for i in (-2, -1))
    skip = F.pad(skip, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return torch.cat([upsampled, skip], 1)
