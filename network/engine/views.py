"""Per-view kernel: reading the maps, all networks of a view, statistics over the views, and blending.

Twin: `network.stage.Stage.shade` up to `CRANet._blending_weights`. A program takes M samples with all their views as
M * VIEWS rows (VIEWS is V rounded up to a power of 2); only what attention needs leaves it. Sums over the views of a
sample are products with a matrix of 0 and 1, since shuffling numbers between threads would take a third of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from network.engine import packing as layers
from network.ops.arithmetic import choose, dot, elu, exp, reciprocal, sigmoid, softplus
from network.ops.language import tl, triton


@triton.jit
def _vector(vectors, LAYER: tl.constexpr, N: tl.constexpr):
    return tl.load(vectors + LAYER * layers.WIDE + tl.arange(0, N))[None, :]


@triton.jit
def _matrix(matrices, vectors, LAYER: tl.constexpr, K: tl.constexpr, N: tl.constexpr):
    """Load the matrix of a layer, (K, N), and what it lacks, where that counts.

    Functions load all of theirs before they use the first: so they wait for memory, and threads for each other, once.
    """
    at = matrices + LAYER * layers.SLOT + tl.arange(0, K)[:, None] * N + tl.arange(0, N)[None, :]
    matrix = tl.load(at)
    lacking = matrix
    if vectors.dtype.element_ty == tl.float32:
        lacking = tl.load(at + layers.MATRICES * layers.SLOT)
    return matrix, lacking


@triton.jit
def _product(x, matrix, total):
    """Return total (rows, N) plus x (rows, K) times a matrix, float32."""
    return dot(x, matrix[0], total, matrix[1])


@triton.jit
def _times(x, matrix):
    return _product(x, matrix, tl.zeros([x.shape[0], matrix[0].shape[1]], tl.float32))


@triton.jit
def _layer(x, matrix, vectors, LAYER: tl.constexpr):
    """Apply a layer without its ELU: (rows, K) -> (rows, N), float32."""
    return _times(x, matrix) + _vector(vectors, LAYER, matrix[0].shape[1]).to(tl.float32)


@triton.jit
def _elu_layer(x, matrix, vectors, LAYER: tl.constexpr):
    return elu(_times(x, matrix), _vector(vectors, LAYER, matrix[0].shape[1]))


@triton.jit
def _number(x, matrix, vectors, LAYER: tl.constexpr):
    """Apply a layer with one output, which stands in the first of 16 columns of zeros: (rows, K) -> (rows,)."""
    return tl.sum(_layer(x, matrix, vectors, LAYER), 1)


@triton.jit
def _sum_to_views(x, M: tl.constexpr, VIEWS: tl.constexpr):
    """Sum of x (M * VIEWS,) over the views, for every view."""
    total = tl.sum(tl.reshape(x, (M, VIEWS)), 1)
    return tl.reshape(tl.broadcast_to(tl.expand_dims(total, 1), (M, VIEWS)), (M * VIEWS,))


@triton.jit
def _read(entries, x, y, width, height, seen):
    """Read bilinear values (rows, 32) of maps of 64 channels, channels last, in their type, at x and y within the map."""
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
def _decoder(matrices, vectors, DECODER: tl.constexpr):
    """Load the three matrices of one of the four decoders."""
    first = _matrix(matrices, vectors, DECODER, 32, 32)
    second = _matrix(matrices, vectors, DECODER + 1, 32, 32)
    return first, second, _matrix(matrices, vectors, DECODER + 2, 32, 16)


@triton.jit
def _decode(x, decoder, vectors, DECODER: tl.constexpr):
    """Return what a decoder says before its last activation: (rows, 16), of which four columns count."""
    x = _elu_layer(x, decoder[0], vectors, DECODER)
    x = _elu_layer(x, decoder[1], vectors, DECODER + 1)
    return _layer(x, decoder[2], vectors, DECODER + 2)


@triton.jit
def _hit_and_visibility(ray_features, near, far, matrices, vectors, mask, USE_VIS: tl.constexpr):
    """Return how likely a view's ray ends in the sample, and gets so far; from -1 to 1 each: `AggregateNet.forward`.

    near, far: the sample's ends, as that view's normalised inverse depths. The four columns that count: the first and the
    second component at the near end, then at the far one.
    """
    mean_decoder = _decoder(matrices, vectors, layers.MEAN_DECODER)
    var_decoder = _decoder(matrices, vectors, layers.VAR_DECODER)
    weight_decoder = _decoder(matrices, vectors, layers.WEIGHT_DECODER)
    visibility_decoder = weight_decoder
    if USE_VIS:
        visibility_decoder = _decoder(matrices, vectors, layers.VISIBILITY_DECODER)
    column = tl.arange(0, 16)[None, :]
    position = tl.where(column < 2, near[:, None], far[:, None])
    mean = softplus(_decode(ray_features, mean_decoder, vectors, layers.MEAN_DECODER))
    var = softplus(_decode(ray_features, var_decoder, vectors, layers.VAR_DECODER)) + 0.05
    # a product of three sigmoids: the component's weight, its distribution, and how much is visible at all
    denominator = 1 + exp(-2 * (position - mean) * var)
    denominator *= 1 + exp(-_decode(ray_features, weight_decoder, vectors, layers.WEIGHT_DECODER))
    if USE_VIS:
        denominator *= 1 + exp(-_decode(ray_features, visibility_decoder, vectors, layers.VISIBILITY_DECODER))
    share = reciprocal(denominator)
    share = tl.where(column < 4, share, 0.0)
    low = tl.sum(tl.where(column < 2, share, 0.0), 1)
    hit = tl.sum(tl.where(column < 2, -share, share), 1)
    return 2 * (hit * mask - 0.5), 2 * ((1 - low) * mask - 0.5)


@triton.jit
def _embed_and_trust(ray_features, hit, visible, matrices, vectors):
    """Apply prob_embed up to the layer that reads it, (rows, 32), and neuray_fc to that, (rows,)."""
    kind: tl.constexpr = ray_features.dtype
    embed = _matrix(matrices, vectors, layers.EMBED, 32, 32)
    trust_first = _matrix(matrices, vectors, layers.TRUST_FIRST, 32, 16)
    trust_last = _matrix(matrices, vectors, layers.TRUST_LAST, 16, 16)
    others = hit.to(kind)[:, None] * _vector(vectors, layers.EMBED_HIT, 32) + _vector(vectors, layers.EMBED, 32)
    others += visible.to(kind)[:, None] * _vector(vectors, layers.EMBED_VISIBLE, 32)
    embedding = _times(ray_features, embed).to(kind) + others
    embedding = tl.maximum(embedding, tl.zeros_like(embedding))  # a 0.0 would make it float32
    x = _elu_layer(embedding, trust_first, vectors, layers.TRUST_FIRST)
    return embedding, sigmoid(_number(x, trust_last, vectors, layers.TRUST_LAST))


@triton.jit
def _add_directions(sight, features, matrices, vectors):
    """Add ray_dir_fc to what a view shows: colour (rows, 16), three columns of it, and features (rows, 32)."""
    first = _matrix(matrices, vectors, layers.DIRECTION, 16, 16)
    to_color = _matrix(matrices, vectors, layers.DIRECTION_COLOR, 16, 16)
    to_features = _matrix(matrices, vectors, layers.DIRECTION_FEATURES, 16, 32)
    x = _elu_layer(sight, first, vectors, layers.DIRECTION)
    column = tl.arange(0, 16)[None, :]
    is_color = ((column >= layers.COLOR) & (column < layers.COLOR + 3)).to(sight.dtype)
    color = sight * is_color + _elu_layer(x, to_color, vectors, layers.DIRECTION_COLOR)
    return color, features + _elu_layer(x, to_features, vectors, layers.DIRECTION_FEATURES)


@triton.jit
def _statistics(x, weight, group, mean_matrix, variance_matrix, total):
    """Return total (rows, 64) plus what a layer makes of x's mean and variance over the views by `weight`."""
    weight = weight.to(x.dtype)[:, None]
    mean = choose(group, x * weight).to(x.dtype)
    difference = x - mean
    total = _product(mean, mean_matrix, total)
    variance = choose(group, difference * difference * weight).to(x.dtype)
    return _product(variance, variance_matrix, total)


