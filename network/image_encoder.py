"""Image features of the references."""

from __future__ import annotations

from network.layers import Conv2d, ResUNet


def image_encoder() -> ResUNet:
    """Colour (V, 3, h, w) in [0, 1] -> features (V, 32, h/4, w/4)."""
    return ResUNet(stem=Conv2d(3, 16, 7, stride=2), stages=(1, 2, 6))
