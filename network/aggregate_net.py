"""From what was read in each view at each sample to the values of the sample."""

from __future__ import annotations

import torch
from torch import nn

from network.cranet import CRANet, SampleValues


class AggregateNet(nn.Module):
    """Embeds the ray distributions, then lets `CRANet` aggregate the views."""

    def __init__(self, **cranet):
        super().__init__()
        self.agg_impl = CRANet(**cranet)
        self.prob_embed = nn.Sequential(nn.Linear(34, 32), nn.ReLU(), nn.Linear(32, 32))

    def forward(
        self,
        color: torch.Tensor,
        image_features: torch.Tensor,
        ray_features: torch.Tensor,
        hit: torch.Tensor,
        visibility: torch.Tensor,
        view_directions: torch.Tensor,
        query_directions: torch.Tensor,
        valid: torch.Tensor,
    ) -> SampleValues:
        """color (V, R, S, 3), features (V, R, S, 32) each, hit, visibility and valid (V, R, S),
        view_directions (V, R, S, 3) from the samples to the views' cameras, query_directions (R, 3) to the query's."""
        probabilities = torch.stack([2 * (hit - 0.5), 2 * (visibility - 0.5)], -1)
        embedding = self.prob_embed(torch.cat([ray_features, probabilities], -1))
        query_directions = query_directions[:, None]
        dot = (view_directions * query_directions).sum(-1, keepdim=True)
        direction_difference = torch.cat([view_directions - query_directions, dot], -1)
        return self.agg_impl(color, image_features, embedding, direction_difference, valid)