@triton.jit
def _add_statistics(color, own, weight, group, matrices, vectors, COLOR, FEATURES, total):
    """Return total (rows, 64) plus base_fc's part of the statistics by one kind of weight."""
    color_mean = _matrix(matrices, vectors, COLOR, 16, 64)
    color_variance = _matrix(matrices, vectors, COLOR + 1, 16, 64)
    own_mean = _matrix(matrices, vectors, FEATURES, 32, 64)
    own_variance = _matrix(matrices, vectors, FEATURES + 1, 32, 64)
    total = _statistics(color, weight, group, color_mean, color_variance, total)
    return _statistics(own, weight, group, own_mean, own_variance, total)


@triton.jit
def _fuse(color, own, embedding, trusted, uniform, group, matrices, vectors):
    """Apply base_fc to the statistics over the views and of what is the view's own: (rows, 32)."""
    of_color = _matrix(matrices, vectors, layers.BASE_COLOR, 16, 64)
    of_own = _matrix(matrices, vectors, layers.BASE_FEATURES, 32, 64)
    of_embedding = _matrix(matrices, vectors, layers.BASE_EMBED, 32, 64)
    last = _matrix(matrices, vectors, layers.BASE_LAST, 64, 32)
    x = _product(embedding, of_embedding, _product(own, of_own, _times(color, of_color)))
    x = _add_statistics(color, own, trusted, group, matrices, vectors, layers.TRUSTED_COLOR, layers.TRUSTED_FEATURES, x)
    x = _add_statistics(color, own, uniform, group, matrices, vectors, layers.UNIFORM_COLOR, layers.UNIFORM_FEATURES, x)
    return _elu_layer(elu(x, _vector(vectors, layers.BASE_EMBED, 64)), last, vectors, layers.BASE_LAST)


