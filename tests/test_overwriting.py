"""Preparing a capture overwrites nothing of its owner's."""

import json
import shutil

import pytest
from captures import edit, prepared

from dataset.prepare.transforms import prepare_transforms
from utils.errors import UserError


def test_preparing_in_place_and_names_that_leave_the_folder_are_refused(capture):
    before = {path: path.read_bytes() for path in capture.rglob("*") if path.is_file()}
    edit(capture, lambda content: content.update(camera_model="OPENCV", k1=0.1))
    before[capture / "transforms.json"] = (capture / "transforms.json").read_bytes()
    other = capture.parent / "other"
    shutil.copytree(capture, other)
    (capture.parent / "link").symlink_to(capture)
    for source, name, message in (
        (capture, "capture", "holds transforms.json of the source"),
        (capture.parent / "link", "capture", "holds transforms.json of the source"),
        (capture, "../capture", "should be the name of one folder"),
        (capture, "..", "should be the name of one folder"),
        (capture, "", "should be the name of one folder"),
        (capture, "other", "was not made by preparation"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_transforms(source, capture.parent, name)
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in capture.parent.iterdir() if path.name.startswith(".")]


def test_images_below_the_target_are_not_touched(capture, tmp_path):
    """A source elsewhere that names images inside the folder that would be written."""
    target = capture.parent / "out" / "mine"
    shutil.move(capture, target)
    source = tmp_path / "source" / "transforms.json"
    source.parent.mkdir()
    content = json.loads((target / "transforms.json").read_text())
    for frame in content["frames"]:
        for key in ("file_path", "depth_file_path", "semantic_path"):
            frame[key] = str(target / frame[key])
    source.write_text(json.dumps(content))
    with pytest.raises(UserError, match="of the source itself"):
        prepare_transforms(source, target.parent, "mine")


def test_preparing_again_replaces_what_preparation_made(capture):
    prepared(capture)
    edit(capture, lambda content: content.update(frames=content["frames"][:20]))
    assert len(prepared(capture)) == 20
    assert [path.name for path in (capture.parent / "data" / "transforms").iterdir()] == ["mine"]


def test_a_copy_of_an_earlier_version_says_what_to_do(capture):
    prepared(capture)
    (capture.parent / "data" / "transforms" / "mine" / ".prepared").unlink()
    with pytest.raises(UserError, match="mine: was made by an earlier version, .* remove it if nothing in it is yours"):
        prepared(capture)
