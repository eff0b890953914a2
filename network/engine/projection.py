"""Projection of samples into the views and the colour there, once for each sample and view, before the networks.

Twin: `network.sight.look`, without the feature maps, which the next kernel reads. Apart from it, since there
several threads share a row, and each would find all of this again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from network.cranet import SHARPNESS
from network.geometry import interval_halves, inverse_depth_intervals
from network.ops.arithmetic import acos, exp, log, reciprocal, sigmoid
from network.ops.language import tl, triton
from network.rendering import Encoding, Rays
from network.sight import AGREEMENT, OCCLUDED
from network.surfaces import SMOOTH

ON_SURFACE, HIDDEN, FLAT = (tl.constexpr(value) for value in (AGREEMENT, OCCLUDED, SMOOTH))
BY_ANGLE = tl.constexpr(SHARPNESS)
ENTRIES = 256  # samples times views of a program (with more, Triton 3.6 fails to compile it for 16 views)


@triton.jit
def _load_3(pointer, there, other: tl.constexpr):
    """Load three numbers that lie together; the last is `other` where there is none."""
    return tl.load(pointer, there, 0.0), tl.load(pointer + 1, there, 0.0), tl.load(pointer + 2, there, other)


@triton.jit
def _project(px, py, pz, matrix, inside, image_height, image_width):
    """Return pixels, depth, and whether a view sees a point: `geometry.project`."""
    u = px * tl.load(matrix, inside, 0.0) + py * tl.load(matrix + 1, inside, 0.0)
    u += pz * tl.load(matrix + 2, inside, 0.0) + tl.load(matrix + 3, inside, 0.0)
    v = px * tl.load(matrix + 4, inside, 0.0) + py * tl.load(matrix + 5, inside, 0.0)
    v += pz * tl.load(matrix + 6, inside, 0.0) + tl.load(matrix + 7, inside, 0.0)
    depth = px * tl.load(matrix + 8, inside, 0.0) + py * tl.load(matrix + 9, inside, 0.0)
    depth += pz * tl.load(matrix + 10, inside, 0.0) + tl.load(matrix + 11, inside, 0.0)
    near_plane = tl.abs(depth) < 1e-4
    depth = tl.where(near_plane, 1e-3, depth)
    u, v = u / depth, v / depth
    seen = (u >= -0.5) & (u < image_width - 0.5) & (v >= -0.5) & (v < image_height - 0.5) & ~near_plane
    return u, v, depth, seen


@triton.jit
def _direction_difference(px, py, pz, dx, dy, dz, centre, inside):
    """Return the difference and the dot product of the unit vectors to the view and to the query."""
    cx, cy, cz = _load_3(centre, inside, 0.0)
    vx, vy, vz = cx - px, cy - py, cz - pz
    length = tl.maximum(tl.sqrt(vx * vx + vy * vy + vz * vz), 1e-5)
    vx, vy, vz = vx / length, vy / length, vz / length
    length = -tl.sqrt(dx * dx + dy * dy + dz * dz)
    qx, qy, qz = dx / length, dy / length, dz / length
    return vx - qx, vy - qy, vz - qz, vx * qx + vy * qy + vz * qz


@triton.jit
def _within(x, size, image_size, SPREAD: tl.constexpr):
    """Return where a pixel falls in a map of this size, the border repeated: `reading.bilinear_corners`."""
    x = x * ((size - 1 + SPREAD) / (image_size - 1.0)) - SPREAD * 0.5
    return tl.where(x == x, tl.minimum(tl.maximum(x, 0.0), size - 1.0), 0.0)


@triton.jit
def _read(plane, x, y, width, height, here):
    """Read the bilinear value of a map of one channel."""
    left, top = x.to(tl.int32), y.to(tl.int32)
    right_part, low_part = x - left, y - top
    right, low = tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1) * width
    top = top * width
    a, b = tl.load(plane + top + left, here, 0.0), tl.load(plane + top + right, here, 0.0)
    c, d = tl.load(plane + low + left, here, 0.0), tl.load(plane + low + right, here, 0.0)
    upper = a * ((1 - right_part) * (1 - low_part)) + b * (right_part * (1 - low_part))
    return upper + c * ((1 - right_part) * low_part) + d * (right_part * low_part)


@triton.jit
def _nearer(best, ratio, surface):
    """Return of two disagreements with a surface the smaller one; one with an unknown surface, 0, is none."""
    return tl.where((surface > 0) & (tl.abs(ratio) < tl.abs(best)), ratio, best)


@triton.jit
def _disagreement(surfaces, x, y, depth, width, height, here):
    """Return how far a point lies behind the surface seen there, infinite where that is unknown: `surfaces.depth_disagreement`.

    surfaces: of one view, four neighbours an entry. x, y: within the map.
    """
    left, top = tl.minimum(x.to(tl.int32), width - 2), tl.minimum(y.to(tl.int32), height - 2)
    right_part, low_part = x - left, y - top
    at = surfaces + (top * width + left) * 4
    a, b = tl.load(at, here, 0.0), tl.load(at + 1, here, 0.0)
    c, d = tl.load(at + 2, here, 0.0), tl.load(at + 3, here, 0.0)
    of_a, of_b = (1 - low_part) * (1 - right_part), (1 - low_part) * right_part
    of_c, of_d = low_part * (1 - right_part), low_part * right_part
    nearest, farthest = tl.minimum(tl.minimum(a, b), tl.minimum(c, d)), tl.maximum(tl.maximum(a, b), tl.maximum(c, d))
    smooth = (nearest > 0) & (farthest < nearest * (1 + FLAT))
    inverse = of_a / tl.maximum(a, 1e-3) + of_b / tl.maximum(b, 1e-3)
    inverse += of_c / tl.maximum(c, 1e-3) + of_d / tl.maximum(d, 1e-3)
    most = tl.maximum(tl.maximum(of_a, of_b), tl.maximum(of_c, of_d))
    closest = tl.where(of_a == most, a, tl.where(of_b == most, b, tl.where(of_c == most, c, d)))
    between = tl.where(smooth, 1 / tl.maximum(inverse, 1e-6), closest)
    own = tl.log(tl.maximum(depth, 1e-3))
    best = tl.full(a.shape, float("inf"), tl.float32)
    best = _nearer(best, own - tl.log(tl.maximum(a, 1e-3)), a)
    best = _nearer(best, own - tl.log(tl.maximum(b, 1e-3)), b)
    best = _nearer(best, own - tl.log(tl.maximum(c, 1e-3)), c)
    best = _nearer(best, own - tl.log(tl.maximum(d, 1e-3)), d)
    return _nearer(best, own - tl.log(tl.maximum(between, 1e-3)), between)


@triton.jit
def _look_at_surfaces(surfaces, x, y, depth, seen, width, height):
    """Return which views see a sample as nothing hides it, all that might if it is hidden from all, and the evidence of their
    depth that rays end there and get there: `sight.look_at_surfaces`."""
    seen = seen & (depth > 0)
    behind = _disagreement(surfaces, x, y, depth, width, height, seen)
    known = seen & (behind < float("inf"))
    behind = tl.where(known, behind, 0.0)
    unhidden = seen & ~(known & (behind > HIDDEN))
    someone = tl.sum(unhidden.to(tl.int32), 0, keep_dims=True) > 0
    share = behind / ON_SURFACE
    hit = tl.where(known, exp(-share * share), 0.5)
    return tl.where(someone, unhidden, seen), hit, tl.where(known, sigmoid(-share), 0.5)


@triton.jit
def _eight(a, b, c, d, e, f, g, h):
    """Store eight numbers of each entry (V, N) side by side: (V, N, 8)."""
    even = tl.join(tl.join(a, e), tl.join(c, g))
    odd = tl.join(tl.join(b, f), tl.join(d, h))
    return tl.reshape(tl.join(even, odd), (a.shape[0], a.shape[1], 8))


@triton.jit
def _sight_kernel(
    centres, directions, depths, before, after, projections, camera_centres, ranges, images, hidden, surfaces,
    places, sights, valid,
    samples, views, per_ray, image_height, image_width, shown_height, shown_width, map_height, map_width,
    N: tl.constexpr, VIEWS: tl.constexpr, HAS_MASK: tl.constexpr, HAS_SURFACES: tl.constexpr,
):  # fmt: skip
    view = tl.arange(0, VIEWS)[:, None]
    sample = (tl.program_id(0) * N + tl.arange(0, N))[None, :]
    ray = sample // per_ray
    is_sample, is_view = sample < samples, view < views
    there = is_view & is_sample

    z = tl.load(depths + sample, is_sample, 1.0)
    dx, dy, dz = _load_3(directions + ray * 3, is_sample, 1.0)
    px, py, pz = _load_3(centres + ray * 3, is_sample, 0.0)
    px, py, pz = px + z * dx, py + z * dy, pz + z * dz
    u, v, depth, seen = _project(px, py, pz, projections + view * 12, is_view, shown_height, shown_width)
    seen = seen & there
    x, y = _within(u, image_width, image_width, 0), _within(v, image_height, image_height, 0)
    area = image_height * image_width
    if HAS_MASK:
        seen = seen & (_read(hidden + view * area, x, y, image_width, image_height, seen) > 0.99)
    read = seen
    if HAS_SURFACES:
        seen, hit, visible = _look_at_surfaces(surfaces + view * area * 4, x, y, depth, seen, image_width, image_height)
        read = there  # what no view shows takes the colours at the nearest border of the images
    mask = tl.where(seen, 1.0, 0.0)
    uniform = mask * (1 / (tl.sum(mask, 0, keep_dims=True) + 1e-8))

    plane = images + view * 3 * area
    red = _read(plane, x, y, image_width, image_height, read)
    green = _read(plane + area, x, y, image_width, image_height, read)
    blue = _read(plane + 2 * area, x, y, image_width, image_height, read)
    vx, vy, vz, agreement = _direction_difference(px, py, pz, dx, dy, dz, camera_centres + view * 3, is_view)

    at = view.to(tl.int64) * samples + sample
    rows = views * samples.to(tl.int64)
    tl.store(places + at, tl.where(read, _within(u, map_width, image_width, 1), -1.0), there)
    tl.store(places + rows + at, _within(v, map_height, image_height, 1), there)
    if HAS_SURFACES:
        tl.store(places + 2 * rows + at, hit, there)
        tl.store(places + 3 * rows + at, visible, there)
        angle = acos(tl.minimum(tl.maximum(agreement, -1 + 1e-6), 1 - 1e-6))
        tl.store(places + 4 * rows + at, log(hit + 0.05) - BY_ANGLE * angle, there)
    else:
        near, far = -1 / tl.load(ranges + view * 2, is_view, 1.0), -1 / tl.load(ranges + view * 2 + 1, is_view, 2.0)
        inverse = (-reciprocal(tl.maximum(depth, 1e-5)) - near) / (far - near)
        tl.store(places + 2 * rows + at, inverse - tl.load(before + sample, is_sample, 0.0), there)
        tl.store(places + 3 * rows + at, inverse + tl.load(after + sample, is_sample, 0.0), there)
    tl.store(valid + at, seen.to(tl.int8), there)
    all_eight = _eight(vx, vy, vz, agreement, red, green, blue, uniform).to(sights.dtype.element_ty)
    tl.store(sights + at[:, :, None] * 8 + tl.arange(0, 8)[None, None, :], all_eight, there[:, :, None])


@dataclass(frozen=True)
class Sights:
    """Projections of N samples into V views.

    places (4, V, N), float32: x and y in the feature maps, x -1 where nothing is read of the view, and the sample's near and far
    end as the view's normalised inverse depths. Of an encoding with surfaces (5, V, N): in place of these the evidence that
    the view's ray ends in the sample and that it gets there, and `cranet.angle_scores`. sights (V, N, 8), in the maps' type:
    direction difference 4, colour 3, and the sample's weight if all views count alike. valid (V, N), int8 of 0 and 1.
    """

    places: torch.Tensor
    sights: torch.Tensor
    valid: torch.Tensor


def see(encoding: Encoding, rays: Rays, depths: torch.Tensor) -> Sights:
    """Project samples at depths (R, S) into the views of an encoding; N = R * S."""
    cameras, device = encoding.cameras, depths.device
    views, samples = len(cameras), depths.numel()
    surfaces, shown = encoding.surfaces, encoding.shown or cameras.size
    before = after = depths  # what surfaces tell has no ends
    if surfaces is None:
        before, after = interval_halves(inverse_depth_intervals(depths, rays.depth_range))
    padded = triton.next_power_of_2(views)
    per_program = ENTRIES // padded
    seen = Sights(
        torch.empty(4 if surfaces is None else 5, views, samples, device=device),
        torch.empty(views, samples, 8, device=device, dtype=encoding.features.dtype),
        torch.empty(views, samples, device=device, dtype=torch.int8),
    )
    _sight_kernel[(triton.cdiv(samples, per_program),)](
        rays.centres.contiguous(), rays.directions.contiguous(), depths.contiguous(), before, after,
        (cameras.Ks @ cameras.poses).contiguous(), cameras.centres().contiguous(), cameras.depth_range.contiguous(),
        encoding.images, encoding.images if encoding.mask is None else encoding.mask,
        encoding.images if surfaces is None else surfaces.contiguous(),
        seen.places, seen.sights, seen.valid,
        samples, views, depths.shape[1], *cameras.size, *shown, *encoding.features.shape[1:3],
        N=per_program, VIEWS=padded, HAS_MASK=encoding.mask is not None, HAS_SURFACES=surfaces is not None,
    )  # fmt: skip
    return seen
