"""Poses as people have them: scaled, mirrored, lost, reset; mended, left out with their frames, or refused in one
line."""

import json
import shutil

import numpy as np
import pytest
from captures import FRAMES, ROOM, assert_same, both, change_poses, edit, edit_frames, image, opened, prepared

from dataset.database import open_scene
from dataset.poses import to_pose
from utils.errors import UserError


def scaled(matrix, factor=2.0):
    matrix = matrix.copy()
    matrix[:3, :3] = matrix[:3, :3] * factor
    return matrix


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize(
    "change",
    [scaled, lambda m: scaled(m, 0.01), lambda m: scaled(m, np.array([2.0, 1, 3])), lambda m: 3 * m, lambda m: m[:3]],
    ids=["twice", "small", "each axis", "homogeneous", "3x4"],
)
def test_a_rotation_with_a_scale_is_divided_by_it(capture, truth, change, every, capsys):
    change_poses(capture, change, every)
    for scene in both(capture):
        assert_same(scene, truth)
    mended = change(np.eye(4))[-1, -1] == 1 and change(np.eye(4))[0, 0] != 1
    assert ("rotations are scaled by" in capsys.readouterr().err) == mended


def test_rounded_rotations_are_said_once_and_are_rotations(capture, truth, capsys):
    change_poses(capture, lambda matrix: matrix.round(2))
    scene = opened(capture)
    assert np.abs(scene.camera_to_world - truth.camera_to_world).max() < 0.02
    rotations = scene.camera_to_world[:, :3, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (FRAMES, 1, 1)), atol=1e-9)
    said = capsys.readouterr().err
    assert said.count("rotations are rounded") == 1 and "scaled" not in said


def test_a_pose_is_mended_once():
    noisy = np.eye(4)
    noisy[0, 1] = 1e-5
    assert to_pose(noisy, "f", "m").tolist() == noisy.tolist()  # rounding is left alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m @ np.diag([-1.0, 1, 1, 1]), "is a mirror image"),
        (lambda m: np.diag([1.0, 1, -1, 1]) @ m, "is a mirror image"),
        (lambda m: m.T, "is it transposed"),
        (lambda m: m @ np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "not at right angles"),
        (lambda m: m[:2], "should be 4x4"),
        (lambda m: [["a"] * 4] * 4, "should be 4x4"),
    ],
)
def test_what_is_no_rotation_is_refused_everywhere(capture, change, message):
    change_poses(capture, change, 5)
    for use in (opened, prepared):
        with pytest.raises(UserError, match=message):
            use(capture)


def test_poses_of_scannet_and_replica_are_checked_alike(room, replica_rooms, tmp_path):
    path = room / "scannet" / "train_000" / "pose" / "3.txt"
    pose = np.loadtxt(path)
    np.savetxt(path, scaled(pose))
    scene = open_scene(ROOM, room)
    np.testing.assert_allclose(scene.camera_to_world[scene.frame_ids.index("3")], pose, atol=1e-5)
    np.savetxt(path, pose @ np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(UserError, match=r"pose: 3.txt is a mirror image"):
        open_scene(ROOM, room)
    copy = shutil.copytree(replica_rooms / "Replica" / "val_000", tmp_path / "r" / "Replica" / "val_000")
    lines = np.loadtxt(copy / "Sequence_1" / "traj_w_c.txt")
    lines[7] = (lines[7].reshape(4, 4) @ np.diag([1, 1, -1.0, 1])).ravel()
    np.savetxt(copy / "Sequence_1" / "traj_w_c.txt", lines)
    with pytest.raises(UserError, match="line 8 is a mirror image"):
        open_scene("replica/val_000/Sequence_1/black_64", tmp_path / "r")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_lost_poses_are_left_out_wherever_they_stand(capture, room, value):
    change_poses(capture, lambda m: np.full((4, 4), value), 6)
    for scene in both(capture):
        assert len(scene) == FRAMES - 4
    assert opened(capture).skipped == {"tracking lost": 4}
    path = room / "scannet" / "train_000" / "pose" / "3.txt"
    np.savetxt(path, np.full((4, 4), value))
    assert "3" not in open_scene(ROOM, room).frame_ids


@pytest.mark.parametrize("numbers", [[7], [3, 9, 15], [10, 11, 12], [22, 23]])
def test_poses_that_were_reset_are_left_out(capture, room, numbers):
    def change(content):
        for number in numbers:
            content["frames"][number]["transform_matrix"] = np.eye(4).tolist()

    edit(capture, change)
    for scene in both(capture):
        assert len(scene) == FRAMES - len(numbers)
    assert opened(capture).skipped == {"pose reset to the identity": len(numbers)}
    before = len(open_scene(ROOM, room))
    for number in numbers:
        np.savetxt(room / "scannet" / "train_000" / "pose" / f"{number}.txt", np.eye(4))
    assert not set(map(str, numbers)) & set(open_scene(ROOM, room).frame_ids) and before > FRAMES - 3


def test_a_capture_that_starts_at_the_identity_keeps_its_first_frame(capture):
    first = np.array(json.loads((capture / "transforms.json").read_text())["frames"][0]["transform_matrix"])
    change_poses(capture, lambda m: np.linalg.inv(first) @ m)
    edit(capture, lambda content: content["frames"][0].update(transform_matrix=np.eye(4).tolist()))
    assert len(opened(capture)) == FRAMES


@pytest.mark.parametrize("mark", [{"is_bad": True}, {"bad": 1}, {"valid": False}, {"enabled": False}, {"blurry": True}])
def test_frames_that_the_capture_marks_as_bad_are_left_out(capture, mark):
    edit_frames(capture, lambda frame: frame.update({key: not value for key, value in mark.items()}))
    edit_frames(capture, lambda frame: frame.update(mark), every=6)
    for scene in both(capture):
        assert len(scene) == FRAMES - 4
    assert opened(capture).skipped == {"marked as bad": 4}


def test_frames_without_a_pose_or_an_image_are_left_out_alike(capture):
    edit(capture, lambda content: content["frames"][3].update(transform_matrix=None))
    image(capture, 5).unlink()
    for scene in both(capture):
        assert len(scene) == FRAMES - 2
    assert opened(capture).skipped == {"no pose": 1, "no image file": 1}


def test_frames_of_one_pose_are_said(room, capsys):
    folder = room / "scannet" / "train_000"
    for number in (3, 9):
        shutil.copy(folder / "pose" / f"{number}.txt", folder / "pose" / f"{number + 1}.txt")
    open_scene(ROOM, room)
    assert "2 frames have the pose of another one (4, 10); are they copies" in capsys.readouterr().err
