"""The benchmark on real captures: what can be tested without one."""

import numpy as np

from benchmarks.captures import camera_keys, write_small
from benchmarks.labels import IGNORED, rasterise, read_polygons
from benchmarks.real import NINE, in_nine
from dataset.database import open_scene
from dataset.labels import SCANNET_CLASSES
from dataset.synthetic.generate import Size, generate
from dataset.synthetic.raycast import Light
from train.metrics import class_scores

IDS = {name: number for number, name in enumerate(SCANNET_CLASSES)}


def test_polygons_are_painted_in_order_with_an_unlabelled_border():
    polygons = [["wall", [[0, 0], [39, 0], [39, 29], [0, 29]]], ["chair", [[10, 10], [30, 10], [30, 29], [10, 29]]]]
    classes = rasterise([*polygons, ["ignore", [[18, 18], [22, 18], [22, 22], [18, 22]]]], (30, 40))
    assert classes[5, 5] == IDS["wall"] and classes[14, 14] == IDS["chair"] and classes[20, 20] == IGNORED
    assert (classes[8:12, 20] == IGNORED).all() and classes[7, 20] == IDS["wall"] and classes[12, 20] == IDS["chair"]
    assert (rasterise([], (30, 40)) == IGNORED).all()


def test_all_hand_labels_can_be_read():
    for name, size in {"kitchen": (480, 640), "hololens": (360, 540)}.items():
        frames = read_polygons(name)
        shares = [(rasterise(polygons, size) != IGNORED).mean() for polygons in frames.values()]
        assert len(frames) == 8 and min(shares) > 0.15 and max(shares) < 0.98


def test_nine_classes_of_a_confusion_matrix():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 20, 5000), rng.integers(0, 21, 5000)
    matrix = np.bincount(truth * 21 + found, minlength=420).reshape(20, 21)
    place = np.array([NINE.index(name) if name in NINE else 8 for name in SCANNET_CLASSES] + [9])
    expected = np.bincount(place[truth] * 10 + place[found], minlength=90).reshape(9, 10)
    assert (in_nine(matrix) == expected).all()
    assert class_scores(in_nine(np.eye(20, 21, dtype=int)))["miou"] == 1


def test_a_small_capture_is_what_the_scene_is(tmp_path):
    generate(tmp_path, "scannet", Size({"train": 1}, 12, (48, 64), Light(1.0, 2, 1), 1))
    scene = open_scene("scannet/train_000/black_32", tmp_path)
    write_small(scene, tmp_path / "small", overlays=True)
    small = open_scene(f"{tmp_path / 'small'}/black_32", tmp_path)
    assert small.split().tests and len(small.split().tests) == len(scene.split().tests)
    for a, b in zip(scene.frame_ids, small.frame_ids, strict=True):
        left, right = scene.views([a], depth=True, labels=True), small.views([b], depth=True, labels=True)
        assert (left.depth == right.depth).all() and (left.labels == right.labels).all()
        assert (left.images == right.images).all()
        np.testing.assert_allclose(left.cameras.poses, right.cameras.poses, atol=1e-5)
        np.testing.assert_allclose(left.cameras.Ks, right.cameras.Ks, atol=1e-4)
    assert camera_keys(np.eye(3), "depth_")["depth_cx"] == 0.5
    assert len(list((tmp_path / "small" / "overlays").iterdir())) == len(scene.split().tests)
