"""Which frames of a capture test, and that none of them leaks into training."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from captures import FRAMES, both, change_poses, edit, image, opened, prepared

from dataset.database import held_out_scenes
from dataset.render_dataset import Needs, TrainingSet
from utils.errors import UserError
from utils.images import read_color, write_image


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: name,
        lambda name: f"./{name}",
        lambda name: name.replace("/", "\\"),
        lambda name: f"images/../{name}",
        lambda name: name.removesuffix(".jpg"),
        lambda name: name.split("/")[1],
        lambda name: f"/home/me/capture/{name}",
    ],
    ids=["same", "dot", "backslash", "up", "no suffix", "last part", "absolute"],
)
def test_lists_of_names_match_in_any_spelling(capture, spell):
    tests = ["images/2.jpg", "images/10.jpg"]
    edit(capture, lambda content: content.update(test_filenames=[spell(name) for name in tests]))
    for scene in both(capture):
        split = scene.split()
        assert split.tests == ["2", "10"] and len(split.references) == FRAMES - 2
        assert not set(split.tests) & {*split.references, *scene.training_frames(False)}


@pytest.mark.parametrize("key", ["train_filenames", "val_filenames", "test_filenames"])
@pytest.mark.parametrize("entry", ["images/99.jpg", "elsewhere/3.jpg", "jpg", 7])
def test_an_entry_that_matches_nothing_is_an_error(capture, key, entry):
    edit(capture, lambda content: content.update({key: ["images/2.jpg", entry]}))
    for use in (opened, prepared):
        with pytest.raises(UserError, match=key):
            use(capture)


def test_a_capture_with_only_training_names_tests_on_the_others(capture):
    names = [f"images/{number}.jpg" for number in range(16)]
    edit(capture, lambda content: content.update(train_filenames=names))
    split = opened(capture).split()
    assert split.tests == [str(number) for number in range(16, 24)] and len(split.references) == 16
    edit(capture, lambda content: content.update(train_filenames=[f"images/{n}.jpg" for n in range(FRAMES)]))
    for scene in both(capture):
        split = scene.split()
        assert split.tests == ["4", "12", "20"] and not set(split.tests) & set(split.references)


def test_test_frames_of_scannetpp(capture):
    edit(capture, lambda content: content.update(test_frames=[content["frames"].pop() for _ in range(3)]))
    for scene in both(capture):
        assert scene.split().tests == ["23", "22", "21"] and len(scene.split().references) == FRAMES - 3


def test_a_frame_that_is_listed_for_both_is_for_testing(capture, capsys):
    edit(capture, lambda c: c.update(train_filenames=["images/1.jpg", "images/2.jpg"], test_filenames=["images/2.jpg"]))
    assert opened(capture).split() == (["1"], ["2"])
    assert "1 frames are listed for training and for testing" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["same name", "other spelling", "copied file", "other quality", "half the size"])
def test_a_frame_listed_twice_does_not_leak(capture, how, capsys):
    def change(content):
        again = dict(content["frames"][4])
        if how == "other spelling":
            again["file_path"] = "./images/../images/4.jpg"
        if how == "copied file":
            shutil.copy(image(capture, 4), capture / "images" / "zz.jpg")
            again["file_path"] = "images/zz.jpg"
        if how in ("other quality", "half the size"):
            picture = read_color(image(capture, 4))
            picture = picture if how == "other quality" else cv2.resize(picture, (64, 48), interpolation=cv2.INTER_AREA)
            write_image(capture / "images" / "zz.jpg", picture, quality=70)
            again["file_path"] = "images/zz.jpg"
        content["frames"].append(again)

    edit(capture, change)
    for scene in both(capture):
        assert len(scene) == FRAMES
        split = scene.split()
        tests = scene.cameras(split.tests).centres()
        assert torch.cdist(tests, scene.cameras(split.references).centres()).min() > 1e-3
    assert "a second copy of a frame: 1" in capsys.readouterr().err


def test_other_pictures_of_one_pose_are_kept(capture, capsys):
    """As of a lamp that is turned on."""

    def change(content):
        write_image(capture / "images" / "zz.jpg", (read_color(image(capture, 4)) * 0.8).astype(np.uint8), quality=95)
        content["frames"].append({**content["frames"][4], "file_path": "images/zz.jpg"})

    edit(capture, change)
    assert len(opened(capture)) == FRAMES + 1
    assert "1 frames have the pose of another one" in capsys.readouterr().err


def test_a_tripod_s_frames_are_no_copies(capture):
    change_poses(capture, lambda m: np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1], [0, 0, 0, 1.0]]))
    assert len(opened(capture)) == FRAMES


def test_two_captures_with_folders_of_one_name_are_two(base, tmp_path, config):
    first, second = (Path(shutil.copytree(base, tmp_path / part / "room")) for part in "ab")
    a, b = opened(first), opened(second)
    assert a.name != b.name and a.name == opened(first).name and "room" in a.name
    names = [str(first), f"{second}/black_64"]
    held_out = held_out_scenes([f"{first}/black_32"], "data")
    training = TrainingSet(config(train_set_list=names), 0, Needs(depth=True), held_out)
    assert not set(a.split().tests) & set(training.frames[0]) and len(training.frames[1]) == len(
        b.training_frames(False)
    )


def test_a_database_name_and_a_folder_are_one_scene(base, config):
    root = base.parent.parent
    held_out = held_out_scenes(["transforms/train_000/black_64"], root)
    training = TrainingSet(config(train_set_list=[str(base)], data_root=str(root)), 0, Needs(), held_out)
    assert not set(training.scenes[0].split().tests) & set(training.frames[0])
