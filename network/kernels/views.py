"""What V views make of each sample, in one kernel: project, read, all networks of a view, statistics, blending.

Twin: `network.rewritten`, from `look` to `_blending_weights`. A program takes M samples with all their views as
M * VIEWS rows (VIEWS is V rounded up to a power of 2); only what attention needs leaves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from network.cranet import CRANet
from network.kernels.attention import _exp2
from network.rendering import Stage
from network.rewritten import OWN, STATISTICS, folded_embedding

SLOT, WIDE = tl.constexpr(64 * 64), tl.constexpr(64)  # of one layer: its matrix (inputs, outputs), its vector
LAYERS = tl.constexpr(33)


@triton.jit
def _exp(x):
    return _exp2(x * 1.4426950408889634)


@triton.jit
def _elu(x):
    return tl.maximum(x, _exp(tl.minimum(x, 0.0)) - 1)  # e^x - 1 is at least x


@triton.jit
def _softplus(x):
    return tl.where(x > 20, x, tl.log(1 + _exp(tl.minimum(x, 20.0))))


@triton.jit
def _sigmoid(x):
    return 1 / (1 + _exp(-x))


@triton.jit
def _vector(vectors, LAYER: tl.constexpr, N: tl.constexpr):
    return tl.load(vectors + LAYER * WIDE + tl.arange(0, N))[None, :]


@triton.jit
def _product(x, matrices, LAYER: tl.constexpr, N: tl.constexpr, total):
    """total (rows, N) plus x (rows, K) times the matrix of a layer.

    In bfloat16, or to float32's precision: what float16 leaves of a number is a float16 again, so that three products
    of halves (the fourth is too small to count) make one; the tensor cores' own float32 has ten bits.
    """
    K: tl.constexpr = x.shape[1]
    at = matrices + LAYER * SLOT + tl.arange(0, K)[:, None] * N + tl.arange(0, N)[None, :]
    matrix = tl.load(at)
    if matrix.dtype == tl.bfloat16:
        product = tl.dot(x.to(tl.bfloat16), matrix, total)
    else:
        high = x.to(tl.float16)
        low = (x - high.to(tl.float32)).to(tl.float16)
        # The small ones first. (Also, the other way round ptxas 12.8 spoils an address, and the kernel ends.)
        product = tl.dot(low, matrix, total)
        product = tl.dot(high, tl.load(at + LAYERS * SLOT), product)
        product = tl.dot(high, matrix, product)
    return product


@triton.jit
def _layer(x, matrices, vectors, LAYER: tl.constexpr, N: tl.constexpr):
    """x (rows, K) times the matrix of a layer plus its vector: (rows, N)."""
    return _product(x, matrices, LAYER, N, tl.broadcast_to(_vector(vectors, LAYER, N), (x.shape[0], N)))


@triton.jit
def _over_views(x, M: tl.constexpr, VIEWS: tl.constexpr, N: tl.constexpr):
    """Sum of rows (M * VIEWS, N) over the views: (M, N)."""
    return tl.sum(tl.reshape(x, (M, VIEWS, N)), 1)


@triton.jit
def _to_views(x, M: tl.constexpr, VIEWS: tl.constexpr, N: tl.constexpr):
    """The same (M, N) for every view: (M * VIEWS, N)."""
    return tl.reshape(tl.broadcast_to(tl.expand_dims(x, 1), (M, VIEWS, N)), (M * VIEWS, N))


@triton.jit
def _sum_to_views(x, M: tl.constexpr, VIEWS: tl.constexpr):
    """Sum of x (M * VIEWS,) over the views, for every view."""
    total = tl.sum(tl.reshape(x, (M, VIEWS)), 1)
    return tl.reshape(tl.broadcast_to(tl.expand_dims(total, 1), (M, VIEWS)), (M * VIEWS,))


@triton.jit
def _mean_and_variance(x, weight, M: tl.constexpr, VIEWS: tl.constexpr, N: tl.constexpr):
    weight = weight[:, None]
    mean = _over_views(x * weight, M, VIEWS, N)
    difference = x - _to_views(mean, M, VIEWS, N)
    return mean, _over_views(weight * difference * difference, M, VIEWS, N)


@triton.jit
def _corners(x, y, width, height, image_width, image_height, SPREAD: tl.constexpr):
    """Where a map of (height, width) is read for pixels of an image: left, top, right, low and the two fractions."""
    x = x * ((width - 1 + SPREAD) / (image_width - 1.0)) - SPREAD * 0.5
    y = y * ((height - 1 + SPREAD) / (image_height - 1.0)) - SPREAD * 0.5
    x = tl.where(x == x, tl.minimum(tl.maximum(x, 0.0), width - 1.0), 0.0)
    y = tl.where(y == y, tl.minimum(tl.maximum(y, 0.0), height - 1.0), 0.0)
    left, top = tl.floor(x), tl.floor(y)
    right_part, low_part = x - left, y - top
    left, top = left.to(tl.int32), top.to(tl.int32)
    return left, top, tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1), right_part, low_part


@triton.jit
def _read(base, left, top, right, low, right_part, low_part, row, column, here):
    """Bilinear value of maps whose pixels lie `column` entries apart and rows `row`; base (rows, N) pointers."""
    a = tl.load(base + (top * row + left * column)[:, None], here, 0.0).to(tl.float32)
    b = tl.load(base + (top * row + right * column)[:, None], here, 0.0).to(tl.float32)
    c = tl.load(base + (low * row + left * column)[:, None], here, 0.0).to(tl.float32)
    d = tl.load(base + (low * row + right * column)[:, None], here, 0.0).to(tl.float32)
    upper = a * ((1 - right_part) * (1 - low_part))[:, None] + b * (right_part * (1 - low_part))[:, None]
    return upper + c * ((1 - right_part) * low_part)[:, None] + d * (right_part * low_part)[:, None]


@triton.jit
def _decode(x, matrices, vectors, LAYER: tl.constexpr):
    """The two hidden layers of one of the four decoders."""
    x = _elu(_layer(x, matrices, vectors, LAYER, 32))
    return _elu(_layer(x, matrices, vectors, LAYER + 1, 32))


@triton.jit
def _scalar(x, vectors, scalars, LAYER: tl.constexpr, PLACE: tl.constexpr, N: tl.constexpr):
    """One output of a layer: x (rows, N) -> (rows,). Its weights are the vector of LAYER, its bias a scalar."""
    return tl.sum(x * _vector(vectors, LAYER, N), 1) + tl.load(scalars + PLACE)


@triton.jit
def _mixture(position, mean_1, mean_2, var_1, var_2, weight, scale):
    first = _sigmoid(2 * (position - mean_1) * var_1)
    second = _sigmoid(2 * (position - mean_2) * var_2)
    return (second + weight * (first - second)) * scale


@triton.jit
def _load_3(pointer, index, there, other: tl.constexpr):
    """Three numbers that lie together, of vectors (…, 3); the last is `other` where there is none."""
    at = pointer + index * 3
    return tl.load(at, there, 0.0), tl.load(at + 1, there, 0.0), tl.load(at + 2, there, other)


@triton.jit
def _project(px, py, pz, projections, view, image_height, image_width, there):
    """Pixels, depth, and whether a view sees a point: `geometry.project`."""
    matrix = projections + view * 12
    u = px * tl.load(matrix, there, 0.0) + py * tl.load(matrix + 1, there, 0.0)
    u += pz * tl.load(matrix + 2, there, 0.0) + tl.load(matrix + 3, there, 0.0)
    v = px * tl.load(matrix + 4, there, 0.0) + py * tl.load(matrix + 5, there, 0.0)
    v += pz * tl.load(matrix + 6, there, 0.0) + tl.load(matrix + 7, there, 0.0)
    depth = px * tl.load(matrix + 8, there, 0.0) + py * tl.load(matrix + 9, there, 0.0)
    depth += pz * tl.load(matrix + 10, there, 0.0) + tl.load(matrix + 11, there, 0.0)
    near_plane = tl.abs(depth) < 1e-4
    depth = tl.where(near_plane, 1e-3, depth)
    u, v = u / depth, v / depth
    seen = (u >= -0.5) & (u < image_width - 0.5) & (v >= -0.5) & (v < image_height - 0.5) & ~near_plane & there
    return u, v, depth, seen


@triton.jit
def _direction_difference(px, py, pz, dx, dy, dz, camera_centres, view, there):
    """Unit vectors to the view and to the query: their difference, and how much they agree."""
    cx, cy, cz = _load_3(camera_centres, view, there, 0.0)
    vx, vy, vz = cx - px, cy - py, cz - pz
    length = tl.maximum(tl.sqrt(vx * vx + vy * vy + vz * vz), 1e-5)
    vx, vy, vz = vx / length, vy / length, vz / length
    length = -tl.sqrt(dx * dx + dy * dy + dz * dz)
    qx, qy, qz = dx / length, dy / length, dz / length
    dot = vx * qx + vy * qy + vz * qz
    return vx - qx, vy - qy, vz - qz, dot


@triton.jit
def _hit_and_visibility(
    ray_features, depth, before, after, ranges, view, there, matrices, vectors, scalars, mask, USE_VIS: tl.constexpr
):
    """How likely a view's ray ends in the sample, and gets so far; from -1 to 1 each: `rewritten._embed`."""
    x = _decode(ray_features, matrices, vectors, 0)
    mean_1, mean_2 = _scalar(x, vectors, scalars, 30, 0, 32), _scalar(x, vectors, scalars, 31, 1, 32)
    x = _decode(ray_features, matrices, vectors, 2)
    var_1, var_2 = _scalar(x, vectors, scalars, 32, 2, 32), _scalar(x, vectors, scalars, 33, 3, 32)
    x = _decode(ray_features, matrices, vectors, 4)
    weight = _sigmoid(_scalar(x, vectors, scalars, 34, 4, 32))
    scale = tl.full(depth.shape, 1.0, tl.float32)
    if USE_VIS:
        x = _decode(ray_features, matrices, vectors, 6)
        scale = _sigmoid(_scalar(x, vectors, scalars, 35, 5, 32))
    mean_1, mean_2 = _softplus(mean_1), _softplus(mean_2)
    var_1, var_2 = _softplus(var_1) + 0.05, _softplus(var_2) + 0.05
    near, far = -1 / tl.load(ranges + view * 2, there, 1.0), -1 / tl.load(ranges + view * 2 + 1, there, 2.0)
    inverse = (-1 / tl.maximum(depth, 1e-5) - near) / (far - near)
    low_cdf = _mixture(inverse - tl.load(before, there, 0.0), mean_1, mean_2, var_1, var_2, weight, scale)
    high_cdf = _mixture(inverse + tl.load(after, there, 0.0), mean_1, mean_2, var_1, var_2, weight, scale)
    return 2 * ((high_cdf - low_cdf) * mask - 0.5), 2 * ((1 - low_cdf) * mask - 0.5)


