"""Plane sweep: agreement of a view's features with its neighbours' on each of many planes.

In the kernels what is read of the neighbours, all channels for each voxel and neighbour, is never written to memory. A
tile is some pixels of a view times their channels.
"""

from __future__ import annotations

import torch

from dataset.views import Cameras
from network.geometry import MIN_ABS_DEPTH, REPLACEMENT_DEPTH, inverse, pixel_grid, pixel_rays, project, read_map
from network.ops.language import tl, triton

TILE = 32  # pixels
PLANES_AT_ONCE = 16  # in the backward pass
NEAR, INSTEAD = tl.constexpr(MIN_ABS_DEPTH), tl.constexpr(REPLACEMENT_DEPTH)
SIZES = ["planes", "neighbours", "height", "width"]  # one kernel serves all of them


def agreement(
    features: torch.Tensor, groups: int, cameras: Cameras, depths: torch.Tensor, neighbours: torch.Tensor
) -> torch.Tensor:
    """Return how well each view agrees with its neighbours if its pixels lay on each plane: products of features, summed over
    groups of channels, mean over the neighbours that see it.

    Features (V, C, H, W), cameras of that size, plane depths (V, D), neighbours (V, n) -> (V, groups, D, H, W).
    """
    volumes = [_agreement(features, groups, cameras, depths[v], v, neighbours[v]) for v in range(len(features))]
    return torch.stack(volumes)


