"""Distribution of the surface along a reference's ray: a mixture of two logistics in inverse depth (NeuRay, section
3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from network.linear import Linear, is_untouched, product, wide

MIN_VAR = 0.05
COMPONENTS = 2


class RayDistribution(NamedTuple):
    """Parameters of each projection's mixture: means (V, N, 2), vars (V, N, 2) (inverse widths), weight of the first
    component (V, N, 1), visibility scale (V, N, 1) or None."""

    means: torch.Tensor
    vars: torch.Tensor
    weight: torch.Tensor
    visibility: torch.Tensor | None

    def cdf(self, position: torch.Tensor) -> torch.Tensor:
        """Return the cumulative distribution (V, N) at positions (V, N), times the visibility scale."""
        # 0.5 + 0.5 tanh(x) is sigmoid(2 x)
        first, second = torch.sigmoid(2 * (position[..., None] - self.means) * self.vars).unbind(-1)
        mixture = second + self.weight[..., 0] * (first - second)
        return mixture if self.visibility is None else mixture * self.visibility[..., 0]


class Decoder(nn.Sequential):
    """A multilayer perceptron whose last activation is computed in float32 at least."""

    def __init__(self, width: int, out: int, activation: nn.Module):
        layers = nn.Linear(width, width), nn.ELU(), nn.Linear(width, width), nn.ELU(), Linear(width, out=out)
        super().__init__(*layers, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *layers, activation = self
        for layer in layers:
            x = layer(x)
        return activation(wide(x))


def as_made(decoder: nn.Module) -> bool:
    """Return True if a decoder is an unmodified `Decoder`: no layer was replaced, and there are no hooks."""
    if type(decoder) is not Decoder:
        return False
    layers = [type(layer) for layer in decoder][:-1]
    return layers == [nn.Linear, nn.ELU, nn.Linear, nn.ELU, Linear] and is_untouched(decoder)


class DistDecoder(nn.Module):
    """Ray features (V, N, width) -> RayDistribution."""

    def __init__(self, use_vis: bool, width: int = 32):
        super().__init__()
        self.mean_decoder = Decoder(width, COMPONENTS, nn.Softplus())
        self.var_decoder = Decoder(width, COMPONENTS, nn.Softplus())
        self.aw_decoder = Decoder(width, 1, nn.Sigmoid())
        self.vis_decoder = Decoder(width, 1, nn.Sigmoid()) if use_vis else None

    def forward(self, ray_features: torch.Tensor) -> RayDistribution:
        decoders = [self.mean_decoder, self.var_decoder, self.aw_decoder]
        decoders += [] if self.vis_decoder is None else [self.vis_decoder]
        if all(as_made(decoder) for decoder in decoders):
            values = decode_together(decoders, ray_features)
        else:
            values = [decoder(ray_features) for decoder in decoders]
        mean, var, weight, visibility = (*values, None)[:4]
        return RayDistribution(mean, var + MIN_VAR, weight, visibility)


def decode_together(decoders: list[Decoder], x: torch.Tensor) -> list[torch.Tensor]:
    """Apply all decoders to x (V, N, width), with one product for all first layers and one for all last layers.

    Twelve separate products of a few columns each would make a training step 10% slower.
    """
    first, second, last = ([decoder[i] for decoder in decoders] for i in (0, 2, 4))
    rows = F.elu(F.linear(x, *[torch.cat([getattr(layer, part) for layer in first]) for part in ("weight", "bias")]))
    rows = rows.chunk(len(decoders), -1)
    rows = torch.cat([F.elu(layer(part)) for layer, part in zip(second, rows, strict=True)], -1)
    weight = torch.block_diag(*[layer.weight for layer in last])
    values = wide(product([rows], weight, torch.cat([layer.bias for layer in last])))
    parts = values.split([layer.out_features for layer in last], -1)
    return [decoder[5](part) for decoder, part in zip(decoders, parts, strict=True)]


def visibility_and_hit(
    distribution: RayDistribution, near_end: torch.Tensor, far_end: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities (V, N) that a view's ray reaches a sample, and that it ends in it.

    near_end, far_end: (V, N), the sample's ends in that view's normalised inverse depth.
    """
    reached, passed = distribution.cdf(near_end), distribution.cdf(far_end)
    return 1 - reached, passed - reached
