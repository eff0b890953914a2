"""Inputs and outputs of a pass over rays."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from dataset.views import Cameras, Rows, Tensors
from network.geometry import Projection, pixel_rays, read_map
from network.surfaces import Layers

CLASSES = "classes"  # head of class logits
CONTEXT = "context"  # head of the features that the query decoder reads
KNOWN = "known"  # head of networks that are given labels of the references


@dataclass(frozen=True)
class Encoding(Tensors):
    """Encoded references, V of them.

    images: padded, (V, 3, h, w). features: (V, h/4, w/4, C), first `image_channels` image features, then ray features.
    Encoders with another stride than 4 have another size. mask: (V, 1, h, w), 1 where the images are valid, else 0;
    None: valid everywhere. depth: (V, 1, h/4, w/4) metres, if the front end predicts it. surfaces: (V, h, w, 4), the
    references' depth `surfaces.with_neighbours`, if the sampler reads it. shown: (height, width) before padding;
    projections outside of it are invalid. None: padding is valid too. labels: (V, h, w) int64 classes, K where unknown,
    if the network is given them.
    """

    cameras: Cameras
    images: torch.Tensor
    features: torch.Tensor
    image_channels: int
    mask: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    surfaces: torch.Tensor | None = None
    shown: tuple[int, int] | None = None
    labels: torch.Tensor | None = None

    def seen(self, projection: Projection) -> torch.Tensor:
        """Return which of N projections are valid, (V, N) bool: inside the image and not masked."""
        if self.shown is not None:
            height, width = self.shown
            x, y = projection.pixels.unbind(-1)
            projection = projection._replace(valid=projection.valid & (x < width - 0.5) & (y < height - 0.5))
        if self.mask is None:
            return projection.valid
        shown = read_map(self.mask, projection.pixels, self.cameras.size, align_corners=True)[..., 0]
        return projection.valid & (shown > 0.99)


class ByRay(Rows):
    """Tensors whose first axis is rays."""

    @classmethod
    def join(cls, parts: list):
        """Join the rays of all parts, one after the other."""
        return _joined(parts)


def _joined(parts: list):
    """Concatenate tensors, dictionaries or dataclasses of them; None where they are None."""
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, torch.Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        return {name: _joined([part[name] for part in parts]) for name in first}
    return type(first)(*[_joined([getattr(part, field.name) for part in parts]) for field in fields(first)])


@dataclass(frozen=True)
class Rays(ByRay):
    """R rays: centres (R, 3), directions (R, 3) with z = 1 in the ray's camera, depth_range (R, 2) near and far in
    metres, and the layers of surfaces that they meet, if the sampler uses them."""

    centres: torch.Tensor
    directions: torch.Tensor
    depth_range: torch.Tensor
    layers: Layers | None = None

    def __len__(self) -> int:
        return len(self.directions)

    def points(self, depths: torch.Tensor) -> torch.Tensor:
        """Return the points at depths (R, S): (R * S, 3)."""
        return (self.centres[:, None] + depths[..., None] * self.directions[:, None]).reshape(-1, 3)


def camera_rays(cameras: Cameras, pixels: torch.Tensor) -> Rays:
    """Return the rays through pixels (Q, N, 2) of Q cameras, camera by camera: R = Q * N."""
    centres, directions = pixel_rays(pixels, cameras.poses, cameras.Ks)
    count = pixels.shape[1]
    return Rays(
        centres.repeat_interleave(count, 0), directions.flatten(0, 1), cameras.depth_range.repeat_interleave(count, 0)
    )


@dataclass(frozen=True)
class Rendering(Tensors):
    """Result of one pass for R rays.

    color: (R, 3); None if only densities were computed. heads: name of a head -> its values (R, …). depth: (R,) metres.
    hit_probability: (R, S), that the ray ends at each sample; depths: (R, S) metres of the samples. scored: (R,) bool,
    enough samples are seen by enough views for a loss. seen: (R,) bool, a reference sees the point where the ray ends.
    """

    color: torch.Tensor | None
    heads: dict[str, torch.Tensor]
    depth: torch.Tensor
    hit_probability: torch.Tensor
    depths: torch.Tensor
    scored: torch.Tensor
    seen: torch.Tensor

    @property
    def logits(self) -> torch.Tensor | None:
        """Return the logits of classes (R, K+1); None without them."""
        return self.heads.get(CLASSES)

    @property
    def deviation(self) -> torch.Tensor:
        """Return the standard deviation of the hits of each ray about its depth, (R,) metres. The probability of no hit
        counts as a hit at depth 0."""
        nothing = (1 - self.hit_probability.sum(-1)).clamp_min(0) * self.depth.square()
        spread = (self.hit_probability * (self.depths - self.depth[:, None]).square()).sum(-1)
        return (spread + nothing).sqrt()


@dataclass(frozen=True)
class RenderedView(ByRay):
    """A whole rendered view, R = height * width rays row by row: color (R, 3), heads (R, …) by name, depth (R,) and its
    standard deviation (R,) in metres, and `seen` (R,) bool, false where no reference sees the surface and the result is
    a guess."""

    color: torch.Tensor
    heads: dict[str, torch.Tensor]
    depth: torch.Tensor
    deviation: torch.Tensor
    seen: torch.Tensor

    @property
    def logits(self) -> torch.Tensor | None:
        """Return the logits of classes (R, K+1); None without them."""
        return self.heads.get(CLASSES)

    def blank(self, rays: int, device) -> RenderedView:
        """Allocate a view of so many rays, with the same heads and types, on `device`."""
        return self._map(lambda x: torch.empty(rays, *x.shape[1:], dtype=x.dtype, device=device))

    def fill(self, places: slice | torch.Tensor, part: RenderedView) -> None:
        """Write the rays of `part` to their places, in place."""
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(part, field.name)
            for room, values in (
                zip(ours.values(), theirs.values(), strict=True) if ours is self.heads else [(ours, theirs)]
            ):
                room[places] = values.to(room.device)


@dataclass(frozen=True)
class Prediction:
    """Renderings of the same rays by each pass, from first to last. reference_depth: (V, 1, h/4, w/4) metres, if the
    front end predicts it. reference_logits: (V, h/4, w/4, K+1), if the network classifies the references too."""

    passes: tuple[Rendering, ...]
    reference_depth: torch.Tensor | None = None
    reference_logits: torch.Tensor | None = None

    @property
    def final(self) -> Rendering:
        return self.passes[-1]
