"""The published image encoder.

Any module can replace it that maps images (V, 3, h, w), colour in [0, 1], to features (V, channels, h/s, w/s) and has
two attributes: `channels`, and `multiple`, to multiples of which images are padded.
"""

from __future__ import annotations

from network.layers import Conv2d, ResUNet


def image_encoder(channels: int) -> ResUNet:
    """Build the published image encoder, whose output has a quarter of the images' size."""
    return ResUNet(stem=Conv2d(3, 16, 7, stride=2), stages=(1, 2, 6), channels=channels)
