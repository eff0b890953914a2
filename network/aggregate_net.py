"""Embedding of the views' visibility, followed by their aggregation."""

from __future__ import annotations

import torch
from torch import nn

from network.cranet import CRANet, RayValues
from network.linear import MLP, Linear
from network.sight import Sight


class AggregateNet(nn.Module):
    """Embeds the ray distributions, then lets `CRANet` aggregate the views."""

    def __init__(self, ray_channels: int = 32, embedding: int = 32, **cranet):
        """cranet: arguments of `CRANet`."""
        super().__init__()
        self.agg_impl = CRANet(embedding=embedding, **cranet)
        self.prob_embed = MLP(Linear(ray_channels, 2, out=embedding), nn.ReLU(), nn.Linear(embedding, embedding))

    def forward(
        self, sight: Sight, hit: torch.Tensor, visibility: torch.Tensor, density_only: bool = False
    ) -> RayValues:
        """Aggregate the views. hit, visibility: (V, N), the probabilities that a view's ray ends in a sample, and that
        it reaches the sample."""
        mask, features = sight.mask[..., 0], sight.ray_features
        probabilities = torch.stack([2 * (hit * mask - 0.5), 2 * (visibility * mask - 0.5)], -1)
        embedding = self.prob_embed(features, probabilities.to(features.dtype))
        return self.agg_impl(sight, embedding, density_only)
