"""Samplers, which choose the depths along a ray for each pass from the outputs of the passes before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch

from dataset.views import Cameras
from network.geometry import from_inverse_depth, pixel_grid, to_inverse_depth
from network.rendering import Encoding, Rays, Rendering, camera_rays
from network.surfaces import LAYERS, find_layers

UNKNOWN_REACH = 0.12  # relative, of samples around a depth that only neighbouring rays tell
# Quantity in which coarse samples are evenly spaced. From 0.5 to 10 m, half of them are nearer than 0.95, 2.2 and 5.3
# m.
SPACINGS = ("inverse", "log", "linear")


class Sampler(ABC):
    """Chooses the depths of the samples. `names`: one for each pass."""

    names: tuple[str, ...]
    reads_surfaces = False  # whether it needs the references' depth in the encoding

    @property
    def stages(self) -> int:
        """Return how many passes there are."""
        return len(self.names)

    @property
    @abstractmethod
    def most_samples(self) -> int:
        """Return the largest number of samples that a ray has in one pass."""

    @abstractmethod
    def depths(
        self, encoding: Encoding, rays: Rays, passes: tuple[Rendering, ...], draws: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the sorted depths (R, S) in metres of the pass that follows `passes`. draws: random numbers of `draw`;
        None for a deterministic choice."""

    def rays(self, encoding: Encoding, query: Cameras, pixels: torch.Tensor) -> Rays:
        """Return the rays through pixels (Q, N, 2) of Q cameras, camera by camera: R = Q * N. A subclass may add what
        its `depths` reads."""
        return camera_rays(query, pixels)

    def groups(self, rays: Rays, room: int | None = None) -> list[tuple[torch.Tensor | None, Rays]]:
        """Return groups of rays that need different numbers of samples, each with the indices of its rays (None: all
        rays, in order). A ray in two groups gets the result of the later one.

        room: size of the last group, at least `count_full(rays)`, so that shapes do not depend on the data; None:
        exactly the rays that need it.
        """
        return [(None, rays)]

    def count_full(self, rays: Rays) -> torch.Tensor | None:
        """Return how many rays need all samples, a tensor of one number; None if all rays do."""
        return None

    def draw(self, rays: int, generator: torch.Generator) -> torch.Tensor | None:
        """Return the random numbers of a training step for so many rays; None if it needs none."""
        return None