@triton.jit
def _refine(latent, uniform, mask, matrices, vectors):
    """Apply vis_fc and vis_fc2: the latent again, and how visible the sample is in each view."""
    first = _matrix(matrices, vectors, layers.VIS_FIRST, 32, 32)
    number = _matrix(matrices, vectors, layers.VIS_NUMBER, 32, 16)
    residual = _matrix(matrices, vectors, layers.VIS_RESIDUAL, 32, 32)
    second_first = _matrix(matrices, vectors, layers.VIS2_FIRST, 32, 32)
    second_last = _matrix(matrices, vectors, layers.VIS2_LAST, 32, 16)
    x = _elu_layer(latent * uniform.to(latent.dtype)[:, None], first, vectors, layers.VIS_FIRST)
    value = _number(x, number, vectors, layers.VIS_NUMBER)
    visibility = sigmoid(tl.maximum(value, exp(tl.minimum(value, 0.0)) - 1)) * mask
    refined = latent + _elu_layer(x, residual, vectors, layers.VIS_RESIDUAL)
    x = _elu_layer(refined * visibility.to(latent.dtype)[:, None], second_first, vectors, layers.VIS2_FIRST)
    return refined, sigmoid(_number(x, second_last, vectors, layers.VIS2_LAST)) * mask


@triton.jit
def _geometry(refined, visibility, group, views, matrices, vectors, M: tl.constexpr, VIEWS: tl.constexpr):
    """Apply geometry_fc to the statistics by visibility: (rows, 16), the same for all views."""
    of_mean = _matrix(matrices, vectors, layers.GEOMETRY_MEAN, 32, 64)
    of_variance = _matrix(matrices, vectors, layers.GEOMETRY_VARIANCE, 32, 64)
    last = _matrix(matrices, vectors, layers.GEOMETRY_LAST, 64, 16)
    share = visibility * reciprocal(_sum_to_views(visibility, M, VIEWS) + 1e-8)
    x = (_sum_to_views(share, M, VIEWS) / views)[:, None] * _vector(vectors, layers.GEOMETRY_SHARE, 64)
    x = _statistics(refined, share, group, of_mean, of_variance, x.to(tl.float32))
    x = elu(x, _vector(vectors, layers.GEOMETRY_MEAN, 64))
    return _elu_layer(x, last, vectors, layers.GEOMETRY_LAST)