def _agreement(features, groups, cameras, depths, view, neighbours) -> torch.Tensor:
    """Return the agreement of one view with depths (D): (groups, D, H, W)."""
    count, size = len(neighbours), cameras.size
    pixels = pixel_grid(*size, device=features.device).to(features.dtype)
    centre, directions = pixel_rays(pixels[None], cameras.poses[view : view + 1], cameras.Ks[view : view + 1])
    points = centre[0] + depths[:, None, None] * directions[0]
    others = cameras[neighbours]
    landed = project(points.reshape(-1, 3), others)
    seen = (landed.valid & (landed.depth > 0)).to(features.dtype).reshape(count, 1, len(depths), size[0] * size[1])
    read = read_map(features[neighbours], landed.pixels, size, align_corners=True)
    read = read.transpose(1, 2).reshape(count, groups, features.shape[1] // groups, *seen.shape[2:])
    own = features[view].flatten(1).unflatten(0, (groups, -1))
    products = (read * own[:, :, None]).sum(2)  # (n, groups, D, H W)
    return ((products * seen).sum(0) / seen.sum(0).clamp_min(1)).unflatten(-1, size)


def kernel_takes(channels: int, groups: int) -> bool:
    """Return whether `agreement_kernel` was written for so many channels in so many groups."""
    return all(count & (count - 1) == 0 for count in (channels, groups))


@triton.jit
def _own(features, view, pixels, M: tl.constexpr, C: tl.constexpr):
    """Return this program's pixels of a view (M, 1), if they are there, the channels (1, C), and the features (M, C)."""
    pixel, channel = (tl.program_id(0) * M + tl.arange(0, M))[:, None], tl.arange(0, C)[None, :]
    inside = pixel < pixels
    return pixel, inside, channel, tl.load(features + (view * pixels + pixel) * C + channel, inside, 0.0)


@triton.jit
def _land(pairs, others, pair, pixel, inside, far, height, width):
    """Return where pixels (M, 1), moved to a depth, land in a neighbour: if they are seen there, at what column and
    row, and the number of the neighbour's first pixel."""
    matrix = pairs + pair * 12
    x, y = (pixel % width).to(tl.float32), (pixel // width).to(tl.float32)
    at_x = far * (tl.load(matrix) * x + tl.load(matrix + 1) * y + tl.load(matrix + 2)) + tl.load(matrix + 9)
    at_y = far * (tl.load(matrix + 3) * x + tl.load(matrix + 4) * y + tl.load(matrix + 5)) + tl.load(matrix + 10)
    depth = far * (tl.load(matrix + 6) * x + tl.load(matrix + 7) * y + tl.load(matrix + 8)) + tl.load(matrix + 11)
    seen = inside & (depth >= NEAR)
    depth = tl.where(tl.abs(depth) < NEAR, INSTEAD, depth)
    column, row = at_x / depth, at_y / depth
    seen &= (column >= -0.5) & (column < width - 0.5) & (row >= -0.5) & (row < height - 0.5)
    column = tl.where(seen, tl.minimum(tl.maximum(column, 0.0), width - 1.0), 0.0)
    row = tl.where(seen, tl.minimum(tl.maximum(row, 0.0), height - 1.0), 0.0)
    return seen, column, row, tl.load(others + pair) * (height * width)


@triton.jit
def _corner(column, row, low, right, width, height):
    """Return one of the four pixels that a place lies between: its number, and its share."""
    left, top = tl.floor(column), tl.floor(row)
    x_part, y_part = column - left, row - top
    at_x = tl.minimum(left.to(tl.int32) + right, width - 1)
    at_y = tl.minimum(top.to(tl.int32) + low, height - 1)
    return at_y * width + at_x, (x_part if right else 1 - x_part) * (y_part if low else 1 - y_part)


@triton.jit
def _read(features, first, column, row, channel, there, height, width, C: tl.constexpr):
    """Read features (…, C) between pixels, bilinearly: (M, C). first: the number of the map's first pixel."""
    total = tl.zeros(there.shape, tl.float32) + channel * 0.0
    for low in tl.static_range(2):
        for right in tl.static_range(2):
            pixel, share = _corner(column, row, low, right, width, height)
            total += share * tl.load(features + (first + pixel) * C + channel, there, 0.0)
    return total


@triton.jit(do_not_specialize=SIZES)
def _agree_kernel(
    features, pairs, others, depths, out, shares, planes, neighbours, height, width,
    M: tl.constexpr, C: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Compute the mean agreement of one view on one plane with the neighbours that see it, and one over their number."""
    view, plane = tl.program_id(2).to(tl.int64), tl.program_id(1)
    pixels = height * width
    pixel, inside, channel, own = _own(features, view, pixels, M, C)
    far = tl.load(depths + view * planes + plane)
    total, count = tl.zeros((M, C), tl.float32), tl.zeros((M, 1), tl.float32)
    for i in range(neighbours):
        seen, column, row, first = _land(pairs, others, view * neighbours + i, pixel, inside, far, height, width)
        total += own * _read(features, first, column, row, channel, seen, height, width, C)
        count += tl.where(seen, 1.0, 0.0)
    share = 1.0 / tl.maximum(count, 1.0)
    voxel = (view * planes + plane) * pixels + pixel
    group = tl.arange(0, GROUPS)[None, :]
    sums = tl.sum(tl.reshape(total, (M, GROUPS, C // GROUPS)), 2)
    tl.store(out + voxel * GROUPS + group, sums * share, inside)
    tl.store(shares + voxel, share, inside)


@triton.jit(do_not_specialize=SIZES)
def _gradient_kernel(
    features, pairs, others, depths, shares, grad, out, planes, neighbours, height, width,
    M: tl.constexpr, C: tl.constexpr, GROUPS: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Adds the gradient of P planes of one view to its own features' and to its neighbours'."""
    view = tl.program_id(2).to(tl.int64)
    pixels = height * width
    pixel, inside, channel, own = _own(features, view, pixels, M, C)
    group = channel // (C // GROUPS)
    of_own = tl.zeros((M, C), tl.float32)
    for plane in range(tl.program_id(1) * P, tl.minimum(tl.program_id(1) * P + P, planes)):
        far = tl.load(depths + view * planes + plane)
        voxel = (view * planes + plane) * pixels + pixel
        slope = tl.load(grad + voxel * GROUPS + group, inside, 0.0) * tl.load(shares + voxel, inside, 0.0)
        for i in range(neighbours):
            seen, column, row, first = _land(pairs, others, view * neighbours + i, pixel, inside, far, height, width)
            of_own += slope * _read(features, first, column, row, channel, seen, height, width, C)
            for low in tl.static_range(2):
                for right in tl.static_range(2):
                    corner, share = _corner(column, row, low, right, width, height)
                    tl.atomic_add(out + (first + corner) * C + channel, slope * own * share, seen, sem="relaxed")
    tl.atomic_add(out + (view * pixels + pixel) * C + channel, of_own, inside, sem="relaxed")


class _Agree(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, groups: int, pairs, neighbours, depths):
        features = features.contiguous(memory_format=torch.channels_last)
        views, channels, height, width = features.shape
        planes = depths.shape[1]
        out = features.new_empty(views, planes, height, width, groups).permute(0, 4, 1, 2, 3)
        shares = features.new_empty(views, planes, height, width)
        _agree_kernel[triton.cdiv(height * width, TILE), planes, views](
            features, pairs, neighbours, depths, out, shares, planes, neighbours.shape[1], height, width,
            M=TILE, C=channels, GROUPS=groups,
        )  # fmt: skip
        ctx.save_for_backward(features, pairs, neighbours, depths, shares)
        ctx.groups = groups
        return out

    @staticmethod
    def backward(ctx, grad):
        features, pairs, neighbours, depths, shares = ctx.saved_tensors
        views, channels, height, width = features.shape
        planes, out = depths.shape[1], torch.zeros_like(features)
        _gradient_kernel[triton.cdiv(height * width, TILE), triton.cdiv(planes, PLANES_AT_ONCE), views](
            features, pairs, neighbours, depths, shares, grad.contiguous(memory_format=torch.channels_last_3d), out,
            planes, neighbours.shape[1], height, width, M=TILE, C=channels, GROUPS=ctx.groups, P=PLANES_AT_ONCE,
        )  # fmt: skip
        return out, None, None, None, None


def agreement_kernel(
    features: torch.Tensor, groups: int, cameras: Cameras, depths: torch.Tensor, neighbours: torch.Tensor
) -> torch.Tensor:
    """Run `agreement` as kernels, of float32 features whose channels and groups the `kernel_takes`."""
    moves, neighbours = _movements(cameras, neighbours), neighbours.contiguous()
    return _Agree.apply(features, groups, moves, neighbours, depths.contiguous())


def _movements(cameras: Cameras, neighbours: torch.Tensor) -> torch.Tensor:
    """Return for each view's neighbours the matrix, row by row, and the offset that take (x d, y d, d) of the view to
    (u z, v z, z) of the neighbour: (V, n, 12)."""
    rotations, offsets = cameras.poses[:, :, :3], cameras.poses[:, :, 3:]
    turned = rotations[neighbours] @ rotations.transpose(1, 2)[:, None]
    Ks = cameras.Ks[neighbours]
    matrices = Ks @ turned @ inverse(cameras.Ks)[:, None]
    moved = Ks @ (offsets[neighbours] - turned @ offsets[:, None])
    return torch.cat([matrices.flatten(2), moved.flatten(2)], -1).contiguous()
