"""Near and far that fit a scene, from its depth maps or from what its images have in common."""

import shutil

import numpy as np
import pytest

from dataset.cache import Cache
from dataset.database import configured_scene, open_scene
from dataset.depth_range import range_of_depth, triangulate
from utils.errors import UserError
from utils.images import read_map, write_image

ROOM = "scannet/train_000/black_64"


@pytest.fixture
def data(rooms, tmp_path):
    shutil.copytree(rooms / "scannet", tmp_path / "data" / "scannet")
    return tmp_path / "data"


def fitted(name, root, cache=None, use_depth=True):
    scene = open_scene(name, root, cache)
    scene.fit_depth_range(use_depth)
    return scene.depth_range


def true_ends(scene):
    frames = [frame for frame in scene.frame_ids if frame not in scene.split().tests]
    depth = scene.views(frames, depth=True).depth.numpy() / 1000
    return np.percentile(depth[depth > 0], (1, 99))


def test_depth_maps_give_a_range_that_outliers_and_unknown_pixels_do_not_move():
    rng = np.random.default_rng(0)
    maps = [rng.uniform(1000, 4000, (30, 40)).astype(np.uint16) for _ in range(30)]
    clean = range_of_depth(maps)
    assert 0.75 < clean[0] < 0.9 and 4.6 < clean[1] < 5.1  # margins of a quarter
    for depth in maps:
        depth[:3, :2] = 60  # half a percent
        depth[5:7, :3] = 60000
    maps[0][:] = 50
    maps[1][:] = 65000
    maps[2][:] = 0
    for depth in maps:
        depth[20:, :] = 0
    assert range_of_depth(maps) == pytest.approx(clean, rel=0.1)
    assert range_of_depth([np.zeros((4, 4), np.uint16)]) is None


@pytest.mark.parametrize("use_depth", [True, False])
def test_auto_contains_the_surfaces_and_little_else(rooms, use_depth):
    scene = open_scene("scannet/train_000/black_128", rooms)
    near, far = true_ends(scene)
    scene.fit_depth_range(use_depth)
    assert near / 2.2 < scene.depth_range[0] < near and far < scene.depth_range[1] < far * 2.2
    assert scene.cameras(scene.frame_ids[:1]).depth_range[0].tolist() == pytest.approx(scene.depth_range)


def test_matches_give_the_depth_in_both_views_and_those_that_do_not_fit_are_dropped():
    rng = np.random.default_rng(0)
    K, pose = np.array([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]]), np.eye(4)
    other = pose.copy()
    other[:3, 3] = 0.4, 0, -0.5  # half a metre behind
    world = rng.uniform([-1, -1, 2], [1, 1, 4], (20, 3))

    def seen(points, camera):
        projected = (points - camera[:3, 3]) @ K.T
        return projected[:, :2] / projected[:, 2:]

    points, others = seen(world, pose), seen(world, other)
    expected = np.stack([world[:, 2], world[:, 2] + 0.5], -1)
    np.testing.assert_allclose(triangulate(points, others, (pose, K), (other, K)), expected)
    others[:5, 1] += 9  # off the epipolar lines
    points[5], others[5] = seen(world[5:6] * [1, 1, -1], pose), seen(world[5:6] * [1, 1, -1], other)  # behind
    points[6], others[6] = seen(world[6:7] * 100, pose), seen(world[6:7] * 100, other)  # far away
    np.testing.assert_allclose(triangulate(points, others, (pose, K), (other, K)), expected[7:])


def test_where_nothing_matches_the_range_stays_and_a_line_says_so(data, capsys):
    for path in (data / "scannet" / "train_000" / "color").iterdir():
        write_image(path, np.full((48, 64, 3), 100, np.uint8))
    assert fitted(ROOM, data, use_depth=False) == (0.1, 10.0)
    assert "too few matches" in capsys.readouterr().err


def test_the_range_is_kept_with_the_decoded_frames_and_found_anew_when_they_change(data, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache", 1e9)
    first = fitted(ROOM, data, cache), fitted(ROOM, data, cache, use_depth=False)
    assert first[0] != first[1]
    with monkeypatch.context() as patched:
        for name in ("range_of_depth", "range_of_matches"):
            patched.setattr(f"dataset.scene.{name}", lambda *_: pytest.fail("found again"))
        assert (fitted(ROOM, data, cache), fitted(ROOM, data, cache, use_depth=False)) == first
    for path in (data / "scannet" / "train_000" / "depth").iterdir():
        write_image(path, read_map(path) * 2)
    assert fitted(ROOM, data, cache)[1] == pytest.approx(2 * first[0][1], rel=0.01)


def test_a_damaged_depth_map_does_not_hinder(data):
    whole = fitted(ROOM, data)
    path = min((data / "scannet" / "train_000" / "depth").iterdir())
    path.write_bytes(path.read_bytes()[:100])
    assert fitted(ROOM, data) == pytest.approx(whole, rel=0.1)


def test_auto_is_a_value_of_the_config_and_other_words_are_errors(config, rooms):
    auto = configured_scene(ROOM, config(depth_range="auto"), use_depth=True)
    assert auto.depth_range == fitted(ROOM, rooms) != (0.1, 10.0)
    assert configured_scene(ROOM, config(depth_range=[0.5, 9]), use_depth=True).depth_range == (0.5, 9)
    with pytest.raises(UserError, match="or auto, but is 'automatic'"):
        configured_scene(ROOM, config(depth_range="automatic"), use_depth=True)