@dataclass(frozen=True)
class CoarseToFine(Sampler):
    """`coarse` depths, evenly spaced, and unless `fine` is 0 in a second pass `fine` depths where the first one found
    hits to be likely. keep_coarse: the second pass has the first one's depths too. spacing: one of `SPACINGS`."""

    coarse: int
    fine: int
    keep_coarse: bool = False
    spacing: str = "inverse"

    @property
    def names(self) -> tuple[str, ...]:
        return ("coarse", "fine") if self.fine else ("coarse",)

    @property
    def most_samples(self) -> int:
        return max(self.coarse, self.fine + self.coarse * self.keep_coarse)

    def depths(
        self, encoding: Encoding, rays: Rays, passes: tuple[Rendering, ...], draws: torch.Tensor | None
    ) -> torch.Tensor:
        if not passes:
            return uniform_depths(rays.depth_range, self.coarse, self.spacing)
        (coarse,) = passes
        fine = importance_depths(coarse.depths, coarse.hit_probability, rays.depth_range, self.fine, draws)
        return torch.cat([coarse.depths, fine], -1).sort(-1).values if self.keep_coarse else fine

    def draw(self, rays: int, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(rays, self.fine, generator=generator, device=generator.device)


@dataclass(frozen=True)
class OnSurfaces(Sampler):
    """Five samples near the surfaces that the references' depth shows: three on and around the first layer of the ray,
    and one on each further layer, or behind the first if there are no further ones.

    Without any surface the samples are spread around the depth of the neighbouring rays. Rays with `nearest(1)` layer
    have one sample, on that layer.
    """

    names = ("surface",)
    reads_surfaces = True
    most_samples = 5

    def rays(self, encoding: Encoding, query: Cameras, pixels: torch.Tensor) -> Rays:
        height, width = query.size
        grid = pixel_grid(height, width, device=pixels.device)
        x, y = pixels.long().unbind(-1)
        rays = []
        for q, place in enumerate(y * width + x):
            camera = query.one(q)
            whole = camera_rays(camera, grid[None])
            layers = find_layers(whole, encoding.surfaces, encoding.cameras, camera)
            rays.append(replace(whole, layers=layers)[place])
        return rays[0] if len(rays) == 1 else Rays.join(rays)

    def depths(
        self, encoding: Encoding, rays: Rays, passes: tuple[Rendering, ...], draws: torch.Tensor | None
    ) -> torch.Tensor:
        layers = rays.layers
        first = layers.depth[:, 0]
        if layers.depth.shape[1] == 1:
            return first[:, None]
        reach = (1.5 * layers.spread[:, 0] + 0.002).clamp(0.003, 0.04)  # relative, to either side of the first layer
        reach = torch.where(layers.found, reach, UNKNOWN_REACH)
        near = reach if draws is None else reach * (0.5 + draws[:, 0])
        around = [first * (1 - near), first, first * (1 + near)]
        second, third = layers.depth[:, 1:].unbind(-1)
        second = torch.where(second > 0, second, first * (1 + 4 * reach))
        beyond = torch.where(layers.found, 1.25 * torch.maximum(first, second), 0.7 * first)
        third = torch.where(third > 0, third, beyond)
        return torch.stack([*around, second, third], -1).sort(-1).values

    def groups(self, rays: Rays, room: int | None = None) -> list[tuple[torch.Tensor | None, Rays]]:
        """Return rays that meet one surface, with one sample (about 95% of all), and the others, with all samples.

        With `room` the first group holds all rays, and the second is padded to `room` by repeating its first ray.
        """
        single = _meet_one_surface(rays)
        if room is None:
            first, places = single.nonzero()[:, 0], (~single).nonzero()[:, 0]
        else:
            order = single.int().argsort(stable=True)[:room]
            needed = torch.arange(room, device=order.device) < (~single).sum()
            first, places = None, torch.where(needed, order, order[0])
        groups = [(first, rays if first is None else rays[first]), (places, rays[places])]
        return [
            (where, replace(part, layers=part.layers.nearest(count)))
            for (where, part), count in zip(groups, (1, LAYERS), strict=True)
            if len(part)
        ]

    def count_full(self, rays: Rays) -> torch.Tensor:
        return (~_meet_one_surface(rays)).sum()

    def draw(self, rays: int, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(rays, 1, generator=generator, device=generator.device)


def _meet_one_surface(rays: Rays) -> torch.Tensor:
    """Return which rays meet one surface, (R,) bool."""
    return rays.layers.found & (rays.layers.depth[:, 1:] == 0).all(-1)


def uniform_depths(depth_range: torch.Tensor, count: int, spacing: str = "inverse") -> torch.Tensor:
    """Return `count` depths of each ray from near to far (depth_range, (R, 2)), both included: (R, count).

    They are uniform in 1/z, in log z or in z, as one of `SPACINGS` says.
    """
    steps = torch.linspace(0, 1, count, device=depth_range.device, dtype=depth_range.dtype)
    if spacing == "inverse":
        return from_inverse_depth(steps.expand(len(depth_range), -1), depth_range)
    near, far = depth_range[:, :1], depth_range[:, 1:]
    return near * (far / near) ** steps if spacing == "log" else near + (far - near) * steps


def importance_depths(
    depths: torch.Tensor,
    hit_probability: torch.Tensor,
    depth_range: torch.Tensor,
    count: int,
    draws: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw `count` sorted depths a ray where hits are likely (inverse transform sampling in inverse depth).

    depths, hit_probability: (R, S), depth_range: (R, 2). draws: (R, count) in [0, 1), None for the centres of
    `count` equal bins of probability. No gradient flows to the probabilities.
    """
    inverse = to_inverse_depth(depths, depth_range)
    edges = torch.cat([inverse[:, :1], (inverse[:, 1:] + inverse[:, :-1]) / 2, inverse[:, -1:]], -1)
    # If the network has diverged the loss shall show it: a depth of nan would crash the sampling of maps before that.
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
