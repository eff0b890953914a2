"""The plain pass, rewritten so that less is computed and moved; the results are the same up to rounding.

What is exact about it:
- the first layer of `base_fc` sees statistics over the views, the same for all views: once per sample, not per view;
- `prob_embed` ends linear and is only read by first layers: folded into them;
- both feature maps are read at the same places: one gather of rows, channels last;
- the four decoders of a ray distribution share one product for their first layers and one for their last;
- the class layer is linear: applied to the ray's weighted sum, after the sums over views and samples.

Tensors of views and samples are rows (V * N, C), views outermost, N = R * S. Geometry, softmax, sums and products
along the ray are float32 under autocast too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from network.attention import HEAD_WIDTH, HEADS, SelfAttention
from network.compositing import composite, hit_probabilities
from network.cranet import INVALID_LOGIT, CRANet, weighted_mean_and_variance
from network.dist_decoder import MIN_VAR, DistDecoder
from network.geometry import directions_to_cameras, project, to_inverse_depth
from network.rendering import FEATURES, Encoding, Rays, Rendering, Stage
from network.sampling import interval_halves, inverse_depth_intervals

try:
    from network.kernels import attention as kernels
except ImportError:  # no Triton here
    kernels = None

# base_fc's inputs: what is the same for all views, then the view's own, then prob_embed's
STATISTICS, OWN = 140, 35


def render_pass(
    stage: Stage, encoding: Encoding, rays: Rays, depths: torch.Tensor, density_only: bool = False
) -> Rendering:
    """Like `plain.render_pass`, which it equals."""
    return shade(stage, look(encoding, rays, depths), rays, depths, density_only)


def fused_pass() -> Callable[..., Rendering]:
    """`render_pass` with its kernels fused.

    In two parts: one compiler's kernel would not keep which views see a sample but find it again, with other rounding,
    for their number as for themselves. At the border of an image the two differ once in thirty million times, and what
    one view sees is then divided by no view.
    """
    fused_look, fused_shade = torch.compile(look, dynamic=False), torch.compile(shade, dynamic=False)

    def render_pass(stage, encoding, rays, depths, density_only=False):
        return fused_shade(stage, fused_look(encoding, rays, depths), rays, depths, density_only)

    return render_pass


def shade(stage: Stage, sight: Sight, rays: Rays, depths: torch.Tensor, density_only: bool) -> Rendering:
    """Renders rays from what the views see of their samples."""
    impl = stage.agg_net.agg_impl
    image_features, ray_features = sight.features.split(FEATURES, -1)
    embedding = _embed(stage, ray_features, sight, depths, rays)
    latent = _fuse_views(impl, sight, image_features, embedding)
    refined, visibility = _refine_visibility(impl, latent, sight)
    geometry = _ray_geometry(impl, refined, visibility, sight, depths.shape)
    hidden = F.elu(impl.out_geometry_fc[0](geometry))
    density = wide(impl.out_geometry_fc[2:](hidden)[..., 0])
    hit_probability = hit_probabilities(density.masked_fill(~sight.valid.any(0).view(depths.shape), 0))

    color = logits = None
    if not density_only:
        blending = _blending_weights(impl, refined, visibility, sight)
        color = composite(hit_probability, (blending * sight.color).sum(0).unflatten(0, depths.shape))
        if impl.with_logits:
            logits = _logits(impl, latent, geometry, hidden, blending, sight, hit_probability)
    return Rendering(
        color,
        logits,
        (hit_probability * depths).sum(-1),
        hit_probability,
        depths,
        stage.scores(sight.valid.sum(0).view(depths.shape)),
    )


def missing(x: torch.Tensor, width: int) -> int:
    """How many zeros make a width a multiple of 8 on a GPU: matrix units are slow on anything else."""
    return -width % 8 if x.is_cuda else 0


def joined(*parts: torch.Tensor) -> torch.Tensor:
    """Parts side by side, with the zeros that are `missing`."""
    zeros = missing(parts[0], sum(part.shape[-1] for part in parts))
    padding = [torch.zeros_like(parts[0][..., :1]).expand(*parts[0].shape[:-1], zeros)] if zeros else []
    return torch.cat([*parts, *padding], -1)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """A linear layer of what is `joined`; its outputs too are followed by the zeros that are `missing`."""
    rows, columns = weight.shape
    zeros = missing(x, rows)
    weight = F.pad(weight, (0, x.shape[-1] - columns, 0, zeros))
    return F.linear(x, weight, None if bias is None else F.pad(bias, (0, zeros)))


def wide(x: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


class Sight(NamedTuple):
    """What V views see of N samples: valid (V, N) bool; color (V, N, 3), features (V, N, 64), depth in that view (V, N),
    direction (V, N, 4); depth_range (V, 2)."""

    valid: torch.Tensor
    color: torch.Tensor
    features: torch.Tensor
    depth: torch.Tensor
    direction: torch.Tensor
    depth_range: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """`valid` as 0 and 1, (V, N, 1)."""
        return self.valid[..., None].to(self.color.dtype)

    @property
    def uniform(self) -> torch.Tensor:
        """The same weight for all views that see a sample, (V, N, 1)."""
        mask = self.mask
        return mask / (mask.sum(0) + 1e-8)


def look(encoding: Encoding, rays: Rays, depths: torch.Tensor) -> Sight:
    """Where samples at depths (R, S) fall in the views, and what is there; N = R * S."""
    cameras, size = encoding.cameras, encoding.cameras.size
    with torch.autocast(depths.device.type, enabled=False):
        points = rays.points(depths)
        projection = project(points, cameras)
        valid = encoding.seen(projection)
        mask = valid[..., None].to(points.dtype)
        to_view = directions_to_cameras(points, cameras)
        to_query = -rays.directions / rays.directions.norm(dim=-1, keepdim=True)
        to_query = to_query[:, None].expand(*depths.shape, 3).reshape(-1, 3)
        direction = torch.cat([to_view - to_query, (to_view * to_query).sum(-1, keepdim=True)], -1)
        color = read_rows(encoding.images.permute(0, 2, 3, 1), projection.pixels, mask, size, align_corners=True)
        features = read_rows(encoding.features, projection.pixels, mask, size, align_corners=False)
    return Sight(valid, color, features, projection.depth, direction, cameras.depth_range)


def read_rows(
    maps: torch.Tensor, pixels: torch.Tensor, mask: torch.Tensor, image_size: tuple[int, int], align_corners: bool
) -> torch.Tensor:
    """`read_map` of maps with channels last (V, H, W, C), times mask (V, N, 1): (V, N, C)."""
    count, height, width, channels = maps.shape
    index, weights = bilinear_corners((height, width), pixels, image_size, align_corners)
    index = index + (torch.arange(count, device=maps.device) * (height * width))[:, None, None]
    weights = (weights * mask).to(maps.dtype)
    index, weights, entries = index.view(-1, 4), weights.view(-1, 4), maps.reshape(-1, channels)
    if maps.is_cuda:  # compiled to one kernel; on a CPU it would be ten
        rows = sum(entries[index[:, i]] * weights[:, i : i + 1] for i in range(4))
    else:
        rows = F.embedding_bag(index, entries, mode="sum", per_sample_weights=weights)
    return rows.view(count, -1, channels)


def bilinear_corners(
    map_size: tuple[int, int], pixels: torch.Tensor, image_size: tuple[int, int], align_corners: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which four entries of a map (H * W) a pixel (V, N, 2) lies between, and their weights: (V, N, 4) each."""
    (height, width), (image_height, image_width) = map_size, image_size
    # align_corners=False maps -1 and 1 to the outer borders of the outer pixels, True to their centres
    spread = 0 if align_corners else 1
    x = pixels[..., 0] * ((width - 1 + spread) / (image_width - 1)) - spread / 2
    y = pixels[..., 1] * ((height - 1 + spread) / (image_height - 1)) - spread / 2
    x = x.nan_to_num().clamp(0, width - 1)
    y = y.nan_to_num().clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    right_part, low_part = x - left, y - top
    left, top = left.long(), top.long()
    right, low = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    index = torch.stack([top * width + left, top * width + right, low * width + left, low * width + right], -1)
    weights = [
        (1 - low_part) * (1 - right_part),
        (1 - low_part) * right_part,
        low_part * (1 - right_part),
        low_part * right_part,
    ]
    return index, torch.stack(weights, -1)


