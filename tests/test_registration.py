"""Depth of a camera of its own, against a plane's and a step's true depth, and in captures and ScanNet folders."""

import json

import cv2
import numpy as np
import pytest

from dataset.database import open_scene
from dataset.maps import read_depth
from dataset.poses import OPENGL_TO_OPENCV
from dataset.prepare.transforms import prepare_transforms
from dataset.registration import DepthCamera
from dataset.synthetic.generate import Size, generate
from dataset.synthetic.raycast import Light
from train.metrics import depth_edges
from utils.errors import UserError
from utils.images import write_image

SIZE = (96, 128)
COLOR_K = np.array([[110.0, 0, 62], [0, 110, 48], [0, 0, 1]])
DEPTH_K = np.array([[125.0, 0, 64], [0, 124, 46], [0, 0, 1]])
TO_COLOR = np.eye(4)
TO_COLOR[:3, :3] = cv2.Rodrigues(np.array([0.01, -0.03, 0.02]))[0]
TO_COLOR[:3, 3] = (0.06, 0.01, -0.02)
CAMERA = DepthCamera(DEPTH_K, SIZE, TO_COLOR)


def plane(K, to_color, normal, distance, size=SIZE):
    """True depth in millimetres of the plane normal . x = distance (metres, the colour camera's coordinates)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    rays = np.stack([columns, rows, np.ones(size)], -1) @ np.linalg.inv(K).T @ to_color[:3, :3].T
    return (distance - to_color[:3, 3] @ normal) / (rays @ normal) * 1000


def test_a_slanted_plane_has_its_true_depth_and_no_holes():
    normal = np.array([0.5, -0.3, 1.0])
    depth = plane(DEPTH_K, TO_COLOR, normal, 2.0).round().astype(np.uint16)
    found = CAMERA.register(depth, COLOR_K, SIZE, "map")
    truth = plane(COLOR_K, np.eye(4), normal, 2.0)
    inside = found[8:-8, 12:-12]
    assert found.shape == SIZE and (inside > 0).all()
    assert np.abs(inside / truth[8:-8, 12:-12] - 1).max() < 0.004
    assert np.median(np.abs(inside / truth[8:-8, 12:-12] - 1)) < 0.001
    assert np.abs(depth / truth - 1)[8:-8, 12:-12].mean() > 0.02  # it is not that already


def test_at_a_step_the_nearer_wins_no_depth_lies_between_and_holes_stay():
    far, near = (plane(DEPTH_K, TO_COLOR, np.array([0, 0, 1.0]), z) for z in (3.0, 1.0))
    depth = np.where(np.arange(SIZE[1]) < 60, far, near).round().astype(np.uint16)
    depth[30:50, 80:100] = 0
    found = CAMERA.register(depth, COLOR_K, SIZE, "map")
    known = found[found > 0]
    assert (np.minimum(np.abs(known - 3000.0), np.abs(known - 1000.0)) < 15).all()
    holes = cv2.erode((found == 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    assert 150 < holes[20:60, 60:115].sum() < 400  # 20 x 20 pixels, a little smaller here
    assert (found[10:80, 100:115] > 0).all() and (np.abs(found[10:25, 75:115] - 1000.0) < 15).all()


def test_what_is_in_front_covers_what_it_moves_over():
    far, near = (plane(DEPTH_K, TO_COLOR, np.array([0, 0, 1.0]), z) for z in (3.0, 1.0))
    depth = np.where(np.arange(SIZE[1]) < 60, near, far).round().astype(np.uint16)
    found = CAMERA.register(depth, COLOR_K, SIZE, "map")
    edge = TO_COLOR[:3, :3] @ np.linalg.inv(DEPTH_K) @ [59, 48, 1] * near[48, 59] / 1000 + TO_COLOR[:3, 3]
    column, row = np.floor((COLOR_K @ edge)[:2] / edge[2]).astype(int)
    assert (np.abs(found[row, column - 6 : column] - 1000.0) < 15).all()
    assert (np.abs(found[row, column + 2 : column + 8] - 3000.0) < 15).all()


def test_maps_of_another_size_give_maps_of_the_colour_images_shape():
    normal = np.array([0, 0.4, 1.0])
    depth = plane(DEPTH_K, TO_COLOR, normal, 2.0).round().astype(np.uint16)
    K = np.diag([3.0, 3, 1]) @ COLOR_K
    K[:2, 2] += 1
    found = CAMERA.register(depth, K, (280, 384), "map")
    assert found.shape == (93, 128) and CAMERA.register(depth, COLOR_K, (48, 64), "map").shape == (48, 64)
    with pytest.raises(UserError, match="map: is 128x60, but its depth camera is 128x96"):
        CAMERA.register(depth[:60], COLOR_K, SIZE, "map")


def test_the_same_camera_needs_nothing():
    assert DepthCamera(COLOR_K, SIZE, np.eye(4)).unless_same(COLOR_K, SIZE) is None
    half = np.array([[55.0, 0, 30.75], [0, 55, 23.75], [0, 0, 1]])
    assert DepthCamera(half, (48, 64), np.eye(4)).unless_same(COLOR_K, SIZE) is None
    assert CAMERA.unless_same(COLOR_K, SIZE) is CAMERA
    moved = np.eye(4)
    moved[0, 3] = 0.01
    assert DepthCamera(COLOR_K, SIZE, moved).shift(COLOR_K, SIZE) == pytest.approx(110 * 0.01 / 0.5)


# Generated rooms, whose depth is moved into another camera


@pytest.fixture(scope="module", params=["transforms", "scannet"])
def rooms(request, tmp_path_factory):
    """(layout, root of a room as it is, root of the same with depth of another camera, 0.05 m beside)."""
    size = Size({"train": 1}, 6, SIZE, Light(1.0, 2, 1), 1)
    roots = [tmp_path_factory.mktemp(name) for name in ("plain", "apart")]
    for root in roots:
        generate(root, request.param, size)
    scene = open_scene(f"{request.param}/train_000/black_128", roots[0])
    K, pose = scene.Ks[0], np.linalg.inv(TO_COLOR)
    depth_K = K.copy()
    depth_K[:2, :2] *= 1.12
    for frame in scene.frame_ids:
        truth = DepthCamera(K, SIZE, pose).register(scene.stored(frame, "depth"), depth_K, SIZE, frame)
        write_image(roots[1] / scene.path(frame, "depth").relative_to(roots[0]), truth)
    say_cameras(roots[1] / request.param / "train_000", depth_K)
    return request.param, *roots


def say_cameras(folder, depth_K):
    if (folder / "intrinsic").is_dir():
        matrix = np.eye(4)
        matrix[:3, :3] = depth_K
        np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", matrix)
        np.savetxt(folder / "intrinsic" / "extrinsic_depth.txt", TO_COLOR)
        return
    content = json.loads((folder / "transforms.json").read_text())
    content |= {"depth_fl_x": depth_K[0, 0], "depth_fl_y": depth_K[1, 1]}
    content |= {"depth_cx": depth_K[0, 2] + 0.5, "depth_cy": depth_K[1, 2] + 0.5}
    content["depth_to_color"] = (OPENGL_TO_OPENCV @ TO_COLOR @ OPENGL_TO_OPENCV).tolist()
    (folder / "transforms.json").write_text(json.dumps(content))


def off_by(found, truth):
    """Shares of the pixels with depth in both, away from edges, that are off by more than 1%, and of those without
    depth."""
    known = (found > 0) & (truth > 0)
    flat = known & ~depth_edges(truth)
    return (np.abs(found / np.maximum(truth, 1.0) - 1) > 0.01)[flat].mean(), 1 - known.mean()


def test_a_room_is_read_with_its_depth_in_the_colour_camera(rooms):
    layout, plain, apart = rooms
    a, b = (open_scene(f"{layout}/train_000/black_128", root) for root in (plain, apart))
    for frame in a.frame_ids:
        wrong, missing = off_by(b.stored(frame, "depth"), a.stored(frame, "depth"))
        assert wrong < 0.06 and missing < 0.25
        unregistered = read_depth(b.path(frame, "depth"))
        assert off_by(unregistered, a.stored(frame, "depth"))[0] > 0.5


def test_preparation_writes_registered_depth(rooms, tmp_path):
    layout, plain, apart = rooms
    if layout != "transforms":
        return
    prepare_transforms(apart / "transforms" / "train_000", tmp_path / "transforms", "mine")
    content = json.loads((tmp_path / "transforms" / "mine" / "transforms.json").read_text())
    assert not any(key.startswith("depth_") and key != "depth_range" for key in content)
    a, b = open_scene("transforms/train_000/black_128", plain), open_scene("transforms/mine/black_128", tmp_path)
    wrong, missing = off_by(b.stored("2", "depth"), a.stored("2", "depth"))
    assert wrong < 0.06 and missing < 0.25


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth_fl_x": 100}, "its depth camera .*: cx should be a number"),
        ({"depth_fl_x": 100, "depth_cx": 64, "depth_cy": 48, "depth_k1": 0.1}, "depth_k1 is not read"),
        (
            {"depth_fl_x": 100, "depth_cx": 16, "depth_cy": 12, "depth_to_color": [[1, 2]]},
            "depth_to_color should be 4x4",
        ),
    ],
)
def test_a_depth_camera_that_cannot_be_read_is_refused(values, message, tmp_path):
    generate(tmp_path, "transforms", Size({"train": 1}, 2, (24, 32), Light(1.0, 2, 1), 1))
    path = tmp_path / "transforms" / "train_000" / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(UserError, match=message):
        open_scene("transforms/train_000/black_32", tmp_path)


def test_a_colour_camera_apart_from_what_poses_are_of_moves_the_poses(tmp_path):
    generate(tmp_path, "scannet", Size({"train": 1}, 4, (24, 32), Light(1.0, 2, 1), 1))
    before = open_scene("scannet/train_000/black_32", tmp_path).camera_to_world
    for sensor in ("color", "depth"):  # the two are aligned all the same
        np.savetxt(tmp_path / "scannet" / "train_000" / "intrinsic" / f"extrinsic_{sensor}.txt", TO_COLOR)
    scene = open_scene("scannet/train_000/black_32", tmp_path)
    np.testing.assert_allclose(scene.camera_to_world, before @ TO_COLOR, atol=1e-9)
    assert not scene._depth_cameras
