"""What V views make of each sample, in one kernel: read the maps, all networks of a view, statistics, blending.

Twin: `network.rewritten`, from `shade` to `_blending_weights`. A program takes M samples with all their views as
M * VIEWS rows (VIEWS is V rounded up to a power of 2); only what attention needs leaves it. Sums over the views of a
sample are products with a matrix of 0 and 1, since shuffling numbers between threads would take a third of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from network.kernels import packing as layers
from network.kernels.arithmetic import choose, dot, elu, exp, reciprocal, sigmoid, softplus


@triton.jit
def _vector(vectors, LAYER: tl.constexpr, N: tl.constexpr):
    return tl.load(vectors + LAYER * layers.WIDE + tl.arange(0, N))[None, :]


@triton.jit
def _product(x, matrices, LAYER: tl.constexpr, N: tl.constexpr, total):
    """total (rows, N) plus x (rows, K) times the matrix of a layer, float32."""
    K: tl.constexpr = x.shape[1]
    at = matrices + LAYER * layers.SLOT + tl.arange(0, K)[:, None] * N + tl.arange(0, N)[None, :]
    matrix = tl.load(at)
    lacking = matrix
    if x.dtype == tl.float32:
        lacking = tl.load(at + layers.MATRICES * layers.SLOT)
    return dot(x, matrix, total, lacking)


@triton.jit
def _times(x, matrices, LAYER: tl.constexpr, N: tl.constexpr):
    return _product(x, matrices, LAYER, N, tl.zeros([x.shape[0], N], tl.float32))


@triton.jit
def _layer(x, matrices, vectors, LAYER: tl.constexpr, N: tl.constexpr):
    """A layer without its ELU: (rows, K) -> (rows, N), float32."""
    return _times(x, matrices, LAYER, N) + _vector(vectors, LAYER, N).to(tl.float32)


@triton.jit
def _elu_layer(x, matrices, vectors, LAYER: tl.constexpr, N: tl.constexpr):
    return elu(_times(x, matrices, LAYER, N), _vector(vectors, LAYER, N))


@triton.jit
def _number(x, matrices, vectors, LAYER: tl.constexpr):
    """A layer with one output, which stands in the first of 16 columns of zeros: (rows, K) -> (rows,)."""
    return tl.sum(_layer(x, matrices, vectors, LAYER, 16), 1)


@triton.jit
def _sum_to_views(x, M: tl.constexpr, VIEWS: tl.constexpr):
    """Sum of x (M * VIEWS,) over the views, for every view."""
    total = tl.sum(tl.reshape(x, (M, VIEWS)), 1)
    return tl.reshape(tl.broadcast_to(tl.expand_dims(total, 1), (M, VIEWS)), (M * VIEWS,))


@triton.jit
def _read(entries, x, y, width, height, seen):
    """Bilinear values (rows, 32) of maps of 64 channels, channels last, in their type, at x and y within the map."""
    kind: tl.constexpr = entries.dtype.element_ty
    left, top = x.to(tl.int32), y.to(tl.int32)
    right_part, low_part = x - left, y - top
    to_right, to_low = tl.where(left + 1 < width, 64, 0), tl.where(top + 1 < height, 64 * width, 0)
    corner = entries + ((top * width + left) * 64)[:, None]
    to_right, to_low, here = to_right[:, None], to_low[:, None], seen[:, None]
    a, b = tl.load(corner, here, 0.0), tl.load(corner + to_right, here, 0.0)
    c, d = tl.load(corner + to_low, here, 0.0), tl.load(corner + to_low + to_right, here, 0.0)
    upper = a * ((1 - right_part) * (1 - low_part)).to(kind)[:, None]
    upper += b * (right_part * (1 - low_part)).to(kind)[:, None]
    lower = c * ((1 - right_part) * low_part).to(kind)[:, None] + d * (right_part * low_part).to(kind)[:, None]
    return upper + lower


@triton.jit
def _decode(x, matrices, vectors, DECODER: tl.constexpr):
    """What one of the four decoders says before its last activation: (rows, 16), of which four columns count."""
    x = _elu_layer(x, matrices, vectors, DECODER, 32)
    x = _elu_layer(x, matrices, vectors, DECODER + 1, 32)
    return _layer(x, matrices, vectors, DECODER + 2, 16)


@triton.jit
def _hit_and_visibility(ray_features, near, far, matrices, vectors, mask, USE_VIS: tl.constexpr):
    """How likely a view's ray ends in the sample, and gets so far; from -1 to 1 each: `rewritten._embed`.

    near, far: the sample's ends, as that view's normalised inverse depths. The four columns that count: the first and the
    second component at the near end, then at the far one.
    """
    column = tl.arange(0, 16)[None, :]
    position = tl.where(column < 2, near[:, None], far[:, None])
    mean = softplus(_decode(ray_features, matrices, vectors, layers.MEAN_DECODER))
    var = softplus(_decode(ray_features, matrices, vectors, layers.VAR_DECODER)) + 0.05
    # a product of three sigmoids: the component's weight, its distribution, and how much is visible at all
    denominator = 1 + exp(-2 * (position - mean) * var)
    denominator *= 1 + exp(-_decode(ray_features, matrices, vectors, layers.WEIGHT_DECODER))
    if USE_VIS:
        denominator *= 1 + exp(-_decode(ray_features, matrices, vectors, layers.VISIBILITY_DECODER))
    share = reciprocal(denominator)
    share = tl.where(column < 4, share, 0.0)
    low = tl.sum(tl.where(column < 2, share, 0.0), 1)
    hit = tl.sum(tl.where(column < 2, -share, share), 1)
    return 2 * (hit * mask - 0.5), 2 * ((1 - low) * mask - 0.5)


@triton.jit
def _add_statistics(x, weight, group, total, matrices, MEAN: tl.constexpr, VARIANCE: tl.constexpr):
    """total (rows, 64) plus what base_fc's first layer makes of x's mean and variance over the views by `weight`."""
    weight = weight.to(x.dtype)[:, None]
    mean = choose(group, x * weight).to(x.dtype)
    difference = x - mean
    total = _product(mean, matrices, MEAN, 64, total)
    variance = choose(group, difference * difference * weight).to(x.dtype)
    return _product(variance, matrices, VARIANCE, 64, total)


@triton.jit
def _refine(latent, uniform, mask, matrices, vectors):
    """vis_fc and vis_fc2: the latent again, and how visible the sample is in each view."""
    x = _elu_layer(latent * uniform.to(latent.dtype)[:, None], matrices, vectors, layers.VIS_FIRST, 32)
    value = _number(x, matrices, vectors, layers.VIS_NUMBER)
    visibility = sigmoid(tl.maximum(value, exp(tl.minimum(value, 0.0)) - 1)) * mask
    refined = latent + _elu_layer(x, matrices, vectors, layers.VIS_RESIDUAL, 32)
    x = _elu_layer(refined * visibility.to(latent.dtype)[:, None], matrices, vectors, layers.VIS2_FIRST, 32)
    return refined, sigmoid(_number(x, matrices, vectors, layers.VIS2_LAST)) * mask


@triton.jit
def _geometry(refined, visibility, group, views, matrices, vectors, M: tl.constexpr, VIEWS: tl.constexpr):
    """geometry_fc of the statistics by visibility: (rows, 16), the same for all views."""
    share = visibility * reciprocal(_sum_to_views(visibility, M, VIEWS) + 1e-8)
    x = (_sum_to_views(share, M, VIEWS) / views)[:, None] * _vector(vectors, layers.GEOMETRY_SHARE, 64)
    x = _add_statistics(
        refined, share, group, x.to(tl.float32), matrices, layers.GEOMETRY_MEAN, layers.GEOMETRY_VARIANCE
    )
    x = elu(x, _vector(vectors, layers.GEOMETRY_MEAN, 64))
    return _elu_layer(x, matrices, vectors, layers.GEOMETRY_LAST, 16)


@triton.jit
def _blending(refined, visibility, sight, seen, inside, matrices, vectors, M: tl.constexpr, VIEWS: tl.constexpr):
    """rgb_fc and the softmax over the views: (M * VIEWS,). inside: rows that are a view, not what pads them."""
    kind: tl.constexpr = sight.dtype
    x = _product(sight, matrices, layers.RGB_DIRECTION, 16, _times(refined, matrices, layers.RGB_FIRST, 16))
    others = visibility.to(kind)[:, None] * _vector(vectors, layers.RGB_VISIBILITY, 16)
    x = elu(x, others + _vector(vectors, layers.RGB_FIRST, 16))
    x = _elu_layer(x, matrices, vectors, layers.RGB_SECOND, 16)
    score = _number(x, matrices, vectors, layers.RGB_LAST)
    score = tl.where(seen, score, -1e9)
    score = tl.where(inside, score, -3e38)
    score = tl.reshape(score, (M, VIEWS))
    powers = exp(score - tl.expand_dims(tl.max(score, 1), 1))
    return tl.reshape(powers / tl.expand_dims(tl.sum(powers, 1), 1), (M * VIEWS,))


@triton.jit
def _views_kernel(
    places, sights, maps, matrices, vectors,
    geometry_out, latent_out, blending_out, color_out,
    samples, views, map_height, map_width,
    M: tl.constexpr, VIEWS: tl.constexpr, USE_VIS: tl.constexpr, DENSITY_ONLY: tl.constexpr,
):  # fmt: skip
    ROWS: tl.constexpr = M * VIEWS
    kind: tl.constexpr = maps.dtype.element_ty
    row = tl.arange(0, ROWS)
    sample = tl.program_id(0) * M + row // VIEWS
    view = row % VIEWS
    there = (sample < samples) & (view < views)
    c32, c16 = tl.arange(0, 32)[None, :], tl.arange(0, 16)[None, :]
    group = (row[:, None] // VIEWS == row[None, :] // VIEWS).to(tl.float16)

    at = view.to(tl.int64) * samples + sample
    rows = samples.to(tl.int64) * views
    x, y = tl.load(places + at, there, -1.0), tl.load(places + rows + at, there, 0.0)
    near, far = tl.load(places + 2 * rows + at, there, 0.0), tl.load(places + 3 * rows + at, there, 0.0)
    seen = x >= 0
    mask = tl.where(seen, 1.0, 0.0)
    uniform = tl.load(sights + at * 8 + 7, there, 0.0)
    sight = tl.load(sights + at[:, None] * 8 + c16, there[:, None] & (c16 < 8), 0.0)

    # what a view knows of its ray there
    entries = maps + (view * map_height * map_width * 64)[:, None] + c32
    ray_features = _read(entries + 32, x, y, map_width, map_height, seen)
    hit, visible = _hit_and_visibility(ray_features, near, far, matrices, vectors, mask, USE_VIS)

    # prob_embed, up to what reads it
    others = hit.to(kind)[:, None] * _vector(vectors, layers.EMBED_HIT, 32) + _vector(vectors, layers.EMBED, 32)
    others += visible.to(kind)[:, None] * _vector(vectors, layers.EMBED_VISIBLE, 32)
    embedding = tl.maximum(_times(ray_features, matrices, layers.EMBED, 32).to(kind) + others, 0.0)
    z = _elu_layer(embedding, matrices, vectors, layers.TRUST_FIRST, 16)
    trusted = sigmoid(_number(z, matrices, vectors, layers.TRUST_LAST)) * uniform

    # what it shows there, and ray_dir_fc
    z = _elu_layer(sight, matrices, vectors, layers.DIRECTION, 16)
    is_color = ((c16 >= layers.COLOR) & (c16 < layers.COLOR + 3)).to(kind)
    color = sight * is_color + _elu_layer(z, matrices, vectors, layers.DIRECTION_COLOR, 16)
    own = _read(entries, x, y, map_width, map_height, seen)
    own += _elu_layer(z, matrices, vectors, layers.DIRECTION_FEATURES, 32)

    # base_fc: of the statistics over the views, and of what is the view's own
    z = tl.zeros([ROWS, 64], tl.float32)
    z = _add_statistics(color, trusted, group, z, matrices, layers.TRUSTED_COLOR, layers.TRUSTED_COLOR + 1)
    z = _add_statistics(own, trusted, group, z, matrices, layers.TRUSTED_FEATURES, layers.TRUSTED_FEATURES + 1)
    z = _add_statistics(color, uniform, group, z, matrices, layers.UNIFORM_COLOR, layers.UNIFORM_COLOR + 1)
    z = _add_statistics(own, uniform, group, z, matrices, layers.UNIFORM_FEATURES, layers.UNIFORM_FEATURES + 1)
    z = _product(own, matrices, layers.BASE_FEATURES, 64, _product(color, matrices, layers.BASE_COLOR, 64, z))
    z = elu(_product(embedding, matrices, layers.BASE_EMBED, 64, z), _vector(vectors, layers.BASE_EMBED, 64))
    latent = _elu_layer(z, matrices, vectors, layers.BASE_LAST, 32)
    refined, visibility = _refine(latent, uniform, mask, matrices, vectors)
    geometry = _geometry(refined, visibility, group, views, matrices, vectors, M, VIEWS)

    first = (there & (view == 0))[:, None]
    tl.store(geometry_out + sample[:, None] * 16 + c16, geometry.to(tl.float32), first)
    if not DENSITY_ONLY:
        tl.store(latent_out + at[:, None] * 32 + c32, latent, there[:, None])
        blending = _blending(refined, visibility, sight, seen, view < views, matrices, vectors, M, VIEWS)
        tl.store(blending_out + at, blending, there)
        blended = choose(group, sight * blending.to(kind)[:, None])
        column = c16 - layers.COLOR
        tl.store(color_out + sample[:, None] * 3 + column, blended, first & (column >= 0) & (column < 3))


@dataclass(frozen=True)
class ViewsOutput:
    """Of N samples and V views: geometry (N, 16); latent (V, N, 32), blending (V, N) and color (N, 3) are None where
    only densities were asked for."""

    geometry: torch.Tensor
    latent: torch.Tensor | None
    blending: torch.Tensor | None
    color: torch.Tensor | None