@triton.jit
def _statistics(own_color, own, trusted, uniform, matrices, vectors, M: tl.constexpr, VIEWS: tl.constexpr):
    """What base_fc's first layer makes of mean and variance over the views, by trust and uniform: (M, 64)."""
    shared = tl.broadcast_to(_vector(vectors, 23, 64), (M, 64))
    mean, variance = _mean_and_variance(own_color, trusted, M, VIEWS, 16)
    shared = _product(variance, matrices, 14, 64, _product(mean, matrices, 13, 64, shared))
    mean, variance = _mean_and_variance(own, trusted, M, VIEWS, 32)
    shared = _product(variance, matrices, 16, 64, _product(mean, matrices, 15, 64, shared))
    mean, variance = _mean_and_variance(own_color, uniform, M, VIEWS, 16)
    shared = _product(variance, matrices, 18, 64, _product(mean, matrices, 17, 64, shared))
    mean, variance = _mean_and_variance(own, uniform, M, VIEWS, 32)
    return _product(variance, matrices, 20, 64, _product(mean, matrices, 19, 64, shared))


@triton.jit
def _refine(latent, uniform, mask, matrices, vectors, scalars):
    """vis_fc and vis_fc2: the latent again, and how visible the sample is in each view."""
    x = _elu(_layer(latent * uniform[:, None], matrices, vectors, 25, 32))
    visibility = _sigmoid(_elu(_scalar(x, vectors, scalars, 43, 7, 32))) * mask
    refined = latent + _elu(_layer(x, matrices, vectors, 26, 32))
    x = _elu(_layer(refined * visibility[:, None], matrices, vectors, 27, 32))
    return refined, _sigmoid(_scalar(x, vectors, scalars, 44, 8, 32)) * mask


