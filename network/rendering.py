"""What goes into a rendering pass and what comes out of one."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from dataset.views import Cameras, Tensors
from network.aggregate_net import AggregateNet
from network.dist_decoder import DistDecoder
from network.geometry import Projection, pixel_rays, read_map

FEATURES = 32  # channels of image features and of ray features


@dataclass(frozen=True)
class Encoding(Tensors):
    """What is kept of V references.

    images: padded, (V, 3, h, w). features: (V, h/4, w/4, 64), 32 image features and 32 ray features.
    mask: (V, 1, h, w) of 0 and 1, where the images count; None for everywhere.
    depth: (V, 1, h/4, w/4) metres, if the front end predicts it.
    """

    cameras: Cameras
    images: torch.Tensor
    features: torch.Tensor
    mask: torch.Tensor | None = None
    depth: torch.Tensor | None = None

    def seen(self, projection: Projection) -> torch.Tensor:
        """Which of N projections count, (V, N) bool: what a mask hides is not seen."""
        if self.mask is None:
            return projection.valid
        shown = read_map(self.mask, projection.pixels, self.cameras.size, align_corners=True)[..., 0]
        return projection.valid & (shown > 0.99)


class ByRay(Tensors):
    """Tensors whose first axis is rays."""

    def __getitem__(self, which: slice):
        return self._map(lambda tensor: tensor[which])


@dataclass(frozen=True)
class Rays(ByRay):
    """R rays: centres (R, 3), directions (R, 3) with z = 1 in the ray's camera, depth_range (R, 2) in metres."""

    centres: torch.Tensor
    directions: torch.Tensor
    depth_range: torch.Tensor

    def __len__(self) -> int:
        return len(self.directions)

    def points(self, depths: torch.Tensor) -> torch.Tensor:
        """The points at depths (R, S): (R * S, 3)."""
        return (self.centres[:, None] + depths[..., None] * self.directions[:, None]).reshape(-1, 3)


def camera_rays(cameras: Cameras, pixels: torch.Tensor) -> Rays:
    """The rays through pixels (Q, N, 2) of Q cameras, camera by camera: R = Q * N."""
    centres, directions = pixel_rays(pixels, cameras.poses, cameras.Ks)
    count = pixels.shape[1]
    return Rays(
        centres.repeat_interleave(count, 0), directions.flatten(0, 1), cameras.depth_range.repeat_interleave(count, 0)
    )


@dataclass(frozen=True)
class Stage:
    """The networks of one pass, coarse or fine, and what makes a ray count: more than `scored_samples` of its samples
    are seen by more than `scored_views` views."""

    dist_decoder: DistDecoder
    agg_net: AggregateNet
    scored_views: int
    scored_samples: int

    def scores(self, seeing: torch.Tensor) -> torch.Tensor:
        """By how many views each sample is seen, (R, S) -> which rays count, (R,) bool."""
        return ((seeing > self.scored_views).sum(-1)) > self.scored_samples


@dataclass(frozen=True)
class Rendering(Tensors):
    """Of R rays: depth (R,) metres, the hit probability (R, S) of each sample at depths (R, S), and `scored` (R,)
    bool: enough samples were seen by enough views.

    color (R, 3) and logits (R, K+1) are None where only densities were asked for, logits also without classes.
    """

    color: torch.Tensor | None
    logits: torch.Tensor | None
    depth: torch.Tensor
    hit_probability: torch.Tensor
    depths: torch.Tensor
    scored: torch.Tensor

    @property
    def deviation(self) -> torch.Tensor:
        """How far the hits of each ray are spread about its depth, (R,) metres; what hits nothing counts as at 0."""
        nothing = (1 - self.hit_probability.sum(-1)).clamp_min(0) * self.depth.square()
        spread = (self.hit_probability * (self.depths - self.depth[:, None]).square()).sum(-1)
        return (spread + nothing).sqrt()


@dataclass(frozen=True)
class RenderedView(ByRay):
    """A whole view, R = height * width rays row by row: color (R, 3), logits (R, K+1) or None, depth (R,) and how sure it
    is (its deviation), metres, and `scored` (R,) bool: enough references show it."""

    color: torch.Tensor
    logits: torch.Tensor | None
    depth: torch.Tensor
    deviation: torch.Tensor
    scored: torch.Tensor

    @classmethod
    def join(cls, parts: list[RenderedView]) -> RenderedView:
        """The rays of all parts, one after the other."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        return cls(**{name: None if xs[0] is None else torch.cat(xs) for name, xs in columns.items()})


@dataclass(frozen=True)
class Prediction(Tensors):
    """The two passes of one renderer; `fine` is None without hierarchical sampling. reference_depth: metres
    (V, 1, h/4, w/4), if the front end predicts it."""

    coarse: Rendering
    fine: Rendering | None
    reference_depth: torch.Tensor | None = None

    @property
    def final(self) -> Rendering:
        return self.coarse if self.fine is None else self.fine
