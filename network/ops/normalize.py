"""Instance norm, what is added to it, activation, and a reflected border as one operation.

The convolution that follows then needs no padding of its own, and no other layout than that which the maps have:
channels last, as matrix units want them. In the kernels a tile is some pixels times some channels. A map is cut into
parts, of which sums are made separately and joined by who needs them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from network.ops.language import tl, triton

PARTS = tl.constexpr(32)  # at most
ACTIVATIONS = {None: 0, "relu": 1, "elu": 2}  # by their numbers in the kernels
TILE, TILE_CHANNELS = 64, 32
SIZES = ["views", "parts", "height", "width", "tiles", "border", "activation", "added"]  # one kernel serves all of them


def normalize(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    activation: str | None,
    border: bool,
    plus: torch.Tensor | None,
) -> torch.Tensor:
    """Return activation(norm(x) + plus), with a border of one reflected pixel or without: (V, C, H, W) -> (V, C, H [+
    2], W [+ 2]).

    weight, bias: (C,). activation: one of ACTIVATIONS. plus: maps of the result's size. Volumes (V, C, D, H, W) have no border.
    """
    x = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    if plus is not None:
        x = x + (without_border(plus) if border else plus)
    x = F.relu(x) if activation == "relu" else F.elu(x) if activation == "elu" else x
    return add_border(x) if border else x


def add_border(x: torch.Tensor) -> torch.Tensor:
    """Pad (V, C, H, W) to (V, C, H+2, W+2)."""
    return F.pad(x, (1, 1, 1, 1), mode="reflect")


def without_border(x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Return every `stride`-th pixel within the border of (V, C, H+2, W+2)."""
    return x[..., 1:-1:stride, 1:-1:stride]


