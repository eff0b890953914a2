"""From densities along a ray to what a pixel sees (the quadrature of NeRF, with unit step length)."""

from __future__ import annotations

import torch


def hit_probabilities(density: torch.Tensor) -> torch.Tensor:
    """Probability (R, S) that a ray ends at each sample: alpha times the light that got that far.

    alpha = 1 - exp(-relu(density)); transmittance is the product of (1 - alpha + 1e-10) before the sample.
    """
    alpha = 1 - torch.exp(-torch.relu(density))
    # The product as a sum of logarithms: the gradient of `cumprod` makes the host wait for the device.
    passing = torch.exp(torch.cumsum(torch.log(1 - alpha + 1e-10), -1))
    reaching = torch.cat([torch.ones_like(passing[..., :1]), passing[..., :-1]], -1)
    return alpha * reaching


def composite(hit_probability: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Expected value of a ray: hit_probability (R, S), values (R, S, C) -> (R, C)."""
    return (hit_probability[..., None] * values).sum(-2)