@triton.jit
def _geometry(refined, visibility, views, matrices, vectors, M: tl.constexpr, VIEWS: tl.constexpr):
    """geometry_fc of the statistics by visibility: (M, 16)."""
    share = visibility / (_sum_to_views(visibility, M, VIEWS) + 1e-8)
    mean, variance = _mean_and_variance(refined, share, M, VIEWS, 32)
    mean_share = tl.sum(tl.reshape(share, (M, VIEWS)), 1) / views
    x = mean_share[:, None] * _vector(vectors, 45, 64) + _vector(vectors, 28, 64)
    x = _elu(_product(variance, matrices, 29, 64, _product(mean, matrices, 28, 64, x)))
    geometry = tl.broadcast_to(_vector(vectors, 29, 16), (M, 16))
    return _elu(_product(x, matrices, 30, 16, geometry))


@triton.jit
def _blending(
    refined, visibility, vx, vy, vz, dot, seen, inside, matrices, vectors, scalars, M: tl.constexpr, VIEWS: tl.constexpr
):
    """rgb_fc and the softmax over the views: (M * VIEWS,). inside: rows that are a view, not what pads them."""
    x = (
        visibility[:, None] * _vector(vectors, 46, 16)
        + vx[:, None] * _vector(vectors, 47, 16)
        + vy[:, None] * _vector(vectors, 48, 16)
    )
    x += vz[:, None] * _vector(vectors, 49, 16) + dot[:, None] * _vector(vectors, 50, 16)
    x = _elu(_product(refined, matrices, 31, 16, x + _vector(vectors, 51, 16)))
    x = _elu(_product(x, matrices, 32, 16, tl.broadcast_to(_vector(vectors, 52, 16), (M * VIEWS, 16))))
    score = _scalar(x, vectors, scalars, 53, 9, 16)
    score = tl.where(seen, score, -1e9)
    score = tl.where(inside, score, -3e38)
    score = tl.reshape(score, (M, VIEWS))
    powers = tl.exp(score - tl.expand_dims(tl.max(score, 1), 1))
    return tl.reshape(powers / tl.expand_dims(tl.sum(powers, 1), 1), (M * VIEWS,))


