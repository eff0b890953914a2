"""One rendering pass, step by step as the papers have it: the yardstick of the faster ones."""

from __future__ import annotations

import torch

from network.compositing import composite, hit_probabilities
from network.dist_decoder import RayDistribution, visibility_and_hit
from network.geometry import directions_to_cameras, project, read_map, to_inverse_depth
from network.rendering import FEATURES, Encoding, Rays, Rendering, Stage
from network.sampling import inverse_depth_intervals


def render_pass(
    stage: Stage, encoding: Encoding, rays: Rays, depths: torch.Tensor, density_only: bool = False
) -> Rendering:
    """Renders R rays from their samples at `depths` (R, S), metres."""
    points = rays.points(depths)
    cameras, size = encoding.cameras, encoding.cameras.size

    projection = project(points, cameras)
    seen = encoding.seen(projection)
    mask = seen[..., None]
    color = read_map(encoding.images, projection.pixels, size, align_corners=True) * mask
    maps = encoding.features.permute(0, 3, 1, 2)
    features = read_map(maps, projection.pixels, size, align_corners=False) * mask
    image_features, ray_features = features.split(FEATURES, -1)

    def per_sample(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, depths.shape)

    valid = per_sample(seen)
    distribution = stage.dist_decoder(ray_features)
    distribution = RayDistribution(*[None if x is None else per_sample(x) for x in distribution])
    inverse_depth = to_inverse_depth(per_sample(projection.depth), cameras.depth_range)
    intervals = inverse_depth_intervals(depths, rays.depth_range)
    visibility, hit = visibility_and_hit(distribution, inverse_depth, intervals)

    values = stage.agg_net(
        per_sample(color),
        per_sample(image_features),
        per_sample(ray_features),
        hit * valid,
        visibility * valid,
        per_sample(directions_to_cameras(points, cameras)),
        -rays.directions / rays.directions.norm(dim=-1, keepdim=True),
        valid,
    )
    hit_probability = hit_probabilities(values.density)
    logits = None if values.logits is None else composite(hit_probability, values.logits)
    return Rendering(
        None if density_only else composite(hit_probability, values.color),
        None if density_only else logits,
        (hit_probability * depths).sum(-1),
        hit_probability,
        depths,
        stage.scores(valid.sum(0)),
    )
