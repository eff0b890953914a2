"""Per-ray kernel: attention along the ray, density, hit probabilities, and the rendered outputs.

Twin: `network.cranet.CRANet`, from the attention in `_ray_geometry` to the sums over the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from network.attention import first_places
from network.cranet import CRANet
from network.engine.attention import Layer, attend
from network.engine.packing import linear_layers
from network.ops.arithmetic import elu, exp, softplus
from network.ops.attention import ROWS, find_rows, product
from network.ops.language import tl, triton
from network.stage import Stage


@triton.jit
def _sum_of_rays(x, RAYS: tl.constexpr, PADDED: tl.constexpr):
    """Sum of rows (RAYS * PADDED, C) over the samples of each ray: (RAYS, C)."""
    return tl.sum(tl.reshape(x, (RAYS, PADDED, x.shape[1])), 1)


@triton.jit
def _hits(density, there, RAYS: tl.constexpr, PADDED: tl.constexpr):
    """Compute `compositing.hit_probabilities` of the samples of each ray."""
    alpha = tl.where(there, 1 - exp(-tl.maximum(density, 0.0)), 0.0)
    passing = tl.log(1 - alpha + 1e-10)
    so_far = tl.reshape(tl.cumsum(tl.reshape(passing, (RAYS, PADDED)), 1), (RAYS * PADDED,))
    return alpha * exp(so_far - passing)


@triton.jit
def _rays_kernel(
    geometry, encoding, valid, depths, color, matrices, norm, head,
    hit_out, several_out, depth_out, scored_out, color_out, geometry_out, hidden_out, total_out,
    rays, length, views, scored_views, scored_samples, eps,
    PADDED: tl.constexpr, M: tl.constexpr, DENSITY_ONLY: tl.constexpr, PRECISION: tl.constexpr, WHOLE: tl.constexpr,
    SOFTPLUS: tl.constexpr, OPAQUE: tl.constexpr,
):  # fmt: skip
    RAYS: tl.constexpr = M // PADDED
    group, place, at, _, _, there = find_rows(tl.program_id(0), rays, length, length, True, PADDED, M)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    is_ray = ray < rays
    column = tl.arange(0, 16)

    seeing = tl.zeros([M], tl.int32)
    of_view = valid + at
    for _ in range(views):
        seeing += tl.load(of_view, there, 0).to(tl.int32)
        of_view += rays * length
    several = seeing > 1
    tile = tl.load(geometry + at[:, None] * 16 + column[None, :], there[:, None], 0.0)
    tile += tl.load(encoding + place[:, None] * 16 + column[None, :], there[:, None], 0.0)
    tile = attend(tile, tl.where(several, 1.0, 0.0), group, there, matrices, norm, eps, PRECISION, WHOLE)

    hidden = product(tile, tl.load(head + column[:, None] * 16 + column[None, :]), PRECISION)
    hidden = elu(hidden, tl.load(head + 256 + column)[None, :])
    density = tl.sum(hidden * tl.load(head + 272 + column)[None, :], 1) + tl.load(head + 288)
    density = tl.where(seeing > 0, softplus(density) if SOFTPLUS else density, 0.0)  # `_hits` has the relu
    hit = _hits(density, there, RAYS, PADDED)
    if OPAQUE:  # `compositing.end_at_last`
        missing = 1 - tl.sum(tl.reshape(hit, (RAYS, PADDED)), 1)
        missing = tl.broadcast_to(tl.expand_dims(tl.maximum(missing, 0.0), 1), (RAYS, PADDED))
        hit += tl.where(there & (place == length - 1), tl.reshape(missing, (RAYS * PADDED,)), 0.0)
    z = tl.load(depths + at, there, 0.0)
    scores = tl.where((seeing > scored_views) & there, 1, 0)
    tl.store(hit_out + at, hit, there)
    tl.store(several_out + at, several.to(tl.int8), there)
    tl.store(depth_out + ray, tl.sum(tl.reshape(hit * z, (RAYS, PADDED)), 1), is_ray)
    is_scored = tl.sum(tl.reshape(scores, (RAYS, PADDED)), 1) > scored_samples
    tl.store(scored_out + ray, is_scored.to(tl.int8), is_ray)
    if not DENSITY_ONLY:
        is_color = (column < 3)[None, :]
        shade = tl.load(color + at[:, None] * 3 + column[None, :], there[:, None] & is_color, 0.0)
        weight, of_ray = hit[:, None], ray[:, None] * 16 + column[None, :]
        shade = _sum_of_rays(shade * weight, RAYS, PADDED)
        tl.store(color_out + ray[:, None] * 3 + column[None, :], shade, is_ray[:, None] & is_color)
        tl.store(geometry_out + of_ray, _sum_of_rays(tile * weight, RAYS, PADDED), is_ray[:, None])
        tl.store(hidden_out + of_ray, _sum_of_rays(hidden * weight, RAYS, PADDED), is_ray[:, None])
        tl.store(total_out + ray, tl.sum(tl.reshape(hit, (RAYS, PADDED)), 1), is_ray)


@dataclass(frozen=True)
class RaysOutput:
    """Of R rays: hit (R, S), several (R, S) int8 (more than one view sees the sample), depth (R,), scored (R,) bool; and sums
    over the samples by hit: color (R, 3), geometry (R, 16), hidden (R, 16), total (R, 1), which are None where only
    densities were asked for."""

    hit: torch.Tensor
    several: torch.Tensor
    depth: torch.Tensor
    scored: torch.Tensor
    color: torch.Tensor | None
    geometry: torch.Tensor | None
    hidden: torch.Tensor | None
    total: torch.Tensor | None


def pack_head(impl: CRANet) -> torch.Tensor:
    """Pack `out_geometry_fc` as the kernel reads it: 256 weights, 16 biases, 16 weights, a bias."""
    first, last = linear_layers(impl.out_geometry_fc)
    parts = first.weight.T, first.bias, last.weight, last.bias
    return torch.cat([part.detach().float().reshape(-1) for part in parts])


def end_rays(
    stage: Stage, attention: Layer, head: torch.Tensor, geometry: torch.Tensor, valid: torch.Tensor,
    depths: torch.Tensor, color: torch.Tensor | None,
) -> RaysOutput:  # fmt: skip
    """Run the kernel on geometry (N, 16) and color (N, 3) of the samples at depths (R, S), N = R * S, which views see
    where valid (V, N) is 1.

    Without color only densities are asked for.
    """
    rays, length = depths.shape
    impl = stage.agg_net.agg_impl
    padded = triton.next_power_of_2(length)
    rows = max(ROWS, padded)
    new = depths.new_empty
    sums = [None] * 4 if color is None else [new(rays, columns) for columns in (3, 16, 16, 1)]
    output = RaysOutput(
        new(rays, length), new(rays, length, dtype=torch.int8), new(rays), new(rays, dtype=torch.bool), *sums
    )
    _rays_kernel[(triton.cdiv(rays, rows // padded),)](
        geometry, first_places(impl.geometry_places, length), valid, depths.contiguous(),
        geometry if color is None else color, attention.matrices, attention.norm, head,
        output.hit, output.several, output.depth, output.scored.view(torch.int8),
        *[output.hit if out is None else out for out in sums],
        rays, length, len(valid), stage.scored_views, stage.scored_samples, attention.eps,
        PADDED=padded, M=rows, DENSITY_ONLY=color is None, PRECISION=attention.precision, WHOLE=length == rows,
        SOFTPLUS=isinstance(impl.out_geometry_fc[-1], nn.Softplus), OPAQUE=stage.opaque,
    )  # fmt: skip
    return output
