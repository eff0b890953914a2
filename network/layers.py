"""Building blocks of the convolutional encoders. Every convolution larger than 1x1 pads by reflection.

A norm adds a border of one reflected pixel to its output, so that the 3x3 convolution after it needs no padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from network.ops import NO_KERNELS, Kernels, volumes
from network.ops.normalize import normalize, normalize_kernel, without_border


class Conv2d(nn.Conv2d):
    """A convolution padded by reflection: (V, in, H, W) -> (V, out, H/stride, W/stride)."""

    kernels: Kernels = NO_KERNELS

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int | None = None, bias=False
    ):
        """padding: None for half the kernel, which keeps the size at stride 1 if the kernel is odd."""
        super().__init__(
            in_channels, out_channels, kernel, stride, kernel // 2 if padding is None else padding, bias=bias
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        below, right = self.padding
        if below or right:
            x = F.pad(x, (right, right, below, below), mode="reflect")
        if self.kernels.maps:
            x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, self.stride)


class BorderedConv2d(Conv2d):
    """A convolution of 3x3 or 1x1 of maps that have their border: (V, in, H+2, W+2) -> (V, out, H/stride, W/stride)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kernel_size == (1, 1):
            return F.conv2d(without_border(x, self.stride[0]), self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, self.stride)


class Conv3d(nn.Conv3d):
    """A convolution of volumes, 3x3x3, padded by zeros: (V, in, D, H, W) -> (V, out, D, H, W)."""

    kernels: Kernels = NO_KERNELS

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1):
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        in_kernel = self.kernels.volumes and all(map(volumes.kernel_takes, self.weight.shape[:2]))
        convolve = volumes.convolve_kernel if in_kernel else volumes.convolve
        return convolve(x, self.weight, self.bias, self.dilation[0], self.kernels.tf32)


class Norm2d(nn.InstanceNorm2d):
    """Instance norm, then an activation ("relu", "elu" or None): (V, C, H, W) -> the same with its border, or
    without."""

    kernels: Kernels = NO_KERNELS

    def __init__(self, channels: int, activation: str | None = None, border: bool = True):
        super().__init__(channels, affine=True, track_running_stats=False)
        self.activation, self.border = activation, border

    def forward(self, x: torch.Tensor, plus: torch.Tensor | None = None) -> torch.Tensor:
        """plus: maps of the result's size that are added before the activation."""
        apply = normalize_kernel if self.kernels.maps else normalize
        return apply(x, self.weight, self.bias, self.eps, self.activation, self.border, plus)


class Norm3d(nn.InstanceNorm3d):
    """Instance norm of volumes (V, C, D, H, W), then ReLU."""

    kernels: Kernels = NO_KERNELS

    def __init__(self, channels: int):
        super().__init__(channels, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        apply = normalize_kernel if self.kernels.volumes else normalize
        return apply(x, self.weight, self.bias, self.eps, "relu", False, None)


class BasicBlock(nn.Module):
    """ResNet's basic block with instance norm: (V, in, H, W) -> (V, out, H/stride, W/stride), both with their
    border."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = BorderedConv2d(in_channels, out_channels, 3, stride)
        self.bn1 = Norm2d(out_channels, "relu")
        self.conv2 = BorderedConv2d(out_channels, out_channels, 3)
        self.bn2 = Norm2d(out_channels, "relu")
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(BorderedConv2d(in_channels, out_channels, 1, stride), Norm2d(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x))
        return self.bn2(self.conv2(x), plus=shortcut)


class PreActivationBlock(nn.Module):
    """Norm, ReLU, conv, twice, added to the input: (V, C, H, W) -> the same, both without a border."""

    def __init__(self, channels: int):
        super().__init__()
        # Norm2d includes the ReLU; nn.Identity takes its place so that the indices of the published weights stay.
        self.conv = nn.Sequential(
            Norm2d(channels, "relu"),
            nn.Identity(),
            BorderedConv2d(channels, channels, 3),
            Norm2d(channels, "relu"),
            nn.Identity(),
            BorderedConv2d(channels, channels, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


class ConvBlock(nn.Module):
    """3x3 convolution, instance norm, ELU, of maps with their border. border: whether the result has one."""

    def __init__(self, in_channels: int, out_channels: int, border: bool = True):
        super().__init__()
        self.conv = BorderedConv2d(in_channels, out_channels, 3, bias=True)
        self.bn = Norm2d(out_channels, "elu", border)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


class UpsampleBlock(nn.Module):
    """Bilinear x2, then a `ConvBlock`. Maps have their border."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBlock(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(upsample(x))


def upsample(x: torch.Tensor) -> torch.Tensor:
    """Upsample maps bilinearly by 2 (align_corners=True), with their border: (V, C, H+2, W+2) -> (V, C, 2H+2, 2W+2).

    Computed as a matrix product along each axis: the gradient is one too, and border and layout cost nothing.
    """
    rows, columns = (_upsampling(length - 2, x) for length in x.shape[-2:])
    if not x.is_contiguous(memory_format=torch.channels_last):
        return rows @ x @ columns.T
    x = x.permute(0, 2, 3, 1)
    x = (rows @ x.flatten(2)).unflatten(2, x.shape[2:])
    return (columns @ x).permute(0, 3, 1, 2)


def _upsampling(length: int, like: torch.Tensor) -> torch.Tensor:
    """Return the matrix that upsamples one axis with its border, (2 length + 2, length + 2)."""
    unit = torch.eye(length, dtype=like.dtype, device=like.device)[None]
    inner = F.interpolate(unit, scale_factor=2, mode="linear", align_corners=True)
    return F.pad(F.pad(inner, (1, 1), mode="reflect"), (0, 0, 1, 1))[0].T


class ResUNet(nn.Module):
    """A small ResNet encoder with a decoder back to a quarter of the input size.

    (V, in_channels, h, w) -> (V, channels, h/4, w/4), h and w multiples of `multiple`.
    """

    stride, multiple = 4, 16

    def __init__(
        self,
        stem: nn.Conv2d,
        stages: tuple[int, int, int],
        widths: tuple[int, int, int] = (32, 64, 128),
        channels: int = 32,
    ):
        """stem: the first convolution, of stride 2. stages: basic blocks in each of three stages of stride 2, and their
        widths."""
        super().__init__()
        self.channels = channels
        quarter, eighth, sixteenth = widths
        self.conv1 = stem
        self.bn1 = Norm2d(stem.out_channels, "relu")
        self.layer1 = self._stage(stem.out_channels, quarter, stages[0])
        self.layer2 = self._stage(quarter, eighth, stages[1])
        self.layer3 = self._stage(eighth, sixteenth, stages[2])
        self.upconv3 = UpsampleBlock(sixteenth, eighth)
        self.iconv3 = ConvBlock(2 * eighth, eighth)
        self.upconv2 = UpsampleBlock(eighth, quarter)
        self.iconv2 = ConvBlock(2 * quarter, quarter, border=False)
        self.out_conv = nn.Conv2d(quarter, channels, 1)

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(in_channels, out_channels, stride=2)
        return nn.Sequential(first, *[BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x))
        quarter = self.layer1(x)
        eighth = self.layer2(quarter)
        x = self.layer3(eighth)
        x = self.iconv3(torch.cat([self.upconv3(x), eighth], 1))
        x = self.iconv2(torch.cat([self.upconv2(x), quarter], 1))
        return self.out_conv(x)
