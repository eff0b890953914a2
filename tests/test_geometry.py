"""Geometry against naive loops."""

import math

import numpy as np
import pytest
import torch

from dataset.camera import scale_intrinsics
from dataset.scene import view_size
from dataset.views import Cameras, Views
from network.front_ends.depth import DepthInitNet, fill_unknown, view_differences
from network.geometry import (
    directions_to_cameras,
    from_inverse_depth,
    pixel_grid,
    pixel_rays,
    project,
    read_map,
    to_inverse_depth,
)
from network.padding import pad_views
from network.renderer import Renderer


def random_cameras(count: int, size=(24, 32), seed: int = 0) -> Cameras:
    generator = torch.Generator().manual_seed(seed)
    rotations = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)).Q
    rotations = rotations * torch.linalg.det(rotations)[:, None, None]
    poses = torch.cat([rotations, torch.randn(count, 3, 1, generator=generator, dtype=torch.float64)], -1)
    Ks = torch.tensor([[30.0, 0, 15.2], [0, 31.0, 11.7], [0, 0, 1]], dtype=torch.float64).repeat(count, 1, 1)
    Ks[:, 0, 0] += torch.arange(count)
    ranges = torch.tensor([[0.5, 6.0]], dtype=torch.float64) + 0.1 * torch.arange(count)[:, None]
    return Cameras(poses, Ks, ranges, size)


def test_project_equals_a_loop():
    cameras = random_cameras(5)
    points = torch.randn(200, 3, dtype=torch.float64) * 3
    # one point in the first camera's plane, one just inside and one just outside its right border
    centre, directions = pixel_rays(
        torch.tensor([[[31.499, 5.0], [31.501, 5.0]]], dtype=torch.float64).repeat(5, 1, 1), cameras.poses, cameras.Ks
    )
    points = torch.cat([points, cameras.centres()[:1], centre[0] + 2 * directions[0]])
    projection = project(points, cameras)
    for v in range(5):
        for n, point in enumerate(points):
            x, y, z = (cameras.Ks[v] @ (cameras.poses[v, :, :3] @ point + cameras.poses[v, :, 3])).tolist()
            valid = abs(z) >= 1e-4
            z = z if valid else 1e-3
            valid &= -0.5 <= x / z < 31.5 and -0.5 <= y / z < 23.5
            assert bool(projection.valid[v, n]) == valid
            np.testing.assert_allclose(projection.depth[v, n], z, atol=1e-9)
            np.testing.assert_allclose(projection.pixels[v, n], [x / z, y / z], rtol=1e-6, atol=1e-6)
    assert not projection.valid[0, 200] and projection.valid[0, 201] and not projection.valid[0, 202]


def test_points_behind_a_camera_are_not_marked_invalid():
    cameras = Cameras(
        torch.eye(3, 4)[None],
        torch.tensor([[[30.0, 0, 15], [0, 30, 12], [0, 0, 1]]]),
        torch.tensor([[0.1, 10.0]]),
        (24, 32),
    )
    projection = project(torch.tensor([[0.0, 0, -2]]), cameras)
    assert projection.valid.item() and projection.depth.item() == -2


def test_rays_and_projection_round_trip():
    cameras = random_cameras(4, seed=1)
    pixels = pixel_grid(24, 32).double().expand(4, -1, -1)
    centres, directions = pixel_rays(pixels, cameras.poses, cameras.Ks)
    for v in range(4):
        depth = torch.rand(24 * 32, dtype=torch.float64) * 5 + 0.2
        projection = project(centres[v] + depth[:, None] * directions[v], cameras)
        np.testing.assert_allclose(projection.pixels[v], pixels[v], atol=1e-6)
        np.testing.assert_allclose(projection.depth[v], depth, atol=1e-6)
        assert projection.valid[v].all()


def test_directions_to_cameras_are_unit_and_point_back():
    cameras = random_cameras(3)
    points = torch.randn(10, 3, dtype=torch.float64)
    directions = directions_to_cameras(points, cameras)
    for v in range(3):
        for n in range(10):
            expected = cameras.centres()[v] - points[n]
            np.testing.assert_allclose(
                directions[v, n], expected / math.sqrt(sum(x * x for x in expected.tolist())), atol=1e-9
            )


