"""Image features of the references.

Any module can take its place that turns images (V, 3, h, w), colour in [0, 1], into features (V, channels, h/s, w/s), and
has two numbers: `channels`, and `multiple`, of which h and w are made multiples before it sees them.
"""

from __future__ import annotations

from network.layers import Conv2d, ResUNet


def image_encoder(channels: int) -> ResUNet:
    """Build the published image encoder, whose output has a quarter of the images' size."""
    return ResUNet(stem=Conv2d(3, 16, 7, stride=2), stages=(1, 2, 6), channels=channels)
