"""One pass over rays: project the samples into the references, find where the rays end, render colour and heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from network.aggregate_net import AggregateNet
from network.compositing import expected_depth, modal_depth, seen_rays
from network.dist_decoder import DistDecoder, visibility_and_hit
from network.rendering import Encoding, Rays, Rendering
from network.sight import Sight, look


@dataclass(frozen=True)
class Stage:
    """The networks of one pass. A ray is scored (has a loss) if more than `scored_samples` of its samples are seen by
    more than `scored_views` views.

    dist_decoder: None if the references' depth replaces it. opaque: every ray ends, at its last sample at the latest,
    and its depth is that of its most probable surface.
    """

    dist_decoder: DistDecoder | None
    agg_net: AggregateNet
    scored_views: int
    scored_samples: int
    opaque: bool = False

    def __call__(self, encoding: Encoding, rays: Rays, depths: torch.Tensor, density_only: bool = False) -> Rendering:
        """Render R rays from their samples at `depths` (R, S), metres. density_only: without colour and heads."""
        return self.shade(look(encoding, rays, depths), depths, density_only)

    def shade(self, sight: Sight, depths: torch.Tensor, density_only: bool = False) -> Rendering:
        """Shade the samples from what the views see of them."""
        if self.dist_decoder is None:
            visibility, hit = sight.evidence
        else:
            visibility, hit = visibility_and_hit(self.dist_decoder(sight.ray_features), sight.near_end, sight.far_end)
        values = self.agg_net(sight, hit=hit, visibility=visibility, density_only=density_only)
        hit_probability = values.hit_probability
        seeing = sight.valid.sum(0).view(depths.shape)
        return Rendering(
            color=values.color,
            heads=values.heads,
            depth=(modal_depth if self.opaque else expected_depth)(hit_probability, depths),
            hit_probability=hit_probability,
            depths=depths,
            scored=(seeing > self.scored_views).sum(-1) > self.scored_samples,
            seen=seen_rays(hit_probability, sight.shown),
        )