@pytest.mark.parametrize("align_corners", [True, False])
def test_read_map_equals_a_loop(align_corners):
    image_size, maps = (16, 24), torch.randn(2, 3, *((16, 24) if align_corners else (4, 6)), dtype=torch.float64)
    pixels = torch.rand(2, 50, 2, dtype=torch.float64) * torch.tensor([30.0, 20.0]) - 3
    read = read_map(maps, pixels, image_size, align_corners)
    height, width = maps.shape[-2:]
    for v in range(2):
        for n in range(50):
            x, y = pixels[v, n].tolist()
            # feature maps are normalised by the image's size and read with align_corners=False
            gx, gy = 2 * x / (24 - 1) - 1, 2 * y / (16 - 1) - 1
            if align_corners:
                x, y = (gx + 1) / 2 * (width - 1), (gy + 1) / 2 * (height - 1)
            else:
                x, y = ((gx + 1) * width - 1) / 2, ((gy + 1) * height - 1) / 2
            x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            x0, y0 = min(int(x), width - 2), min(int(y), height - 2)
            a, b = x - x0, y - y0
            m = maps[v]
            expected = (
                (1 - a) * (1 - b) * m[:, y0, x0]
                + a * (1 - b) * m[:, y0, x0 + 1]
                + (1 - a) * b * m[:, y0 + 1, x0]
                + a * b * m[:, y0 + 1, x0 + 1]
            )
            np.testing.assert_allclose(read[v, n], expected, atol=1e-9)


def test_inverse_depth_runs_from_0_at_near_to_1_at_far_and_back():
    ranges = torch.tensor([[0.5, 8.0], [1.0, 3.0]])
    np.testing.assert_allclose(to_inverse_depth(ranges, ranges), [[0, 1], [0, 1]], atol=1e-6)
    depth = torch.rand(2, 7, 5) * 5 + 0.3
    np.testing.assert_allclose(from_inverse_depth(to_inverse_depth(depth, ranges), ranges), depth, rtol=1e-4)
    middle = from_inverse_depth(torch.tensor([[0.5]]), torch.tensor([[0.5, 8.0]])).item()
    assert middle == pytest.approx(2 / (1 / 0.5 + 1 / 8))  # the harmonic mean


def test_view_differences_equal_a_loop():
    cameras = random_cameras(3, size=(4, 8), seed=2)
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(3, 3, 4, 8, generator=generator, dtype=torch.float64)
    depth = torch.rand(3, 1, 4, 8, generator=generator, dtype=torch.float64) * 2 + 1
    # cameras that see each other's points: nearly the same pose
    cameras = Cameras(
        cameras.poses[:1] + 0.02 * cameras.poses,
        cameras.Ks * torch.tensor([[0.3], [0.3], [1.0]], dtype=torch.float64),
        cameras.depth_range,
        (4, 8),
    )
    views = Views(cameras, images, depth)
    result = view_differences(views)
    seen = 0
    for v in range(3):
        centres, directions = pixel_rays(
            pixel_grid(4, 8).double()[None], cameras.poses[v : v + 1], cameras.Ks[v : v + 1]
        )
        for y in range(4):
            for x in range(8):
                point = centres[0] + directions[0, y * 8 + x] * depth[v, 0, y, x]
                projection = project(point[None], cameras)
                colors, depths = [], []
                for t in range(3):
                    if not projection.valid[t, 0]:
                        continue
                    read = read_map(torch.cat([images[t], depth[t]])[None], projection.pixels[t : t + 1], (4, 8), True)[
                        0, 0
                    ]
                    colors.append((read[:3] - images[v, :, y, x]).abs())
                    near, far = cameras.depth_range[t].tolist()
                    difference = abs(-1 / max(read[3].item(), 1e-5) + 1 / max(projection.depth[t, 0].item(), 1e-5))
                    depths.append(min(difference / (-1 / far + 1 / near), 1.5))
                seen += len(colors)
                colors, depths = torch.stack(colors), torch.tensor(depths, dtype=torch.float64)
                expected = [*colors.mean(0), *colors.var(0, unbiased=False), depths.mean(), depths.var(unbiased=False)]
                np.testing.assert_allclose(result[v, :, y, x], expected, atol=1e-8)
    assert seen > 150  # most pixels fall into several views


def test_intrinsics_scale_each_axis_by_its_own_ratio():
    raw, size = (968, 1296), (240, 320)
    K = np.array([[1170.0, 0, 647.75], [0, 1171.0, 483.75], [0, 0, 1]])
    scaled = scale_intrinsics(K, raw, size)
    for x, y, z in ((0.3, -0.2, 2.0), (-1, 0.5, 3)):
        big, small = K @ [x / z, y / z, 1], scaled @ [x / z, y / z, 1]
        # a point keeps its place relative to the image's outer border, half a pixel outside the first centre
        assert (small[0] + 0.5) / 320 == pytest.approx((big[0] + 0.5) / 1296)
        assert (small[1] + 0.5) / 240 == pytest.approx((big[1] + 0.5) / 968)


@pytest.mark.parametrize(
    ("raw", "width", "expected"),
    [
        ((968, 1296), 320, (240, 320)),
        ((480, 640), 320, (240, 320)),
        ((480, 640), 640, (480, 640)),
        ((968, 1296), 160, (120, 160)),
    ],
)
def test_view_size(raw, width, expected):
    assert view_size(width, raw) == expected


