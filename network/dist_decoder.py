"""Where along a reference's ray the surface is: a mixture of two logistics in inverse depth (NeuRay, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from network.linear import Linear, wide

MIN_VAR = 0.05
COMPONENTS = 2


class RayDistribution(NamedTuple):
    """Of each projection (V, N): means (V, N, 2), vars (V, N, 2) (inverse widths), weight of the first
    component (V, N, 1), visibility scale (V, N, 1) or None."""

    means: torch.Tensor
    vars: torch.Tensor
    weight: torch.Tensor
    visibility: torch.Tensor | None

    def cdf(self, position: torch.Tensor) -> torch.Tensor:
        """The cumulative distribution (V, N) at positions (V, N), times how much is visible at all."""
        # 0.5 + 0.5 tanh(x) is sigmoid(2 x)
        first, second = torch.sigmoid(2 * (position[..., None] - self.means) * self.vars).unbind(-1)
        mixture = second + self.weight[..., 0] * (first - second)
        return mixture if self.visibility is None else mixture * self.visibility[..., 0]


class Decoder(nn.Sequential):
    """Layers one after the other, of which the last, an activation, is computed in float32 at least."""

    def __init__(self, width: int, out: int, activation: nn.Module):
        layers = nn.Linear(width, width), nn.ELU(), nn.Linear(width, width), nn.ELU(), Linear(width, out=out)
        super().__init__(*layers, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *layers, activation = self
        for layer in layers:
            x = layer(x)
        return activation(wide(x))


class DistDecoder(nn.Module):
    """Ray features (V, N, width) -> RayDistribution."""

    def __init__(self, use_vis: bool, width: int = 32):
        super().__init__()
        self.mean_decoder = Decoder(width, COMPONENTS, nn.Softplus())
        self.var_decoder = Decoder(width, COMPONENTS, nn.Softplus())
        self.aw_decoder = Decoder(width, 1, nn.Sigmoid())
        self.vis_decoder = Decoder(width, 1, nn.Sigmoid()) if use_vis else None

    def forward(self, ray_features: torch.Tensor) -> RayDistribution:
        return RayDistribution(
            self.mean_decoder(ray_features),
            self.var_decoder(ray_features) + MIN_VAR,
            self.aw_decoder(ray_features),
            None if self.vis_decoder is None else self.vis_decoder(ray_features),
        )


def visibility_and_hit(
    distribution: RayDistribution, near_end: torch.Tensor, far_end: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (V, N) that a view's ray reaches a sample, and that it ends in it.

    near_end, far_end: (V, N), the sample's ends in that view's normalised inverse depth.
    """
    reached, passed = distribution.cdf(near_end), distribution.cdf(far_end)
    return 1 - reached, passed - reached