def _embed(stage: Stage, ray_features: torch.Tensor, sight: Sight, depths: torch.Tensor, rays: Rays) -> torch.Tensor:
    """What the layers behind `prob_embed` take of it: neuray_fc's 8 and base_fc's 64 channels, (V, N, 72)."""
    intervals = inverse_depth_intervals(depths, rays.depth_range)
    before, after = (half.flatten() for half in interval_halves(intervals))
    inverse_depth = to_inverse_depth(sight.depth, sight.depth_range)
    low, high = mixture_cdf(stage.dist_decoder, ray_features, inverse_depth - before, inverse_depth + after)
    mask = sight.mask[..., 0]
    probabilities = torch.stack([2 * ((high - low) * mask - 0.5), 2 * ((1 - low) * mask - 0.5)], -1)
    first, _, last = stage.agg_net.prob_embed
    inputs = joined(ray_features, probabilities.to(ray_features.dtype))
    hidden = F.relu(linear(inputs, first.weight, first.bias))
    weight, bias = folded_embedding(stage.agg_net.agg_impl, last)
    return F.linear(hidden, weight, bias)


def folded_embedding(impl: CRANet, last: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """`prob_embed`'s last layer and what reads it as one layer: weight (72, 32), bias (72,)."""
    readers = torch.cat([impl.neuray_fc[0].weight, impl.base_fc[0].weight[:, STATISTICS + OWN :]])
    biases = torch.cat([impl.neuray_fc[0].bias, impl.base_fc[0].bias])
    with torch.autocast(readers.device.type, enabled=False):
        return readers @ last.weight, readers @ last.bias + biases


def mixture_cdf(decoder: DistDecoder, ray_features: torch.Tensor, *positions: torch.Tensor) -> list[torch.Tensor]:
    """The mixture's cumulative distribution, times how much is visible at all, at positions (V, N) each."""
    networks = [decoder.mean_decoder, decoder.var_decoder, decoder.aw_decoder]
    networks += [] if decoder.vis_decoder is None else [decoder.vis_decoder]
    # The first layers as one, and the last. Batched products of the others would be slow in the backward pass.
    first = [torch.cat([getattr(network[0], part) for network in networks]) for part in ("weight", "bias")]
    rows = F.elu(F.linear(ray_features, *first)).chunk(len(networks), -1)
    rows = torch.cat([F.elu(network[2](x)) for x, network in zip(rows, networks, strict=True)], -1)
    last = torch.block_diag(*[network[4].weight for network in networks])
    values = wide(linear(rows, last, torch.cat([network[4].bias for network in networks])))
    means, vars_ = F.softplus(values[..., :2]), F.softplus(values[..., 2:4]) + MIN_VAR
    weight, scale = torch.sigmoid(values[..., 4]), 1
    if decoder.vis_decoder is not None:
        scale = torch.sigmoid(values[..., 5])

    def cdf(position: torch.Tensor) -> torch.Tensor:
        # 0.5 + 0.5 tanh(x) is sigmoid(2 x)
        first, second = torch.sigmoid(2 * (position[..., None] - means) * vars_).unbind(-1)
        return (second + weight * (first - second)) * scale

    return [cdf(position) for position in positions]


def _fuse_views(impl: CRANet, sight: Sight, image_features: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Per view, what it sees there next to what all see: (V, N, 32)."""
    for_trust, for_base = embedding.split([8, 64], -1)
    x = joined(sight.color.to(image_features.dtype), image_features)
    first, _, last, _ = impl.ray_dir_fc
    direction = F.elu(linear(joined(sight.direction), first.weight, first.bias))
    x = x + F.elu(linear(direction, last.weight, last.bias))  # 35 channels, and zeros

    last = impl.neuray_fc[2]
    trusted = torch.sigmoid(linear(F.elu(for_trust), last.weight, last.bias)[..., :1]) * sight.uniform
    statistics = [*weighted_mean_and_variance(x, trusted), *weighted_mean_and_variance(x, sight.uniform)]
    first, _, last, _ = impl.base_fc
    of_all, of_view = first.weight[:, :STATISTICS], first.weight[:, STATISTICS : STATISTICS + OWN]
    of_all = F.pad(of_all.unflatten(1, (-1, OWN)), (0, x.shape[-1] - OWN)).flatten(1)
    shared = F.linear(torch.cat(statistics, -1), of_all)
    return F.elu(last(F.elu(linear(x, of_view) + for_base + shared)))


def _refine_visibility(impl: CRANet, latent: torch.Tensor, sight: Sight) -> tuple[torch.Tensor, torch.Tensor]:
    """The latent again, with how visible the sample is in each view: (V, N, 32) and (V, N, 1)."""
    first, _, last, _ = impl.vis_fc
    values = F.elu(linear(F.elu(first(latent * sight.uniform)), last.weight, last.bias))
    refined = latent + values[..., :32]
    visibility = torch.sigmoid(values[..., 32:33]) * sight.mask
    first, _, last, _ = impl.vis_fc2
    values = linear(F.elu(first(refined * visibility)), last.weight, last.bias)
    return refined, torch.sigmoid(values[..., :1]) * sight.mask


def _ray_geometry(impl: CRANet, refined, visibility, sight: Sight, rays_and_samples: torch.Size) -> torch.Tensor:
    """Geometry of each sample after attention along its ray: (R, S, 16)."""
    weights = visibility / (visibility.sum(0) + 1e-8)
    mean, variance = weighted_mean_and_variance(refined, weights)
    first, *others = impl.geometry_fc
    geometry = linear(joined(mean, variance, weights.mean(0)), first.weight, first.bias)
    geometry = torch.nn.Sequential(*others)(geometry).unflatten(0, rays_and_samples)
    several = (sight.mask.sum(0) > 1).view(rays_and_samples)
    return attend(impl.ray_attention, geometry + impl.geometry_encoding.to(geometry.dtype), several, along=True)


def _blending_weights(impl: CRANet, refined, visibility, sight: Sight) -> torch.Tensor:
    """Softmax over the views, zero where a view does not see the sample: (V, N, 1)."""
    x = joined(refined, visibility.to(refined.dtype), sight.direction.to(refined.dtype))
    first, _, second, _, last = impl.rgb_fc
    x = F.elu(second(F.elu(linear(x, first.weight, first.bias))))
    scores = wide(linear(x, last.weight, last.bias)[..., :1])
    return torch.softmax(scores.masked_fill(~sight.valid[..., None], INVALID_LOGIT), 0)


def _logits(impl: CRANet, latent, geometry, hidden, blending, sight: Sight, hit_probability) -> torch.Tensor:
    """Class logits of each ray: (R, K+1)."""
    semantic = latent
    if impl.sem_rtrans_new is not None:
        steps = [_attend_along_rays, _attend_across_views]
        for step in reversed(steps) if impl.views_first else steps:
            semantic = step(impl, semantic, sight, hit_probability.shape)
    seen = (blending * semantic).sum(0).unflatten(0, hit_probability.shape)
    of_sample = torch.cat([impl.semantic_fc1_new(geometry), hidden, seen], -1)
    head = impl.semantic_fc2_new
    total = hit_probability.sum(-1, keepdim=True)
    return wide(F.linear(composite(hit_probability, of_sample), head.weight)) + total * head.bias


def _attend_along_rays(impl: CRANet, semantic: torch.Tensor, sight: Sight, rays_and_samples) -> torch.Tensor:
    """Intra-view radial attention over S; a sample that at most one view sees attends uniformly."""
    x = semantic.unflatten(1, rays_and_samples) + impl.semantic_encoding.to(semantic.dtype)
    several = (sight.mask.sum(0) > 1).view(rays_and_samples)
    return attend(impl.sem_rtrans_new, x.flatten(0, 1), several, along=True).view(semantic.shape)


def _attend_across_views(impl: CRANet, semantic: torch.Tensor, sight: Sight, _rays_and_samples) -> torch.Tensor:
    """Cross-view sparse attention over V; a view that does not see the sample attends uniformly."""
    return attend(impl.point_attention_new, semantic, sight.mask[..., 0], along=False)


def attend(attention: SelfAttention, x: torch.Tensor, query_mask: torch.Tensor, along: bool) -> torch.Tensor:
    """`SelfAttention` over the second axis of x (A, B, C), or else over the first: (A, B, C).

    query_mask: (A', B) of 0 and 1, A a multiple of A'; one product makes queries, keys and values.
    """
    weight = torch.cat([attention.w_qs.weight, attention.w_ks.weight, attention.w_vs.weight])
    channels_first = not along and not x.is_cuda  # in memory, as `_across` wants them
    qkv = (weight @ x.flatten(0, 1).T).T.view(*x.shape[:2], -1) if channels_first else F.linear(x, weight)
    attended = short_attention(qkv, query_mask.to(x.dtype), along)
    return attention.layer_norm(attention.fc(attended) + x).to(x.dtype)  # under autocast it would be float32


def short_attention(qkv: torch.Tensor, query_mask: torch.Tensor, along: bool) -> torch.Tensor:
    """Attention with heads of width 4; qkv: (A, B, 48), queries, keys and values; the rest like `attend`. (A, B, 16)

    Without our kernels it is written out: torch's own is up to three times slower for such heads on a CPU.
    """
    length = qkv.shape[1] if along else qkv.shape[0]
    if kernels is not None and qkv.is_cuda and qkv.dtype != torch.float64 and length <= kernels.LONGEST:
        return kernels.attention(qkv, query_mask, along)
    query, key, value = qkv.split(HEADS * HEAD_WIDTH, -1)
    query = (query.unflatten(0, (-1, len(query_mask))) * (query_mask * HEAD_WIDTH**-0.5)[..., None]).flatten(0, 1)
    return (_along if along else _across)(query, key, value)


def _along(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention over the second axis, (A, B, 16) each."""
    query, key, value = (x.unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(1, 2) for x in (query, key, value))
    return (torch.softmax(query @ key.transpose(-1, -2), -1) @ value).transpose(1, 2).flatten(-2)


def _across(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention over the first axis, (A, B, 16) each, for all B side by side: there are few A."""
    query, key, value = (x.permute(2, 0, 1).unflatten(0, (HEADS, HEAD_WIDTH)) for x in (query, key, value))
    weights = torch.softmax((query[:, :, :, None] * key[:, :, None]).sum(1), 2)  # (HEADS, A, A, B)
    return (weights[:, None] * value[:, :, None]).sum(3).flatten(0, 1).permute(1, 2, 0)
