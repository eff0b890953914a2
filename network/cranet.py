"""Aggregates what the views see at each sample: density, colour and, by Cross-Reprojection Attention, classes.

The geometry and colour part is IBRNet's aggregation with NeuRay's visibility; the semantic part is
S-Ray's (section 3.3): attention along the ray inside each view, then across the views of each sample.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from network.attention import SelfAttention, sine_encoding

INVALID_LOGIT = -1e9


class SampleValues(NamedTuple):
    """Of each sample: density (R, S), colour (R, S, 3), logits (R, S, K+1) or None."""

    density: torch.Tensor
    color: torch.Tensor
    logits: torch.Tensor | None


def weighted_mean_and_variance(x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Over the views (first axis), with the weights as they are: sum(w x) and sum(w (x - mean)^2)."""
    mean = (x * weights).sum(0)
    return mean, (weights * (x - mean) ** 2).sum(0)


def _kaiming(*networks: nn.Sequential) -> None:
    """IBRNet's start: normal weights of ReLU's gain, zero biases."""
    for network in networks:
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)


class CRANet(nn.Module):
    """samples: how many samples a ray has (the length of the position encodings)."""

    def __init__(self, num_classes: int, samples: int, use_attention: bool, views_first: bool, with_logits: bool):
        super().__init__()
        self.views_first = views_first
        self.with_logits = with_logits
        self.ray_dir_fc = nn.Sequential(nn.Linear(4, 16), nn.ELU(), nn.Linear(16, 35), nn.ELU())
        self.base_fc = nn.Sequential(nn.Linear(207, 64), nn.ELU(), nn.Linear(64, 32), nn.ELU())
        self.vis_fc = nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 33), nn.ELU())
        self.vis_fc2 = nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 1), nn.Sigmoid())
        self.geometry_fc = nn.Sequential(nn.Linear(65, 64), nn.ELU(), nn.Linear(64, 16), nn.ELU())
        self.ray_attention = SelfAttention(16)
        self.out_geometry_fc = nn.Sequential(nn.Linear(16, 16), nn.ELU(), nn.Linear(16, 1), nn.ReLU())
        self.rgb_fc = nn.Sequential(nn.Linear(37, 16), nn.ELU(), nn.Linear(16, 8), nn.ELU(), nn.Linear(8, 1))
        self.neuray_fc = nn.Sequential(nn.Linear(32, 8), nn.ELU(), nn.Linear(8, 1))
        _kaiming(self.base_fc, self.vis_fc, self.vis_fc2, self.geometry_fc, self.rgb_fc, self.neuray_fc)
        # Names with `_new` are S-Ray's own layers: absent from a NeuRay checkpoint, trained in a group of their own.
        self.point_attention_new = SelfAttention(32) if use_attention else None
        self.sem_rtrans_new = SelfAttention(32) if use_attention else None
        self.semantic_fc1_new = nn.Linear(16, 16)
        self.semantic_fc2_new = nn.Linear(64, num_classes + 1)
        self.register_buffer("geometry_encoding", sine_encoding(samples, 16), persistent=False)
        self.register_buffer("semantic_encoding", sine_encoding(samples, 32), persistent=False)

    def forward(
        self,
        color: torch.Tensor,
        features: torch.Tensor,
        embedding: torch.Tensor,
        direction_difference: torch.Tensor,
        valid: torch.Tensor,
    ) -> SampleValues:
        """What V views contribute to R rays of S samples.

        color (V, R, S, 3), features (V, R, S, 32) of the images, embedding (V, R, S, 32) of the ray
        distributions, direction_difference (V, R, S, 4), valid (V, R, S) bool.
        """
        mask = valid[..., None].to(color.dtype)
        latent = self._fuse_views(torch.cat([color, features], -1), embedding, direction_difference, mask)
        refined, visibility = self._refine_visibility(latent, mask)
        geometry = self._ray_geometry(refined, visibility, mask)
        density = self.out_geometry_fc(geometry)[..., 0].masked_fill(~valid.any(0), 0)
        blending = self._blending_weights(refined, visibility, direction_difference, valid)
        logits = self._logits(latent, geometry, blending, valid) if self.with_logits else None
        return SampleValues(density, (blending * color).sum(0), logits)

    def _fuse_views(self, x, embedding, direction_difference, mask):
        """Per view, what it sees there next to what all see: (V, R, S, 32)."""
        x = x + self.ray_dir_fc(direction_difference)
        uniform = mask / (mask.sum(0) + 1e-8)
        trusted = torch.sigmoid(self.neuray_fc(embedding)) * uniform
        statistics = torch.cat([*weighted_mean_and_variance(x, trusted), *weighted_mean_and_variance(x, uniform)], -1)
        return self.base_fc(torch.cat([statistics.expand(len(x), *statistics.shape), x, embedding], -1))

    def _refine_visibility(self, latent, mask):
        """The latent again, with how visible the sample is in each view: (V, R, S, 32) and (V, R, S, 1)."""
        uniform = mask / (mask.sum(0) + 1e-8)
        residual, visibility = self.vis_fc(latent * uniform).split([32, 1], -1)
        refined = latent + residual
        visibility = torch.sigmoid(visibility) * mask
        return refined, self.vis_fc2(refined * visibility) * mask

    def _ray_geometry(self, refined, visibility, mask):
        """Geometry of each sample after attention along its ray: (R, S, 16)."""
        weights = visibility / (visibility.sum(0) + 1e-8)
        mean, variance = weighted_mean_and_variance(refined, weights)
        geometry = self.geometry_fc(torch.cat([mean, variance, weights.mean(0)], -1))
        return self.ray_attention(geometry + self.geometry_encoding, query_mask=mask.sum(0)[..., 0] > 1)

    def _blending_weights(self, refined, visibility, direction_difference, valid):
        """Softmax over the views, zero where a view does not see the sample: (V, R, S, 1)."""
        scores = self.rgb_fc(torch.cat([refined, visibility, direction_difference], -1))
        return torch.softmax(scores.masked_fill(~valid[..., None], INVALID_LOGIT), 0)

    def _logits(self, latent, geometry, blending, valid):
        """Class logits of each sample: (R, S, K+1)."""
        semantic = latent
        if self.sem_rtrans_new is not None:
            steps = [self._attend_along_ray, self._attend_across_views]
            for attend in reversed(steps) if self.views_first else steps:
                semantic = attend(semantic, valid)
        per_sample = torch.cat([self.semantic_fc1_new(geometry), F.elu(self.out_geometry_fc[0](geometry))], -1)
        per_view = torch.cat([per_sample.expand(len(semantic), *per_sample.shape), semantic], -1)
        return (self.semantic_fc2_new(per_view) * blending).sum(0)

    def _attend_along_ray(self, semantic, valid):
        """Intra-view radial attention over S; a sample that at most one view sees attends uniformly."""
        return self.sem_rtrans_new(semantic + self.semantic_encoding, query_mask=valid.sum(0) > 1)

    def _attend_across_views(self, semantic, valid):
        """Cross-view sparse attention over V; a view that does not see the sample attends uniformly."""
        return self.point_attention_new(semantic.movedim(0, -2), query_mask=valid.movedim(0, -1)).movedim(-2, 0)