def test_padding_reflects_below_and_right_and_leaves_the_rest():
    cameras = random_cameras(2, size=(20, 33))
    views = Views(cameras, torch.rand(2, 3, 20, 33), torch.rand(2, 1, 20, 33))
    padded = pad_views(views, 16)
    assert (
        padded.cameras.size == (32, 48)
        and padded.images.shape == (2, 3, 32, 48)
        and padded.depth.shape == (2, 1, 32, 48)
    )
    assert torch.equal(padded.images[..., :20, :33], views.images)
    assert torch.equal(padded.images[..., 20, :33], views.images[..., 18, :])
    assert torch.equal(padded.depth[..., :20, 33], views.depth[..., :, 31])


def test_unknown_depth_is_filled_from_around_it_and_known_depth_stays():
    values = torch.rand(2, 1, 13, 21)
    known = torch.rand(2, 1, 13, 21) > 0.3
    known[0, 0, 3:9, 5:12] = False
    filled = fill_unknown(torch.where(known, values, torch.tensor(77.0)), known)
    assert torch.equal(filled[known], values[known])
    assert filled[~known].min() >= values.min() and filled[~known].max() <= values.max()  # nothing of the holes' own 77
    flat = fill_unknown(torch.full((1, 1, 9, 9), 0.3) * (torch.arange(9) < 4), (torch.arange(9) < 4).expand(1, 1, 9, 9))
    assert torch.allclose(flat, torch.tensor(0.3))
    assert torch.equal(
        fill_unknown(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)), torch.full((1, 1, 4, 4), 0.5)
    )


def test_pixels_of_unknown_depth_are_compared_with_nothing():
    cameras = random_cameras(1, size=(6, 8))
    cameras = Cameras(
        cameras.poses.repeat(2, 1, 1), cameras.Ks.repeat(2, 1, 1), cameras.depth_range.repeat(2, 1), (6, 8)
    )
    images = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    depth = torch.full((2, 1, 6, 8), 2.0, dtype=torch.float64)
    known = torch.ones(2, 1, 6, 8, dtype=torch.bool)
    known[1, 0, 2, 3] = False
    whole, holed = (
        view_differences(Views(cameras, images, depth)),
        view_differences(Views(cameras, images, depth), known),
    )
    assert (holed[1, :, 2, 3] == 0).all()  # compared with nothing
    # the same camera twice: a pixel falls on itself and on its twin; here the twin is unknown, so only itself is left
    assert whole[0, :3, 2, 3].abs().sum() > 0 and torch.allclose(holed[0, :, 2, 3], torch.zeros(8, dtype=torch.float64))
    elsewhere = torch.ones(6, 8, dtype=torch.bool)
    elsewhere[2, 3] = False
    assert torch.allclose(whole[..., elsewhere], holed[..., elsewhere])


def test_holes_never_reach_the_network_as_a_depth():
    network = DepthInitNet(fill_holes=True)
    cameras = random_cameras(2, size=(32, 32))
    cameras = Cameras(cameras.poses.float(), cameras.Ks.float(), cameras.depth_range.float(), (32, 32))
    depth = torch.full((2, 1, 32, 32), 2.0)
    depth[:, :, 10:16, 10:16] = 0
    seen = []
    network.res_net.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0][:, 3]))
    network(Views(cameras, torch.rand(2, 3, 32, 32), depth), None)
    assert torch.allclose(seen[0], seen[0][:, :1, :1].expand_as(seen[0]), atol=1e-6)
    published = DepthInitNet(fill_holes=False)
    published.res_net.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0][:, 3]))
    published(Views(cameras, torch.rand(2, 3, 32, 32), depth), None)
    assert (seen[1][:, 12, 12] == 0).all()  # near, as in the published code


def test_what_a_mask_hides_is_not_seen(config):
    network = Renderer(config(density_activation="softplus")).eval()  # no ray of which ends nowhere
    cameras = Cameras(
        torch.eye(3, 4).repeat(3, 1, 1),
        torch.tensor([[30.0, 0, 15.5], [0, 30, 15.5], [0, 0, 1]]).repeat(3, 1, 1),
        torch.tensor([[0.5, 5.0]]).repeat(3, 1),
        (32, 32),
    )
    images, depth = torch.rand(3, 3, 32, 32), torch.full((3, 1, 32, 32), 2.0)
    pixels = torch.tensor([[16.0, 16.0], [3.0, 16.0]])
    query = Cameras(cameras.poses[:1], cameras.Ks[:1], cameras.depth_range[:1], (32, 32))
    mask = torch.ones(3, 1, 32, 32)
    mask[..., :8] = 0
    with torch.no_grad():
        plain, whole, holed = (
            network(Views(cameras, images, depth, mask=m), query, pixels[None]).passes[0]
            for m in (None, torch.ones_like(mask), mask)
        )
    assert torch.equal(plain.color, whole.color)
    assert torch.equal(holed.color[0], plain.color[0]) and (holed.color[1] == 0).all() and not holed.scored[1]
    assert plain.seen.all() and holed.seen.tolist() == [True, False]
