"""One pass, step by step as the papers have it, from the weights of a stage: the oracle of the network's own
forward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from network.attention import sine_encoding
from network.compositing import composite, hit_probabilities
from network.geometry import (
    directions_to_cameras,
    interval_halves,
    inverse_depth_intervals,
    project,
    read_map,
    to_inverse_depth,
)
from network.rendering import CLASSES, Encoding, Rays, Rendering
from network.stage import Stage

HEADS, HEAD_WIDTH = 4, 4


def render(stage: Stage, encoding: Encoding, rays: Rays, depths: torch.Tensor, density_only: bool = False) -> Rendering:
    """Return what `stage(encoding, rays, depths, density_only)` should return."""
    points = rays.points(depths)
    cameras, size = encoding.cameras, encoding.cameras.size

    def per_sample(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, depths.shape)

    projection = project(points, cameras)
    seen = encoding.seen(projection)
    mask, valid = seen[..., None], per_sample(seen)
    color = per_sample(read_map(encoding.images, projection.pixels, size, align_corners=True) * mask)
    maps = encoding.features.permute(0, 3, 1, 2)
    features = per_sample(read_map(maps, projection.pixels, size, align_corners=False) * mask)
    image_features, ray_features = features.split([32, 32], -1)
    inverse_depth = to_inverse_depth(per_sample(projection.depth), cameras.depth_range)
    intervals = inverse_depth_intervals(depths, rays.depth_range)
    visibility, hit = visibility_and_hit(stage.dist_decoder, ray_features, inverse_depth, intervals)
    query = (-rays.directions / rays.directions.norm(dim=-1, keepdim=True))[:, None]
    to_view = per_sample(directions_to_cameras(points, cameras))
    direction = torch.cat([to_view - query, (to_view * query).sum(-1, keepdim=True)], -1)
    probabilities = torch.stack([2 * (hit * valid - 0.5), 2 * (visibility * valid - 0.5)], -1)
    embedding = run(stage.agg_net.prob_embed, torch.cat([ray_features, probabilities], -1))

    aggregation = Aggregation(stage.agg_net.agg_impl, color, image_features, embedding, direction, valid)
    density, color, logits = aggregation.values()
    hit_probability = hit_probabilities(density)
    heads = {} if logits is None or density_only else {CLASSES: composite(hit_probability, logits)}
    return Rendering(
        None if density_only else composite(hit_probability, color),
        heads,
        (hit_probability * depths).sum(-1),
        hit_probability,
        depths,
        (valid.sum(0) > stage.scored_views).sum(-1) > stage.scored_samples,
        hit_probability.sum(-1) > 0,
    )


def run(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Layers one after the other, those with weights as nn.Linear has it."""
    for layer in layers:
        x = F.linear(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(x)
    return x


def visibility_and_hit(decoder, ray_features, inverse_depth, intervals) -> tuple[torch.Tensor, torch.Tensor]:
    """NeuRay, section 3.2: a mixture of two logistics, its distribution at both ends of a sample; (V, R, S) each."""
    means, variances = run(decoder.mean_decoder, ray_features), run(decoder.var_decoder, ray_features) + 0.05
    weight = run(decoder.aw_decoder, ray_features)
    before, after = interval_halves(intervals)

    def cdf(x: torch.Tensor) -> torch.Tensor:
        values = 0.5 + 0.5 * torch.tanh((x[..., None] - means) * variances)
        return values if decoder.vis_decoder is None else values * run(decoder.vis_decoder, ray_features)

    weights = torch.cat([weight, 1 - weight], -1)
    low, high = cdf(inverse_depth - before), cdf(inverse_depth + after)
    return (weights * (1 - low)).sum(-1), (weights * (high - low)).sum(-1)


def attend(attention, x: torch.Tensor, query_mask: torch.Tensor) -> torch.Tensor:
    """x: (..., L, width); query_mask: (..., L), broadcastable, False where a query attends uniformly to all."""

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(-2, -3)

    query = heads(F.linear(x, attention.w_qs.weight) * query_mask[..., None])
    key, value = heads(F.linear(x, attention.w_ks.weight)), heads(F.linear(x, attention.w_vs.weight))
    weights = torch.softmax(query @ key.transpose(-1, -2) / HEAD_WIDTH**0.5, -1)
    attended = (weights @ value).transpose(-2, -3).flatten(-2)
    return attention.layer_norm(F.linear(attended, attention.fc.weight) + x)


def weighted_mean_and_variance(x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = (x * weights).sum(0)
    return mean, (weights * (x - mean) ** 2).sum(0)


@dataclass
class Aggregation:
    """Contributions of V views to R rays of S samples, from `CRANet`'s weights.

    color (V, R, S, 3), features (V, R, S, 32) of the images, embedding (V, R, S, 32) of the ray distributions,
    direction (V, R, S, 4), valid (V, R, S) bool.
    """

    net: nn.Module
    color: torch.Tensor
    features: torch.Tensor
    embedding: torch.Tensor
    direction: torch.Tensor
    valid: torch.Tensor

    def values(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Density (R, S), colour (R, S, 3), logits (R, S, K+1) or None."""
        self.mask = self.valid[..., None].to(self.color.dtype)
        latent = self.fuse_views()
        refined, visibility = self.refine_visibility(latent)
        geometry = self.ray_geometry(refined, visibility)
        density = run(self.net.out_geometry_fc, geometry)[..., 0].masked_fill(~self.valid.any(0), 0)
        scores = run(self.net.rgb_fc, torch.cat([refined, visibility, self.direction], -1))
        blending = torch.softmax(scores.masked_fill(~self.valid[..., None], -1e9), 0)
        logits = self.logits(latent, geometry, blending) if self.net.with_logits else None
        return density, (blending * self.color).sum(0), logits

    def fuse_views(self) -> torch.Tensor:
        x = torch.cat([self.color, self.features], -1) + run(self.net.ray_dir_fc, self.direction)
        uniform = self.mask / (self.mask.sum(0) + 1e-8)
        trusted = torch.sigmoid(run(self.net.neuray_fc, self.embedding)) * uniform
        statistics = torch.cat([*weighted_mean_and_variance(x, trusted), *weighted_mean_and_variance(x, uniform)], -1)
        statistics = statistics.expand(len(x), *statistics.shape)
        return run(self.net.base_fc, torch.cat([statistics, x, self.embedding], -1))

    def refine_visibility(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        uniform = self.mask / (self.mask.sum(0) + 1e-8)
        residual, visibility = run(self.net.vis_fc, latent * uniform).split([32, 1], -1)
        refined = latent + residual
        visibility = torch.sigmoid(visibility) * self.mask
        return refined, run(self.net.vis_fc2, refined * visibility) * self.mask

    def ray_geometry(self, refined: torch.Tensor, visibility: torch.Tensor) -> torch.Tensor:
        weights = visibility / (visibility.sum(0) + 1e-8)
        mean, variance = weighted_mean_and_variance(refined, weights)
        geometry = run(self.net.geometry_fc, torch.cat([mean, variance, weights.mean(0)], -1))
        encoding = sine_encoding(*geometry.shape[-2:], geometry.device)
        return attend(self.net.ray_attention, geometry + encoding, self.valid.sum(0) > 1)

    def logits(self, latent: torch.Tensor, geometry: torch.Tensor, blending: torch.Tensor) -> torch.Tensor:
        net, semantic = self.net, latent
        if net.sem_rtrans_new is not None:
            steps = [self.attend_along_ray, self.attend_across_views]
            for step in reversed(steps) if net.views_first else steps:
                semantic = step(semantic)
        hidden = F.elu(F.linear(geometry, net.out_geometry_fc[0].weight, net.out_geometry_fc[0].bias))
        first = F.linear(geometry, net.semantic_fc1_new.weight, net.semantic_fc1_new.bias)
        of_sample = torch.cat([first, hidden], -1)
        of_view = torch.cat([of_sample.expand(len(semantic), *of_sample.shape), semantic], -1)
        return (F.linear(of_view, net.semantic_fc2_new.weight, net.semantic_fc2_new.bias) * blending).sum(0)

    def attend_along_ray(self, semantic: torch.Tensor) -> torch.Tensor:
        encoding = sine_encoding(*semantic.shape[-2:], semantic.device)
        return attend(self.net.sem_rtrans_new, semantic + encoding, self.valid.sum(0) > 1)

    def attend_across_views(self, semantic: torch.Tensor) -> torch.Tensor:
        semantic = attend(self.net.point_attention_new, semantic.movedim(0, -2), self.valid.movedim(0, -1))
        return semantic.movedim(-2, 0)