@triton.jit
def _channels(channels, C: tl.constexpr):
    """Return this program's view and channels, (1, C)."""
    blocks = tl.cdiv(channels, C)
    view = (tl.program_id(0) // blocks).to(tl.int64)
    return view, (tl.program_id(0) % blocks * C + tl.arange(0, C))[None, :]


@triton.jit
def _place(view, pixel, channel, pixels, channels):
    """Return where an entry lies in maps of so many pixels and channels."""
    return (view * pixels + pixel) * channels + channel


@triton.jit
def _sums(partial, view, part, channel, channels):
    """Return where the first of the two sums of a part lies in (V, PARTS, 2, C); the other one follows after C."""
    return partial + (view * PARTS + part) * 2 * channels + channel


@triton.jit
def _reflected(i, length):
    """Return the place in 0 … length - 1 that a place outside of it mirrors."""
    i = tl.abs(i)
    return tl.where(i < length, i, 2 * (length - 1) - i)


@triton.jit(do_not_specialize=SIZES)
def _moments_kernel(x, partial, height, width, channels, tiles, P: tl.constexpr, C: tl.constexpr):
    """Write of each part, `tiles` tiles long: the mean, and the sum of the squared deviations from it."""
    view, channel = _channels(channels, C)
    part, pixels = tl.program_id(1), height * width
    mean, squares, before = channel * 0.0, channel * 0.0, 0.0
    for i in range(tiles):
        first = (part * tiles + i) * P
        pixel = (first + tl.arange(0, P))[:, None]
        there = (pixel < pixels) & (channel < channels)
        tile = tl.load(x + _place(view, pixel, channel, pixels, channels), there, 0.0).to(tl.float32)
        count = tl.minimum(tl.maximum(pixels - first, 0), P).to(tl.float32)
        own = tl.sum(tile, 0, keep_dims=True) / tl.maximum(count, 1.0)
        deviation = tl.where(there, tile - own, 0.0)
        share = count / tl.maximum(before + count, 1.0)
        squares += tl.sum(deviation * deviation, 0, keep_dims=True)
        squares += (own - mean) * (own - mean) * before * share
        mean += (own - mean) * share
        before += count
    here = _sums(partial, view, part, channel, channels)
    tl.store(here, mean, channel < channels)
    tl.store(here + channels, squares, channel < channels)


@triton.jit
def _mean_and_scale(partial, view, channel, pixels, channels, length, eps):
    """Return of the whole map the mean, from those of its parts of so many pixels, and one over the deviation."""
    part = tl.arange(0, PARTS)[:, None]
    count = tl.minimum(tl.maximum(pixels - part * length, 0), length).to(tl.float32)
    here, there = _sums(partial, view, part, channel, channels), (count > 0) & (channel < channels)
    means = tl.load(here, there, 0.0)
    mean = tl.sum(means * count, 0, keep_dims=True) / pixels
    squares = tl.load(here + channels, there, 0.0) + count * (means - mean) * (means - mean)
    return mean, 1 / tl.sqrt(tl.sum(squares, 0, keep_dims=True) / pixels + eps)


@triton.jit(do_not_specialize=SIZES)
def _activate_kernel(
    x, weight, bias, plus, partial, moments, y, height, width, channels, tiles, border, activation, added, eps,
    P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    view, channel = _channels(channels, C)
    pixels, out_width = height * width, width + 2 * border
    out_pixels = (height + 2 * border) * out_width
    mean, scale = _mean_and_scale(partial, view, channel, pixels, channels, tiles * P, eps)
    if tl.program_id(1) == 0:
        kept = moments + view * 2 * channels + channel
        tl.store(kept, mean, channel < channels)
        tl.store(kept + channels, scale, channel < channels)
    pixel = (tl.program_id(1) * P + tl.arange(0, P))[:, None]
    there = (pixel < out_pixels) & (channel < channels)
    row, column = _reflected(pixel // out_width - border, height), _reflected(pixel % out_width - border, width)
    tile = tl.load(x + _place(view, row * width + column, channel, pixels, channels), there, 0.0).to(tl.float32)
    tile = (tile - mean) * (scale * tl.load(weight + channel, channel < channels, 0.0))
    tile += tl.load(bias + channel, channel < channels, 0.0)
    if added:
        source = (row + border) * out_width + column + border
        tile += tl.load(plus + _place(view, source, channel, out_pixels, channels), there, 0.0).to(tl.float32)
    below = tl.where(activation == 1, 0.0, tl.where(activation == 2, tl.exp(tl.minimum(tile, 0.0)) - 1, tile))
    tile = tl.where(tile <= 0, below, tile)  # what is no number stays so
    here = y + _place(view, pixel, channel, out_pixels, channels)
    tl.store(here, tile.to(y.dtype.element_ty), there)


@triton.jit
def _load_moments(moments, view, channel, channels):
    """Load the mean, and one over the deviation, that `_activate_kernel` kept, (V, 2, C)."""
    here = moments + view * 2 * channels + channel
    return tl.load(here, channel < channels, 0.0), tl.load(here + channels, channel < channels, 0.0)


@triton.jit
def _unreflected(grad, view, pixel, channel, height, width, channels, border, there):
    """Return the gradient at a place within the border: its own, and that of what mirrors it on the border."""
    out_width = width + 2 * border
    out_pixels = (height + 2 * border) * out_width
    row, column = pixel // out_width, pixel % out_width
    total = tl.zeros(there.shape, tl.float32)
    for up in tl.static_range(3):  # its own row, the first, the last; and so the columns
        for left in tl.static_range(3):
            source_row, source_column, mirrored = row, column, there
            if up > 0:
                mirrored &= row * border == (2 if up == 1 else height - 1)  # never without a border
                source_row = row * 0 if up == 1 else row * 0 + height + 1
            if left > 0:
                mirrored &= column * border == (2 if left == 1 else width - 1)
                source_column = column * 0 if left == 1 else column * 0 + width + 1
            source = _place(view, source_row * out_width + source_column, channel, out_pixels, channels)
            total += tl.load(grad + source, mirrored, 0.0).to(tl.float32)
    return total


@triton.jit(do_not_specialize=SIZES)
def _sum_gradients_kernel(
    grad, y, x, moments, inner, partial, height, width, channels, tiles, border, activation,
    P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Compute the gradient before the activation, with a border of zeros; of each part its sum, and that of its product with
    the normalised map."""
    view, channel = _channels(channels, C)
    out_width = width + 2 * border
    out_pixels = (height + 2 * border) * out_width
    mean, scale = _load_moments(moments, view, channel, channels)
    total, products = channel * 0.0, channel * 0.0
    for i in range(tiles):
        pixel = ((tl.program_id(1) * tiles + i) * P + tl.arange(0, P))[:, None]
        there = (pixel < out_pixels) & (channel < channels)
        row, column = pixel // out_width - border, pixel % out_width - border
        inside = there & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        tile = _unreflected(grad, view, pixel, channel, height, width, channels, border, inside)
        here = _place(view, pixel, channel, out_pixels, channels)
        result = tl.load(y + here, inside, 0.0).to(tl.float32)
        slope = tl.where(activation == 1, 0.0, tl.where(activation == 2, result + 1, 1.0))
        tile *= tl.where(result <= 0, slope, 1.0)
        tl.store(inner + here, tile.to(inner.dtype.element_ty), there)
        source = _place(view, row * width + column, channel, height * width, channels)
        normal = (tl.load(x + source, inside, 0.0).to(tl.float32) - mean) * scale
        total += tl.sum(tile, 0, keep_dims=True)
        products += tl.sum(tile * normal, 0, keep_dims=True)
    here = _sums(partial, view, tl.program_id(1), channel, channels)
    tl.store(here, total, channel < channels)
    tl.store(here + channels, products, channel < channels)


@triton.jit
def _joined(partial, view, channel, parts, channels):
    """Return the two sums of a whole map, from those of its parts."""
    part = tl.arange(0, PARTS)[:, None]
    here, there = _sums(partial, view, part, channel, channels), (part < parts) & (channel < channels)
    first = tl.sum(tl.load(here, there, 0.0), 0, keep_dims=True)
    return first, tl.sum(tl.load(here + channels, there, 0.0), 0, keep_dims=True)


@triton.jit(do_not_specialize=SIZES)
def _gradient_kernel(
    inner, x, weight, moments, partial, out, of_parameters, views, parts, height, width, channels, border,
    P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of x, and, by the programs of the first view's first tile, of bias and weight, (2, C)."""
    view, channel = _channels(channels, C)
    pixels, out_width = height * width, width + 2 * border
    out_pixels = (height + 2 * border) * out_width
    total, products = _joined(partial, view, channel, parts, channels)
    if (view == 0) & (tl.program_id(1) == 0):
        of_bias, of_weight = total, products
        for other in range(1, views):
            of_other = _joined(partial, other, channel, parts, channels)
            of_bias += of_other[0]
            of_weight += of_other[1]
        tl.store(of_parameters + channel, of_bias, channel < channels)
        tl.store(of_parameters + channels + channel, of_weight, channel < channels)
    mean, scale = _load_moments(moments, view, channel, channels)
    pixel = (tl.program_id(1) * P + tl.arange(0, P))[:, None]
    there = (pixel < pixels) & (channel < channels)
    source = (pixel // width + border) * out_width + pixel % width + border
    tile = tl.load(inner + _place(view, source, channel, out_pixels, channels), there, 0.0).to(tl.float32)
    here = _place(view, pixel, channel, pixels, channels)
    normal = (tl.load(x + here, there, 0.0).to(tl.float32) - mean) * scale
    tile = (tile - (total + normal * products) / pixels) * (scale * tl.load(weight + channel, channel < channels, 0.0))
    tl.store(out + here, tile.to(out.dtype.element_ty), there)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, plus, activation: int, border: int, eps: float):
        x, added = _channels_last(x), plus is not None
        views, channels, height, width = x.shape
        size = height + 2 * border, width + 2 * border
        y = torch.empty((views, channels, *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        partial, moments = _partial(x), x.new_empty(views, 2, channels, dtype=torch.float32)
        parts, tiles = _parts(height * width)
        sizes = height, width, channels, tiles
        _moments_kernel[_blocks(x), parts](x, partial, *sizes, P=TILE, C=TILE_CHANNELS)
        _activate_kernel[_blocks(x), triton.cdiv(size[0] * size[1], TILE)](
            x, weight, bias, _channels_last(plus) if added else x, partial, moments, y, *sizes, border, activation,
            int(added), eps, P=TILE, C=TILE_CHANNELS,
        )  # fmt: skip
        ctx.save_for_backward(x, y, weight, moments)
        ctx.activation, ctx.border, ctx.added = activation, border, added
        return y

    @staticmethod
    def backward(ctx, grad):
        x, y, weight, moments = ctx.saved_tensors
        views, channels, height, width = x.shape
        partial, inner, out = _partial(x), torch.empty_like(y), torch.empty_like(x)
        of_parameters = torch.empty_like(moments[0])
        parts, tiles = _parts(y.shape[2] * y.shape[3])
        _sum_gradients_kernel[_blocks(x), parts](
            _channels_last(grad), y, x, moments, inner, partial, height, width, channels, tiles, ctx.border,
            ctx.activation, P=TILE, C=TILE_CHANNELS,
        )  # fmt: skip
        _gradient_kernel[_blocks(x), triton.cdiv(height * width, TILE)](
            inner, x, weight, moments, partial, out, of_parameters, views, parts, height, width, channels, ctx.border,
            P=TILE, C=TILE_CHANNELS,
        )  # fmt: skip
        of_bias, of_weight = of_parameters
        return out, of_weight, of_bias, inner if ctx.added else None, None, None, None


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _partial(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(len(x), PARTS.value, 2, x.shape[1], dtype=torch.float32)


def _blocks(x: torch.Tensor) -> int:
    """Return the programs that share out views and channels."""
    return len(x) * triton.cdiv(x.shape[1], TILE_CHANNELS)


def _parts(pixels: int) -> tuple[int, int]:
    """Return how many parts a map of so many pixels has, at most PARTS, and of how many tiles."""
    tiles = triton.cdiv(pixels, TILE * PARTS.value)
    return triton.cdiv(pixels, TILE * tiles), tiles


def normalize_kernel(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    activation: str | None,
    border: bool,
    plus: torch.Tensor | None,
) -> torch.Tensor:
    """Run `normalize` as kernels. weight and bias are float32; the result has its channels last in memory."""
    if x.dim() == 5:  # planes below each other
        flat = x.contiguous(memory_format=torch.channels_last_3d).flatten(2, 3)
        return normalize_kernel(flat, weight, bias, eps, activation, border, plus).unflatten(2, x.shape[2:4])
    return _Normalize.apply(x, weight, bias, plus, ACTIVATIONS[activation], int(border), eps)