@triton.jit
def _views_kernel(
    centres, directions, depths, before, after, projections, camera_centres, ranges, images, maps, hidden_map,
    matrices, vectors, scalars,
    geometry_out, valid_out, latent_out, blending_out, color_out,
    samples, views, per_ray, image_height, image_width, map_height, map_width,
    M: tl.constexpr, VIEWS: tl.constexpr, HAS_MASK: tl.constexpr, USE_VIS: tl.constexpr, DENSITY_ONLY: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, M * VIEWS)
    sample = tl.program_id(0) * M + row // VIEWS
    view = row % VIEWS
    there = (sample < samples) & (view < views)
    ray = sample // per_ray
    c32, c16 = tl.arange(0, 32)[None, :], tl.arange(0, 16)[None, :]

    # where the sample lies, and where each view sees it
    z = tl.load(depths + sample, there, 1.0)
    dx, dy, dz = _load_3(directions, ray, there, 1.0)
    px, py, pz = _load_3(centres, ray, there, 0.0)
    px, py, pz = px + z * dx, py + z * dy, pz + z * dz
    u, v, depth, seen = _project(px, py, pz, projections, view, image_height, image_width, there)
    if HAS_MASK:
        left, top, right, low, right_part, low_part = _corners(
            u, v, image_width, image_height, image_width, image_height, 0
        )
        hidden = (hidden_map + view * image_height * image_width)[:, None]
        shown = _read(hidden, left, top, right, low, right_part, low_part, image_width, 1, there[:, None])
        seen = seen & (tl.sum(shown, 1) > 0.99)
    mask = tl.where(seen, 1.0, 0.0)
    uniform = mask / (_sum_to_views(mask, M, VIEWS) + 1e-8)
    vx, vy, vz, dot = _direction_difference(px, py, pz, dx, dy, dz, camera_centres, view, there)

    # what it knows of its ray there
    left, top, right, low, right_part, low_part = _corners(u, v, map_width, map_height, image_width, image_height, 1)
    entries = maps + (view * map_height * map_width * 64)[:, None] + c32
    ray_features = _read(entries + 32, left, top, right, low, right_part, low_part, map_width * 64, 64, seen[:, None])
    hit, visible = _hit_and_visibility(
        ray_features,
        depth,
        before + sample,
        after + sample,
        ranges,
        view,
        there,
        matrices,
        vectors,
        scalars,
        mask,
        USE_VIS,
    )

    # prob_embed, up to what reads it
    x = _layer(ray_features, matrices, vectors, 8, 32)
    x += hit[:, None] * _vector(vectors, 36, 32) + visible[:, None] * _vector(vectors, 37, 32)
    embedding = tl.maximum(x, 0.0)
    x = _elu(_layer(embedding, matrices, vectors, 9, 16))
    trusted = _sigmoid(_scalar(x, vectors, scalars, 38, 6, 16)) * uniform

    # what it shows there
    features = _read(entries, left, top, right, low, right_part, low_part, map_width * 64, 64, seen[:, None])
    left, top, right, low, right_part, low_part = _corners(
        u, v, image_width, image_height, image_width, image_height, 0
    )
    planes = images + (view * 3)[:, None] * image_height * image_width + c16 * image_height * image_width
    color = _read(planes, left, top, right, low, right_part, low_part, image_width, 1, seen[:, None] & (c16 < 3))

    # ray_dir_fc
    x = vx[:, None] * _vector(vectors, 39, 16) + vy[:, None] * _vector(vectors, 40, 16)
    x += vz[:, None] * _vector(vectors, 41, 16) + dot[:, None] * _vector(vectors, 42, 16)
    x = _elu(x + _vector(vectors, 10, 16))
    own_color = color + _elu(_layer(x, matrices, vectors, 11, 16))
    own = features + _elu(_layer(x, matrices, vectors, 12, 32))

    # base_fc: statistics once per sample, the rest once per view
    shared = _statistics(own_color, own, trusted, uniform, matrices, vectors, M, VIEWS)
    x = _product(own_color, matrices, 21, 64, _to_views(shared, M, VIEWS, 64))
    x = _product(embedding, matrices, 23, 64, _product(own, matrices, 22, 64, x))
    latent = _elu(_layer(_elu(x), matrices, vectors, 24, 32))
    refined, visibility = _refine(latent, uniform, mask, matrices, vectors, scalars)
    geometry = _geometry(refined, visibility, views, matrices, vectors, M, VIEWS)

    n = tl.program_id(0) * M + tl.arange(0, M)
    tl.store(geometry_out + n[:, None] * 16 + c16, geometry, (n < samples)[:, None])
    at = view.to(tl.int64) * samples + sample
    tl.store(valid_out + at, seen.to(tl.int8), there)
    if not DENSITY_ONLY:
        tl.store(latent_out + at[:, None] * 32 + c32, latent.to(latent_out.dtype.element_ty), there[:, None])
        blending = _blending(
            refined, visibility, vx, vy, vz, dot, seen, view < views, matrices, vectors, scalars, M, VIEWS
        )
        tl.store(blending_out + at, blending, there)
        blended = _over_views(color * blending[:, None], M, VIEWS, 16)
        tl.store(color_out + n[:, None] * 3 + c16, blended, (n < samples)[:, None] & (c16 < 3))


