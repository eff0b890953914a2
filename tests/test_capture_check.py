"""The check of captures: what is wrong with depth, poses and colour is named, and a good one passes."""

import re

import cv2
import numpy as np
import pytest
from captures import FRAMES, both, change_poses, checked, edit, edit_frames, image, opened, prepared, resize_images

from dataset.check.warping import choose_pairs
from dataset.render_dataset import Needs, TestSet
from utils.images import read_color, write_image


def scale_depth(capture, factor):
    for path in (capture / "depth").iterdir():
        write_image(path, (cv2.imread(str(path), -1) * factor).clip(0, 65535).astype(np.uint16))


def test_a_good_capture_passes(base):
    assert checked(base) == ""


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (6.5535, r"1/6553.5 m, as in NICE-SLAM's Replica \(the factor 0.15\d+ is [0-3]\.\d% from it\)"),
        (5, r"1/5000 m, as in TUM's files \(the factor 0\.(19|20)\d+ is"),
        (6.5535 / 5, r"positions are 1\.\d+ times too small for the depth.*nearest known unit"),
        (0.1, "in centimetres"),
    ],
)
def test_the_unit_of_depth_is_estimated(capture, factor, cause):
    scale_depth(capture, factor)
    assert re.search(cause, checked(capture)), checked(capture)


@pytest.mark.parametrize("factor", [0.25, 1.5, 4])
def test_poses_scaled_against_depth_are_not_a_unit(capture, factor):
    def change(matrix):
        matrix[:3, 3] *= factor
        return matrix

    change_poses(capture, change)
    found = checked(capture)
    assert "positions are" in found and "depth is not in millimetres" not in found


def test_positions_that_do_not_fit_are_no_unit(capture):
    rng = np.random.default_rng(0)

    def change(matrix):
        matrix[:3, 3] += rng.normal(0, 0.15, 3)
        return matrix

    change_poses(capture, change)
    found = checked(capture)
    assert "frames do not agree" in found and "unit" not in found


def test_eight_bit_depth_is_a_cause_of_its_own(capture):
    for path in (capture / "depth").iterdir():
        write_image(path, (cv2.imread(str(path), -1) // 40).astype(np.uint8))
    assert "24 files: " in checked(capture, 0)
    assert "depth has 8 bits" in checked(capture)


@pytest.mark.parametrize(
    ("turn", "name"), [((-1, -1), "turned by 180 degrees"), ((1, -1), "mirrored"), ((-1, 1), "upside down")]
)
def test_colour_that_lies_otherwise_than_depth_is_named(capture, turn, name):
    for path in (capture / "images").iterdir():
        write_image(path, read_color(path)[:: turn[0], :: turn[1]])
    assert f"colour is {name} against depth" in checked(capture)


def test_colour_of_other_frames_is_wrong(capture):
    pictures = [read_color(image(capture, number)) for number in range(FRAMES)]
    for number in range(FRAMES):
        write_image(image(capture, number), pictures[(number + FRAMES // 2) % FRAMES])
    assert "colour does not fit depth and poses" in checked(capture)


def test_frames_that_look_alike_from_far_apart_are_no_pair(base):
    """A camera that turns fast, and later the same way in another place: only neighbours see the same."""
    scene = opened(base)
    scene.camera_to_world = np.tile(np.eye(4), (FRAMES, 1, 1))
    for row in range(FRAMES):
        turn = np.radians(30 * (row % 12) + 8 * (row // 12))
        scene.camera_to_world[row, :3, :3] = cv2.Rodrigues(np.array([0, turn, 0]))[0]
        scene.camera_to_world[row, :3, 3] = 0.1 * (row % 12), 5 * (row // 12), 0
    apart = [int(second) - int(first) for first, second in (pair.frames for pair in choose_pairs(scene, 6))]
    assert set(apart) == {1}


def test_some_wrong_poses_fail_against_the_best_pairs(capture):
    rng = np.random.default_rng(1)

    def change(matrix):
        matrix[:3, 3] += rng.normal(0, 0.4, 3)
        return matrix

    change_poses(capture, change, 3)
    assert "in the best pairs" in checked(capture)


@pytest.mark.parametrize("numbers", [[4, 9], range(0, FRAMES, 3)])
def test_frames_of_another_shape_are_left_out_and_fail_the_check(capture, numbers):
    def change(content):
        for number in numbers:
            content["frames"][number].update(w=96, h=128, cx=48, cy=64)

    edit(capture, change)
    resize_images(capture, (128, 96), numbers)
    for scene in both(capture):
        assert len(scene) == FRAMES - len(numbers)
        TestSet(scene, 3, Needs())[0]
    assert f"{len(numbers)} frames are left out: of another image size" in checked(capture)


def test_a_map_of_another_shape_fails_the_check(capture):
    for path in (capture / "depth").iterdir():
        write_image(path, np.ascontiguousarray(cv2.imread(str(path), -1).T))
    assert "is 96x128, but the frame's colour is 128x96" in checked(capture)


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_capture_without_depth_in_other_units_gets_a_hint(capture, factor, capsys):
    def change(matrix):
        matrix[:3, 3] *= factor
        return matrix

    change_poses(capture, change)
    edit_frames(capture, lambda frame: frame.pop("depth_file_path"))
    opened(capture)
    assert "are its lengths metres?" in capsys.readouterr().err and "are its lengths metres?" in checked(capture)
    prepared(capture)
    assert "are its lengths metres?" in capsys.readouterr().err
