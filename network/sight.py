"""Projection of the samples on rays into the references: visibility, colour and features there."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from network.geometry import (
    Projection,
    directions_to_cameras,
    interval_halves,
    inverse_depth_intervals,
    project,
    to_inverse_depth,
)
from network.ops.reading import read_rows
from network.ops.splat import read_nearest
from network.rendering import Encoding, Rays
from network.surfaces import depth_disagreement, read_neighbours

AGREEMENT = 0.012  # relative distance of a point to a reference's surface at which the evidence of a hit falls to 1/e
OCCLUDED = 0.03  # relative distance behind a reference's surface from which on a point is occluded in it
ELSEWHERE = math.exp(
    -((OCCLUDED / AGREEMENT) ** 2)
)  # evidence of a hit below which the reference shows another surface


class Evidence(NamedTuple):
    """What the references' depth says of N samples, (V, N) each in [0, 1]: hit, how well the depth agrees with the
    sample, and visibility, whether the reference's ray reaches the sample. Both are 0.5 where the depth is unknown."""

    visibility: torch.Tensor
    hit: torch.Tensor


class Sight(NamedTuple):
    """Projections of N = R * S samples into V views. The samples of a ray are consecutive.

    valid: (V, N) bool, the view sees the sample. color: (V, N, 3). features: (V, N, C), first `image_channels` image
    features, then ray features. near_end, far_end: (V, N), the interval of the sample in the view's normalised inverse
    depth. direction: (V, N, 4), difference of the unit vectors to the view and to the query, and their scalar product.
    shape: (R, S). evidence: that of the references' depth, if the encoding has it. found: (R,) bool, the references
    show a surface on the ray, if the sampler looked for one. labels: (V, N) int64 classes, if the encoding has them.
    """

    valid: torch.Tensor
    color: torch.Tensor
    features: torch.Tensor
    image_channels: int
    near_end: torch.Tensor
    far_end: torch.Tensor
    direction: torch.Tensor
    shape: torch.Size
    evidence: Evidence | None = None
    found: torch.Tensor | None = None
    labels: torch.Tensor | None = None

    @property
    def image_features(self) -> torch.Tensor:
        return self.features[..., : self.image_channels]

    @property
    def ray_features(self) -> torch.Tensor:
        return self.features[..., self.image_channels :]

    @property
    def mask(self) -> torch.Tensor:
        """Return `valid` as 0 and 1, (V, N, 1)."""
        return self.valid[..., None].to(self.color.dtype)

    @property
    def uniform(self) -> torch.Tensor:
        """Return equal weights of the views that see a sample, (V, N, 1), of sum 1."""
        mask = self.mask
        return mask / (mask.sum(0) + 1e-8)

    @property
    def seen(self) -> torch.Tensor:
        """Return which samples at least one view sees, (R, S) bool."""
        return self.valid.any(0).view(self.shape)

    @property
    def shown(self) -> torch.Tensor:
        """Return the samples that at least one view shows, (R, S) bool: it sees the sample and its depth does not
        contradict it. On a ray for which a surface was found, all samples are shown."""
        if self.evidence is None:
            return self.seen
        shown = (self.valid & (self.evidence.hit > ELSEWHERE)).any(0).view(self.shape)
        return shown if self.found is None else shown | self.found[:, None]

    @property
    def seen_by_several(self) -> torch.Tensor:
        """Return which samples more than one view sees, (R, S) bool."""
        return (self.mask.sum(0) > 1).view(self.shape)


def look(encoding: Encoding, rays: Rays, depths: torch.Tensor) -> Sight:
    """Project the samples at depths (R, S) into the views of an encoding, and sample images and features there.

    Positions are computed in float32 under autocast too: bfloat16 has too few bits for a pixel's position.
    """
    cameras, size = encoding.cameras, encoding.cameras.size
    with torch.autocast(depths.device.type, enabled=False):
        points = rays.points(depths)
        projection = project(points, cameras)
        valid, evidence = encoding.seen(projection), None
        if encoding.surfaces is not None:
            valid, evidence = look_at_surfaces(encoding.surfaces, projection, valid)
        # A surface outside of all images takes the colours of the nearest image border.
        mask = (valid if evidence is None else torch.ones_like(valid))[..., None].to(points.dtype)
        to_view = directions_to_cameras(points, cameras)
        to_query = -rays.directions / rays.directions.norm(dim=-1, keepdim=True)
        to_query = to_query[:, None].expand(*depths.shape, 3).reshape(-1, 3)
        direction = torch.cat([to_view - to_query, (to_view * to_query).sum(-1, keepdim=True)], -1)
        color = read_rows(encoding.images.permute(0, 2, 3, 1), projection.pixels, mask, size, align_corners=True)
        features = read_rows(encoding.features, projection.pixels, mask, size, align_corners=False)
        inverse_depth = to_inverse_depth(projection.depth, cameras.depth_range)
        before, after = interval_halves(inverse_depth_intervals(depths, rays.depth_range))
        near_end, far_end = inverse_depth - before.flatten(), inverse_depth + after.flatten()
    return Sight(
        valid=valid,
        color=color,
        features=features,
        image_channels=encoding.image_channels,
        near_end=near_end,
        far_end=far_end,
        direction=direction,
        shape=depths.shape,
        evidence=evidence,
        found=None if rays.layers is None else rays.layers.found,
        labels=None if encoding.labels is None else read_nearest(encoding.labels, projection.pixels),
    )


def look_at_surfaces(
    surfaces: torch.Tensor, projection: Projection, valid: torch.Tensor
) -> tuple[torch.Tensor, Evidence]:
    """Return which of the `valid` samples (V, N) are not occluded in each view, and the evidence of the view's depth.

    surfaces: (V, h, w, 4), see `surfaces.with_neighbours`. Samples behind a camera are invalid (in the published
    network they are not). A sample that is occluded in all views is treated as visible in all of them.
    """
    valid = valid & (projection.depth > 0)
    behind = depth_disagreement(*read_neighbours(surfaces, projection.pixels), projection.depth)
    known = behind.isfinite() & valid
    behind = torch.where(known, behind, 0)
    seen = valid & ~(known & (behind > OCCLUDED))
    valid = torch.where(seen.any(0), seen, valid)
    visibility = torch.where(known, torch.sigmoid(-behind / AGREEMENT), 0.5)
    hit = torch.where(known, torch.exp(-((behind / AGREEMENT) ** 2)), 0.5)
    return valid, Evidence(visibility=visibility, hit=hit)