@dataclass(frozen=True)
class ViewsOutput:
    """Of N samples and V views: geometry (N, 16), valid (V, N) of 0 and 1; latent (V, N, 32), blending (V, N) and
    color (N, 3) are None where only densities were asked for."""

    geometry: torch.Tensor
    valid: torch.Tensor
    latent: torch.Tensor | None
    blending: torch.Tensor | None
    color: torch.Tensor | None


@dataclass(frozen=True)
class Weights:
    """The weights of a stage as the kernel reads them: matrices (33, SLOT) in bfloat16, or (66, SLOT) in float16, first
    the numbers and then what they lack; vectors (54, WIDE), scalars (10,)."""

    matrices: torch.Tensor
    vectors: torch.Tensor
    scalars: torch.Tensor
    use_vis: bool


def pack(stage: Stage, dtype: torch.dtype) -> Weights:
    """The weights of a stage, for products in `dtype`: float32 or bfloat16."""
    impl, decoder, embed = stage.agg_net.agg_impl, stage.dist_decoder, stage.agg_net.prob_embed
    matrices, vectors, scalars = {}, {}, {}

    def dense(number: int, weight: torch.Tensor, bias: torch.Tensor | None = None, outputs: int | None = None) -> None:
        """A layer (out, in); padded to `outputs`, and inputs to 16."""
        weight = F.pad(weight, (0, -weight.shape[1] % 16, 0, (outputs or len(weight)) - len(weight)))
        matrices[number] = weight.T
        if bias is not None:
            vectors[number] = bias

    networks = [decoder.mean_decoder, decoder.var_decoder, decoder.aw_decoder, decoder.vis_decoder]
    heads = []
    for index, network in enumerate(network for network in networks if network is not None):
        for half, layer in enumerate((network[0], network[2])):
            dense(2 * index + half, layer.weight, layer.bias)
        heads += list(zip(network[4].weight, network[4].bias, strict=True))
    for index, (weight, bias) in enumerate(heads):
        vectors[30 + index], scalars[index] = weight, bias

    dense(8, embed[0].weight[:, :32], embed[0].bias)
    vectors[36], vectors[37] = embed[0].weight[:, 32], embed[0].weight[:, 33]
    weight, bias = folded_embedding(impl, embed[2])
    dense(9, weight[:8], bias[:8], 16)
    vectors[38], scalars[6] = impl.neuray_fc[2].weight[0], impl.neuray_fc[2].bias[0]
    dense(23, weight[8:], bias[8:])
    _pack_aggregation(impl, dense, vectors, scalars)

    example = impl.base_fc[0].weight
    packed = [torch.zeros(LAYERS.value, SLOT.value), torch.zeros(54, WIDE.value), torch.zeros(10)]
    for target, values in zip(packed, (matrices, vectors, scalars), strict=True):
        for number, value in values.items():
            target.view(len(target), -1)[number, : value.numel()] = value.detach().float().cpu().reshape(-1)
    on_device = [tensor.to(example.device) for tensor in packed]
    return Weights(_split(on_device[0], dtype), *on_device[1:], decoder.vis_decoder is not None)


