"""Single frames that fit no other are named, and sound scenes have none."""

import shutil

import cv2
import numpy as np
import pytest

from dataset.check.outliers import MOST, find_outliers
from dataset.database import open_scene
from dataset.synthetic.generate import Size, generate
from dataset.synthetic.raycast import Light
from utils.images import read_color, write_image

NAME = "scannet/train_000/black_96"
BAD = "11"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("outliers")
    generate(root, "scannet", Size({"train": 1}, 16, (96, 128), Light(0.6, 4, 2), 1))
    return root / "scannet"


@pytest.fixture
def folder(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "scannet")
    return tmp_path / "scannet" / "train_000"


def outliers(folder, sample=0):
    return find_outliers(open_scene(NAME, folder.parent.parent), sample)


def change_pose(folder, frame, change):
    path = folder / "pose" / f"{frame}.txt"
    np.savetxt(path, change(np.loadtxt(path)))


def moved(pose):
    return pose + np.array([[0, 0, 0, 0.4], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def turned_color(folder, frame):
    path = folder / "color" / f"{frame}.jpg"
    write_image(path, np.ascontiguousarray(read_color(path)[::-1, ::-1]))


def larger_depth(folder, frame):
    path = folder / "depth" / f"{frame}.png"
    write_image(path, (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * 1.3).astype(np.uint16))


def test_a_sound_scene_has_none_and_a_few_frames_tell_nothing(folder):
    assert outliers(folder) == []
    larger_depth(folder, BAD)
    assert outliers(folder, sample=8) == []


@pytest.mark.parametrize(
    "spoil, what",
    [
        (lambda folder, frame: change_pose(folder, frame, moved), "depth, pose or intrinsics fit"),
        (lambda folder, frame: change_pose(folder, frame, np.linalg.inv), "depth, pose or intrinsics fit"),
        (larger_depth, "depth, pose or intrinsics fit"),
        (turned_color, "colour fits"),
    ],
)
def test_a_bad_frame_is_named_and_its_neighbours_are_not(folder, spoil, what):
    spoil(folder, BAD)
    (line,) = outliers(folder)
    assert line.startswith(f"frame {BAD}: {what} no other frame")


def test_where_many_frames_are_wrong_no_single_one_is_named(folder):
    scene = open_scene(NAME, folder.parent.parent)
    for frame in scene.frame_ids[:: int(1 / (1.5 * MOST))]:
        larger_depth(folder, frame)
    assert outliers(folder) == []
