"""Convolutions of volumes with few channels, which cuDNN has no fast kernels for.

In the kernels volumes lie in memory as (V, D, H, W, C). A convolution of 3x3x3 is the product of what lies around each voxel, 27 C numbers
that are read where they lie, with a matrix of weights. The gradient of a volume is such a convolution too; that of the
weights is summed over parts of the voxels, and the parts' sums by torch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from network.ops.language import tl, triton

TILE = 128  # voxels
SMALL_TILE, PARTS = 32, 320  # for the weights' gradient: voxels, and parts that all of them are cut into, at most
TAPS = tl.constexpr(27)
SIZES = ["voxels", "depth", "height", "width", "dilation", "tiles"]  # one kernel serves all of them


def convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, dilation: int, tf32: bool = False
) -> torch.Tensor:
    """Convolve x (V, C, D, H, W), weight (C', C, 3, 3, 3), bias (C'): (V, C', D, H, W), padded by zeros.

    tf32: whether products of the kernel may round to TensorFloat-32; torch's follow cuDNN's setting.
    """
    return F.conv3d(x, weight, bias, padding=dilation, dilation=dilation)


def kernel_takes(channels: int) -> bool:
    """Return whether `convolve_kernel` was written for so many channels."""
    return channels <= 16 or channels & (channels - 1) == 0


@triton.jit
def _quotient(a, b):
    """Return a // b of small numbers, none negative: a division of integers takes ten times as long."""
    return tl.floor((a.to(tl.float32) + 0.5) * (1.0 / b)).to(tl.int32)


@triton.jit
def _voxels(first, depth, height, width, M: tl.constexpr):
    """Return M voxels from `first` on: their numbers and z, y, x in their volume, (M, 1) each."""
    step = tl.arange(0, M)[:, None]
    x = first % width + step
    rows = _quotient(x, width)
    y = first // width % height + rows
    slices = _quotient(y, height)
    z = first // (width * height) % depth + slices
    return first + step, z - _quotient(z, depth) * depth, y - slices * height, x - rows * width


@triton.jit
def _around(volume, voxel, z, y, x, z_step, y_step, x_step, channel, there, depth, height, width, C: tl.constexpr):
    """Load the channel of voxels so many steps further, where it is `there`; zeros outside."""
    z, y, x = z + z_step, y + y_step, x + x_step
    there = there & (z >= 0) & (z < depth) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    source = voxel + (z_step * height + y_step) * width + x_step
    return tl.load(volume + source.to(tl.int64) * C + channel, there, 0.0).to(tl.float32)


@triton.jit(do_not_specialize=SIZES)
def _convolve_kernel(
    volume, weights, bias, out, voxels, depth, height, width, dilation,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, K: tl.constexpr, N: tl.constexpr, M: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """weights: (27 C_IN, C_OUT). K: rows of them at once; N: C_OUT, padded."""
    voxel, z, y, x = _voxels(tl.program_id(0) * M, depth, height, width, M)
    column, inside = tl.arange(0, N)[None, :], voxel < voxels
    total = tl.zeros((M, N), tl.float32) + tl.load(bias + column, column < C_OUT, 0.0)
    for first in range(0, TAPS * C_IN, K):
        k = first + tl.arange(0, K)
        if K == C_IN:
            tap, channel, there = first // C_IN, tl.arange(0, K)[None, :], inside
        else:
            tap, channel = (k // C_IN)[None, :], (k % C_IN)[None, :]
            there = inside & (tap < TAPS)
        z_step, y_step, x_step = (tap // 9 - 1) * dilation, (tap // 3 % 3 - 1) * dilation, (tap % 3 - 1) * dilation
        tile = _around(volume, voxel, z, y, x, z_step, y_step, x_step, channel, there, depth, height, width, C_IN)
        matrix = tl.load(weights + k[:, None] * C_OUT + column, (k[:, None] < TAPS * C_IN) & (column < C_OUT), 0.0)
        total = tl.dot(tile, matrix, total, input_precision=PRECISION)
    here = out + voxel.to(tl.int64) * C_OUT + column
    tl.store(here, total.to(out.dtype.element_ty), inside & (column < C_OUT))


@triton.jit(do_not_specialize=SIZES)
def _weights_gradient_kernel(
    volume, grad, partial, voxels, depth, height, width, dilation, tiles,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, K: tl.constexpr, N: tl.constexpr, M: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write of one part, `tiles` tiles long, the weights' gradient at three taps in a row: (parts, 27, C_IN, C_OUT).

    K, N: C_IN and C_OUT, padded.
    """
    group = tl.program_id(0)
    z_step, y_step = (group // 3 - 1) * dilation, (group % 3 - 1) * dilation
    entry, column = tl.arange(0, K)[None, :], tl.arange(0, N)[None, :]
    left, middle, right = tl.zeros((N, K), tl.float32), tl.zeros((N, K), tl.float32), tl.zeros((N, K), tl.float32)
    for i in range(tiles):
        voxel, z, y, x = _voxels((tl.program_id(1) * tiles + i) * M, depth, height, width, M)
        there = voxel < voxels
        here = grad + voxel.to(tl.int64) * C_OUT + column
        tile = tl.trans(tl.load(here, there & (column < C_OUT), 0.0).to(tl.float32))
        if K != C_IN:
            there = there & (entry < C_IN)
        a = _around(volume, voxel, z, y, x, z_step, y_step, -dilation, entry, there, depth, height, width, C_IN)
        b = _around(volume, voxel, z, y, x, z_step, y_step, 0, entry, there, depth, height, width, C_IN)
        c = _around(volume, voxel, z, y, x, z_step, y_step, dilation, entry, there, depth, height, width, C_IN)
        left = tl.dot(tile, a, left, input_precision=PRECISION)
        middle = tl.dot(tile, b, middle, input_precision=PRECISION)
        right = tl.dot(tile, c, right, input_precision=PRECISION)
    row = tl.arange(0, N)[:, None]
    here = partial + ((tl.program_id(1) * TAPS + group * 3) * C_IN + entry) * C_OUT + row
    there = (row < C_OUT) & (entry < C_IN)
    tl.store(here, left, there)
    tl.store(here + C_IN * C_OUT, middle, there)
    tl.store(here + 2 * C_IN * C_OUT, right, there)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, dilation: int, precision: str):
        x = _channels_last(x)
        ctx.save_for_backward(x, weight)
        ctx.dilation, ctx.precision = dilation, precision
        return _convolve(x, weight, bias, dilation, precision)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = _channels_last(grad)
        mirrored = weight.transpose(0, 1).flip(2, 3, 4)
        of_x = _convolve(grad, mirrored, grad.new_zeros(x.shape[1]), ctx.dilation, ctx.precision)
        of_weight = _weights_gradient(x, grad, ctx.dilation, ctx.precision)
        return of_x, of_weight, grad.sum((0, 2, 3, 4)), None, None


def _convolve(x, weight, bias, dilation: int, precision: str) -> torch.Tensor:
    views, c_in, *size = x.shape
    c_out, voxels = len(weight), x.numel() // c_in
    y = x.new_empty(views, *size, c_out).permute(0, 4, 1, 2, 3)
    _convolve_kernel[(triton.cdiv(voxels, TILE),)](
        x, weight.permute(2, 3, 4, 1, 0).contiguous(), bias, y, voxels, *size, dilation,
        C_IN=c_in, C_OUT=c_out, K=max(16, c_in), N=_padded(c_out), M=TILE, PRECISION=precision,
    )  # fmt: skip
    return y


def _weights_gradient(x, grad, dilation: int, precision: str) -> torch.Tensor:
    _, c_in, *size = x.shape
    c_out, voxels = grad.shape[1], x.numel() // c_in
    tiles = triton.cdiv(voxels, SMALL_TILE * PARTS)
    parts = triton.cdiv(voxels, SMALL_TILE * tiles)
    partial = x.new_empty(parts, 3, 3, 3, c_in, c_out)
    _weights_gradient_kernel[9, parts](
        x, grad, partial, voxels, *size, dilation, tiles,
        C_IN=c_in, C_OUT=c_out, K=_padded(c_in), N=_padded(c_out), M=SMALL_TILE, PRECISION=precision,
        num_warps=1, num_stages=2,
    )  # fmt: skip
    return partial.sum(0).permute(4, 3, 0, 1, 2)


def _padded(channels: int) -> int:
    return max(16, triton.next_power_of_2(channels))


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def convolve_kernel(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, dilation: int, tf32: bool = False
) -> torch.Tensor:
    """Run `convolve` as kernels, of float32 volumes whose channels `kernel_takes`."""
    return _Convolve.apply(x, weight, bias, dilation, "tf32" if tf32 else "tf32x3")
