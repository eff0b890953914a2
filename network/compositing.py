"""Volume rendering along a ray: from densities to hit probabilities, colours and depth (NeRF, with unit step
length)."""

from __future__ import annotations

import torch


def hit_probabilities(density: torch.Tensor) -> torch.Tensor:
    """Return the probability (R, S) that a ray ends at each sample: alpha times the transmittance before the sample.

    alpha = 1 - exp(-relu(density)); transmittance is the product of (1 - alpha + 1e-10) before the sample.
    """
    alpha = 1 - torch.exp(-torch.relu(density))
    # The product as a sum of logarithms: the gradient of `cumprod` makes the host wait for the device.
    passing = torch.exp(torch.cumsum(torch.log(1 - alpha + 1e-10), -1))
    reaching = torch.cat([torch.ones_like(passing[..., :1]), passing[..., :-1]], -1)
    return alpha * reaching


def composite(hit_probability: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the expected value of a ray: hit_probability (R, S), values (R, S, C) -> (R, C)."""
    return (hit_probability[..., None] * values).sum(-2)


def end_at_last(hit_probability: torch.Tensor) -> torch.Tensor:
    """Return hit probabilities (R, S) whose remainder to 1 is added to the last sample: every ray ends."""
    missing = (1 - hit_probability.sum(-1, keepdim=True)).clamp_min(0)
    return torch.cat([hit_probability[:, :-1], hit_probability[:, -1:] + missing], -1)


def expected_depth(hit_probability: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
    """Return the expected depth (R,) of rays that end at depths (R, S) with these probabilities (R, S)."""
    return (hit_probability * depths).sum(-1)


def seen_rays(hit_probability: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Return which rays, (R,) bool, end mostly at samples that a view shows: hit_probability (R, S), shown (R, S)
    bool."""
    return (hit_probability * shown).sum(-1) > 0.5 * hit_probability.sum(-1)


ONE_SURFACE = 0.05  # samples closer than this, relative, lie on one surface


def modal_depth(hit_probability: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
    """Return the expected depth (R,) over the samples near the most probable one. At an edge the mean over all samples
    would lie between two surfaces."""
    likeliest = depths.gather(-1, hit_probability.argmax(-1, keepdim=True))
    weights = hit_probability * ((depths / likeliest - 1).abs() < ONE_SURFACE)
    return (weights * depths).sum(-1) / weights.sum(-1)
