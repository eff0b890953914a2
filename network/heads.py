"""Heads that S-Ray+ adds to colour and classes."""

from __future__ import annotations

import torch
from torch import nn

from network.compositing import composite
from network.cranet import HeadWidths, SampleFeatures


class ContextHead(nn.Module):
    """Features of each ray for the query decoder: image features and latents of the references, blended with the
    weights of the colours, the share of references that see the samples, and how well their depth agrees."""

    def __init__(self, widths: HeadWidths):
        super().__init__()

    @staticmethod
    def channels(image_channels: int, latent: int) -> int:
        return image_channels + latent + 2

    def forward(self, features: SampleFeatures) -> torch.Tensor:
        """Return (R, channels), the image features first."""
        sight, shape = features.sight, features.sight.shape
        blended = (features.blending * sight.image_features).sum(0).unflatten(0, shape)
        support = [sight.mask[..., 0].mean(0)]
        support.append((sight.mask[..., 0] * sight.evidence.hit).mean(0) if sight.evidence else support[0])
        support = torch.stack(support, -1).view(*shape, 2)
        return composite(features.hit_probability, torch.cat([blended, features.blended(), support], -1).float())


class KnownClassesHead(nn.Module):
    """Labels of the references on each ray, blended with the weights of the colours, and the image features of the
    references that have no label there, blended likewise."""

    def __init__(self, classes: int):
        """classes: K."""
        super().__init__()
        self.classes = classes

    def forward(self, features: SampleFeatures) -> torch.Tensor:
        """Return (R, K+1 + channels): the weights of the K classes, the weight of references without a label,
        features."""
        labels, weights = features.sight.labels, features.blending
        votes = weights.new_zeros(labels.shape[1], self.classes + 1).scatter_add(1, labels.T, weights[..., 0].T)
        unknown = (weights * (labels == self.classes)[..., None] * features.sight.image_features).sum(0)
        blended = torch.cat([votes, unknown.to(votes.dtype)], -1).unflatten(0, features.sight.shape)
        return composite(features.hit_probability, blended.float())
