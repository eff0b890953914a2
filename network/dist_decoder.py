"""Where along a reference's ray the surface is: a mixture of two logistics in inverse depth (NeuRay, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from network.sampling import interval_halves

MIN_VAR = 0.05


class RayDistribution(NamedTuple):
    """Of each projection (V, N): means (V, N, 2), vars (V, N, 2) (inverse widths), weight of the first
    component (V, N, 1), visibility scale (V, N, 1) or None."""

    means: torch.Tensor
    vars: torch.Tensor
    weight: torch.Tensor
    visibility: torch.Tensor | None


def _mlp(out_channels: int, *last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU(), nn.Linear(32, out_channels), *last)


class DistDecoder(nn.Module):
    """Ray features (V, N, 32) -> RayDistribution."""

    def __init__(self, use_vis: bool):
        super().__init__()
        self.mean_decoder = _mlp(2, nn.Softplus())
        self.var_decoder = _mlp(2, nn.Softplus())
        self.aw_decoder = _mlp(1, nn.Sigmoid())
        self.vis_decoder = _mlp(1, nn.Sigmoid()) if use_vis else None

    def forward(self, ray_features: torch.Tensor) -> RayDistribution:
        visibility = None if self.vis_decoder is None else self.vis_decoder(ray_features)
        return RayDistribution(
            self.mean_decoder(ray_features),
            self.var_decoder(ray_features) + MIN_VAR,
            self.aw_decoder(ray_features),
            visibility,
        )


def visibility_and_hit(
    distribution: RayDistribution, inverse_depth: torch.Tensor, intervals: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability that each sample is seen by each view, and that the view's ray ends in it: (V, R, S) each.

    inverse_depth: (V, R, S), normalised in that view; intervals: (R, S), of the query (see `sampling`).
    The distribution's fields are (V, R, S, ...).
    """
    before, after = interval_halves(intervals)
    low_cdf, high_cdf = (_cdf(distribution, x) for x in (inverse_depth - before, inverse_depth + after))
    weights = torch.cat([distribution.weight, 1 - distribution.weight], -1)
    return (weights * (1 - low_cdf)).sum(-1), (weights * (high_cdf - low_cdf)).sum(-1)


def _cdf(distribution: RayDistribution, x: torch.Tensor) -> torch.Tensor:
    cdf = 0.5 + 0.5 * torch.tanh((x[..., None] - distribution.means) * distribution.vars)
    return cdf if distribution.visibility is None else cdf * distribution.visibility