@triton.jit
def _blending(
    refined, visibility, sight, by_angle, seen, inside, matrices, vectors, M: tl.constexpr, VIEWS: tl.constexpr
):
    """Apply rgb_fc, plus what is known `by_angle`, and the softmax over the views: (M * VIEWS,). inside: rows that are a view, not
    what pads them."""
    kind: tl.constexpr = sight.dtype
    of_refined = _matrix(matrices, vectors, layers.RGB_FIRST, 32, 16)
    of_direction = _matrix(matrices, vectors, layers.RGB_DIRECTION, 16, 16)
    second = _matrix(matrices, vectors, layers.RGB_SECOND, 16, 16)
    last = _matrix(matrices, vectors, layers.RGB_LAST, 16, 16)
    x = _product(sight, of_direction, _times(refined, of_refined))
    others = visibility.to(kind)[:, None] * _vector(vectors, layers.RGB_VISIBILITY, 16)
    x = elu(x, others + _vector(vectors, layers.RGB_FIRST, 16))
    x = _elu_layer(x, second, vectors, layers.RGB_SECOND)
    score = _number(x, last, vectors, layers.RGB_LAST) + by_angle
    score = tl.where(seen, score, -1e9)
    score = tl.where(inside, score, -3e38)
    score = tl.reshape(score, (M, VIEWS))
    powers = exp(score - tl.expand_dims(tl.max(score, 1), 1))
    return tl.reshape(powers / tl.expand_dims(tl.sum(powers, 1), 1), (M * VIEWS,))


@triton.jit
def _views_kernel(
    places, sights, valid, maps, matrices, vectors,
    geometry_out, latent_out, blending_out, color_out, features_out,
    samples, views, map_height, map_width,
    M: tl.constexpr, VIEWS: tl.constexpr, USE_VIS: tl.constexpr, DENSITY_ONLY: tl.constexpr, SURFACES: tl.constexpr,
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
    first, second = tl.load(places + 2 * rows + at, there, 0.0), tl.load(places + 3 * rows + at, there, 0.0)
    read = x >= 0
    seen = read
    if SURFACES:
        seen = tl.load(valid + at, there, 0) > 0
    mask = tl.where(seen, 1.0, 0.0)
    uniform = tl.load(sights + at * 8 + 7, there, 0.0)
    sight = tl.load(sights + at[:, None] * 8 + c16, there[:, None] & (c16 < 8), 0.0)

    # what a view knows of its ray there, and what it shows
    entries = maps + (view * map_height * map_width * 64)[:, None] + c32
    ray_features = _read(entries + 32, x, y, map_width, map_height, read)
    if SURFACES:
        hit, visible = 2 * (first * mask - 0.5), 2 * (second * mask - 0.5)
    else:
        hit, visible = _hit_and_visibility(ray_features, first, second, matrices, vectors, mask, USE_VIS)
    embedding, trust = _embed_and_trust(ray_features, hit, visible, matrices, vectors)
    features = _read(entries, x, y, map_width, map_height, read)
    color, own = _add_directions(sight, features, matrices, vectors)

    latent = _fuse(color, own, embedding, trust * uniform, uniform, group, matrices, vectors)
    refined, visibility = _refine(latent, uniform, mask, matrices, vectors)
    # A constant in an expression can make it float32, and products would be of what was not packed.
    tl.static_assert(embedding.dtype == kind and own.dtype == kind and refined.dtype == kind)
    geometry = _geometry(refined, visibility, group, views, matrices, vectors, M, VIEWS)

    is_first = (there & (view == 0))[:, None]
    tl.store(geometry_out + sample[:, None] * 16 + c16, geometry.to(tl.float32), is_first)
    if not DENSITY_ONLY:
        tl.store(latent_out + at[:, None] * 32 + c32, latent, there[:, None])
        by_angle = tl.load(places + 4 * rows + at, there, 0.0) if SURFACES else 0.0
        blending = _blending(refined, visibility, sight, by_angle, seen, view < views, matrices, vectors, M, VIEWS)
        tl.store(blending_out + at, blending, there)
        blended = choose(group, sight * blending.to(kind)[:, None])
        column = c16 - layers.COLOR
        tl.store(color_out + sample[:, None] * 3 + column, blended, is_first & (column >= 0) & (column < 3))
        if SURFACES:  # read again, which is cheaper than to keep them all the while
            features = _read(entries, x, y, map_width, map_height, read)
            blended = choose(group, features * blending.to(kind)[:, None])
            tl.store(features_out + sample[:, None] * 32 + c32, blended, is_first)


@dataclass(frozen=True)
class ViewsOutput:
    """Of N samples and V views: geometry (N, 16); latent (V, N, 32), blending (V, N), color (N, 3) and blended image features
    (N, 32), which are None where only densities were asked for, or nothing reads them."""

    geometry: torch.Tensor
    latent: torch.Tensor | None
    blending: torch.Tensor | None
    color: torch.Tensor | None
    features: torch.Tensor | None
