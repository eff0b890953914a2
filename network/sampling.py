"""Depths along rays: evenly spaced for the coarse pass, by importance for the fine one."""

from __future__ import annotations

import torch

from network.geometry import from_inverse_depth, to_inverse_depth

# What coarse samples are evenly spaced in. From 0.5 to 10 m, half of them are nearer than 0.95, 2.2 and 5.3 m.
SPACINGS = ("inverse", "log", "linear")
LAST_INTERVAL = 1e6  # the interval behind the last sample, in normalised inverse depth


def uniform_depths(depth_range: torch.Tensor, count: int, spacing: str = "inverse") -> torch.Tensor:
    """Return `count` depths of each ray from near to far (depth_range, (R, 2)), both included: (R, count).

    They are uniform in 1/z, in log z or in z, as one of `SPACINGS` says.
    """
    steps = torch.linspace(0, 1, count, device=depth_range.device, dtype=depth_range.dtype)
    if spacing == "inverse":
        return from_inverse_depth(steps.expand(len(depth_range), -1), depth_range)
    near, far = depth_range[:, :1], depth_range[:, 1:]
    return near * (far / near) ** steps if spacing == "log" else near + (far - near) * steps


def inverse_depth_intervals(depths: torch.Tensor, depth_range: torch.Tensor) -> torch.Tensor:
    """Steps in normalised inverse depth from each sample to the next: (R, S); the last is `LAST_INTERVAL`.

    depths: (R, S), depth_range: (R, 2).
    """
    inverse = to_inverse_depth(depths, depth_range)
    return torch.cat([inverse[:, 1:] - inverse[:, :-1], torch.full_like(inverse[:, :1], LAST_INTERVAL)], -1)


def interval_halves(intervals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each sample reaches back and forth, (R, S) each: half its intervals (R, S); the first as far back as forth."""
    half = intervals / 2
    return torch.cat([half[:, :1], half[:, :-1]], -1), half


def importance_depths(
    depths: torch.Tensor,
    hit_probability: torch.Tensor,
    depth_range: torch.Tensor,
    count: int,
    draws: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draws `count` sorted depths a ray where hits are likely (inverse transform sampling in inverse depth).

    depths, hit_probability: (R, S), depth_range: (R, 2). draws: (R, count) in [0, 1), None for the centres of
    `count` equal bins of probability. No gradient flows to the probabilities.
    """
    inverse = to_inverse_depth(depths, depth_range)
    edges = torch.cat([inverse[:, :1], (inverse[:, 1:] + inverse[:, :-1]) / 2, inverse[:, -1:]], -1)
    # A network that diverged must show in the loss: as a depth, nan would make reading maps crash the process.
    weights = hit_probability.detach().nan_to_num() + 1e-5
    cumulative = torch.cumsum(weights / weights.sum(-1, keepdim=True), -1)
    cumulative = torch.cat([torch.zeros_like(cumulative[:, :1]), cumulative], -1)

    if draws is None:
        draws = (torch.arange(count, device=depths.device, dtype=depths.dtype) + 0.5) / count
        draws = draws.expand(len(depths), count)
    above = torch.searchsorted(cumulative, draws.contiguous(), right=True).clamp(1, cumulative.shape[-1] - 1)
    below = above - 1
    low, high = cumulative.gather(-1, below), cumulative.gather(-1, above)
    width = high - low
    fraction = (draws - low) / torch.where(width < 1e-5, torch.ones_like(width), width)
    low_edge, high_edge = edges.gather(-1, below), edges.gather(-1, above)
    drawn = low_edge + fraction * (high_edge - low_edge)
    return from_inverse_depth(drawn, depth_range).sort(-1).values
