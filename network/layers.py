"""Building blocks of the convolutional encoders. Every convolution larger than 1x1 pads by reflection.

Maps pass from layer to layer with a border of one reflected pixel, made once where they are made: convolutions of 3x3
then need no padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from utils.devices import runs_triton

try:
    from network.kernels import normalization as kernels
    from network.kernels import volumes
except ImportError:  # no Triton here
    kernels = volumes = None

_ACTIVATIONS = {"relu": F.relu, "elu": F.elu, None: lambda x: x}


def norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=False)


def add_border(x: torch.Tensor) -> torch.Tensor:
    """(V, C, H, W) -> (V, C, H+2, W+2)."""
    return F.pad(x, (1, 1, 1, 1), mode="reflect")


def without_border(x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Every `stride`-th pixel within the border of (V, C, H+2, W+2)."""
    return x[..., 1:-1:stride, 1:-1:stride]


class Conv2d(nn.Conv2d):
    """A convolution padded by reflection: (V, in, H, W) -> (V, out, H/stride, W/stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int | None = None, bias=False
    ):
        """padding: None for what keeps the size at stride 1 (kernel odd)."""
        super().__init__(
            in_channels, out_channels, kernel, stride, kernel // 2 if padding is None else padding, bias=bias
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        below, right = self.padding
        if below or right:
            x = F.pad(x, (right, right, below, below), mode="reflect")
        if in_kernels(x):
            x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, self.stride)

    def within_border(self, x: torch.Tensor) -> torch.Tensor:
        """The same of maps that have their border, (V, in, H+2, W+2), for 3x3 and 1x1."""
        if self.kernel_size == (1, 1):
            return F.conv2d(without_border(x, self.stride[0]), self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, self.stride)


class Conv3d(nn.Conv3d):
    """A convolution of volumes, 3x3x3, padded by zeros: (V, in, D, H, W) -> (V, out, D, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1):
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if in_kernels(x):
            return volumes.convolve(x, self.weight, self.bias, self.dilation[0])
        return super().forward(x)


def normalize(
    layer: nn.InstanceNorm2d | nn.InstanceNorm3d,
    x: torch.Tensor,
    activation: str | None = None,
    plus: torch.Tensor | None = None,
    border: bool = True,
) -> torch.Tensor:
    """activation(layer(x) + plus), with its border. x: (V, C, H, W) without one; plus: maps with one, if the result has.

    Volumes (V, C, D, H, W) have no border.
    """
    if in_kernels(x):
        return kernels.normalize(x, layer.weight, layer.bias, layer.eps, activation, int(border), plus)
    x = layer(x)
    if plus is not None:
        x = x + (without_border(plus) if border else plus)
    x = _ACTIVATIONS[activation](x)
    return add_border(x) if border else x


def in_kernels(x: torch.Tensor) -> bool:
    """Whether our kernels take such maps or volumes; if so, they have their channels last in memory.

    Maps only where convolutions may round to TensorFloat-32: without it cuDNN's are slower with channels last.
    """
    return has_kernels(x) and (x.dim() == 5 or torch.backends.cudnn.allow_tf32)


def has_kernels(x: torch.Tensor) -> bool:
    """Whether there are kernels of ours for such a tensor at all."""
    return kernels is not None and x.is_cuda and x.dtype != torch.float64 and runs_triton(x.device)


class BasicBlock(nn.Module):
    """ResNet's basic block with instance norm: (V, in, H, W) -> (V, out, H/stride, W/stride), both with their border."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride)
        self.bn1 = norm(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3)
        self.bn2 = norm(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(Conv2d(in_channels, out_channels, 1, stride), norm(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.downsample is not None:
            shortcut = normalize(self.downsample[1], self.downsample[0].within_border(x))
        x = normalize(self.bn1, self.conv1.within_border(x), "relu")
        return normalize(self.bn2, self.conv2.within_border(x), "relu", plus=shortcut)


class PreActivationBlock(nn.Module):
    """Norm, ReLU, conv, twice, added to the input: (V, C, H, W) -> the same, both without a border."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Sequential(
            norm(channels),
            nn.ReLU(),
            Conv2d(channels, channels, 3),
            norm(channels),
            nn.ReLU(),
            Conv2d(channels, channels, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first_norm, _, first, second_norm, _, second = self.conv
        inner = first.within_border(normalize(first_norm, x, "relu"))
        return x + second.within_border(normalize(second_norm, inner, "relu"))


class ConvBlock(nn.Module):
    """3x3 convolution, instance norm, ELU. Maps have their border."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 3, bias=True)
        self.bn = norm(out_channels)

    def forward(self, x: torch.Tensor, border: bool = True) -> torch.Tensor:
        """border: whether the result has one."""
        return normalize(self.bn, self.conv.within_border(x), "elu", border=border)


class UpsampleBlock(nn.Module):
    """Bilinear x2, then a `ConvBlock`. Maps have their border."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBlock(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(upsample(x))


def upsample(x: torch.Tensor) -> torch.Tensor:
    """Bilinear x2 (align_corners=True) of maps with their border: (V, C, H+2, W+2) -> (V, C, 2H+2, 2W+2).

    As a product with a matrix for each axis: so is its gradient, and border and layout cost nothing.
    """
    rows, columns = (_upsampling(length - 2, x) for length in x.shape[-2:])
    if not x.is_contiguous(memory_format=torch.channels_last):
        return rows @ x @ columns.T
    x = x.permute(0, 2, 3, 1)
    x = (rows @ x.flatten(2)).unflatten(2, x.shape[2:])
    return (columns @ x).permute(0, 3, 1, 2)


def _upsampling(length: int, like: torch.Tensor) -> torch.Tensor:
    """The matrix that upsamples one axis with its border, (2 length + 2, length + 2)."""
    unit = torch.eye(length, dtype=like.dtype, device=like.device)[None]
    inner = F.interpolate(unit, scale_factor=2, mode="linear", align_corners=True)
    return F.pad(F.pad(inner, (1, 1), mode="reflect"), (0, 0, 1, 1))[0].T


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
        x = normalize(self.bn1, self.conv1(x), "relu")
        quarter = self.layer1(x)
        eighth = self.layer2(quarter)
        x = self.layer3(eighth)
        x = self.iconv3(torch.cat([self.upconv3(x), eighth], 1))
        x = self.iconv2(torch.cat([self.upconv2(x), quarter], 1), border=False)
        return self.out_conv(x)