def _split(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In bfloat16 as they are, else as float16 and what that lacks."""
    if dtype == torch.bfloat16:
        return matrices.to(dtype)
    high = matrices.half()
    return torch.cat([high, (matrices - high.float()).half()])


def _pack_aggregation(impl: CRANet, dense, vectors: dict, scalars: dict) -> None:
    for index in range(4):
        vectors[39 + index] = impl.ray_dir_fc[0].weight[:, index]
    vectors[10] = impl.ray_dir_fc[0].bias
    last = impl.ray_dir_fc[2]
    dense(11, last.weight[:3], last.bias[:3], 16)
    dense(12, last.weight[3:], last.bias[3:])
    first = impl.base_fc[0].weight
    # statistics: mean and variance by trust, then uniform; of each, 3 colours and 32 features
    for index, start in enumerate(range(0, STATISTICS, OWN)):
        color, features = first[:, start : start + 3], first[:, start + 3 : start + OWN]
        pair, which = divmod(index, 2)
        dense(13 + 4 * pair + which, color)
        dense(15 + 4 * pair + which, features)
    dense(21, first[:, STATISTICS : STATISTICS + 3])
    dense(22, first[:, STATISTICS + 3 : STATISTICS + OWN])
    dense(24, impl.base_fc[2].weight, impl.base_fc[2].bias)
    dense(25, impl.vis_fc[0].weight, impl.vis_fc[0].bias)
    last = impl.vis_fc[2]
    dense(26, last.weight[:32], last.bias[:32])
    vectors[43], scalars[7] = last.weight[32], last.bias[32]
    dense(27, impl.vis_fc2[0].weight, impl.vis_fc2[0].bias)
    vectors[44], scalars[8] = impl.vis_fc2[2].weight[0], impl.vis_fc2[2].bias[0]
    first, _, last, _ = impl.geometry_fc
    dense(28, first.weight[:, :32], first.bias)
    dense(29, first.weight[:, 32:64])
    vectors[45], vectors[29] = first.weight[:, 64], last.bias
    dense(30, last.weight)
    first, _, second, _, last = impl.rgb_fc
    dense(31, first.weight[:, :32])
    for index in range(5):
        vectors[46 + index] = first.weight[:, 32 + index]
    vectors[51], vectors[52] = first.bias, second.bias
    dense(32, second.weight, None, 16)
    vectors[53], scalars[9] = last.weight[0], last.bias[0]
