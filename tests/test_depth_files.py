"""Depth as people have it: of any type and unit, read as millimetres, or refused in one line."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from captures import both, edit, edit_frames, opened, prepared
from PIL import Image

from dataset.maps import read_depth
from utils.errors import UserError
from utils.images import write_image


def write_tiff(path, values):
    Image.fromarray(values).save(path)


WRITERS = {
    "tiff metres": (".tiff", lambda mm: (mm / 1000).astype(np.float32), write_tiff),
    "npy metres": (".npy", lambda mm: (mm / 1000).astype(np.float64), np.save),
    "npy half": (".npy", lambda mm: (mm / 1000).astype(np.float16), np.save),
    "npy millimetres": (".npy", lambda mm: mm.astype(np.int32), np.save),
    "tiff millimetres": (".tif", lambda mm: mm, write_tiff),
    "three channels": (".png", lambda mm: np.repeat(mm[..., None], 3, -1), lambda path, v: cv2.imwrite(str(path), v)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_depth_of_any_type_becomes_millimetres(capture, truth, kind):
    suffix, convert, write = WRITERS[kind]
    for path in (capture / "depth").iterdir():
        mm = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        write(path.with_suffix(suffix), convert(mm))
    edit_frames(capture, lambda f: f.update(depth_file_path=f["depth_file_path"].replace(".png", suffix)))
    expected = truth.views(["3"], depth=True).to("cpu").depth
    for scene in both(capture):
        torch.testing.assert_close(scene.views(["3"], depth=True).to("cpu").depth, expected, atol=3e-3, rtol=0)
    near, far = prepared(capture).depth_range
    assert 0.3 < near < 3 < far < 10


def test_holes_and_what_is_too_far_are_unknown(tmp_path):
    values = np.array([[1.5, np.nan, np.inf], [-1, 0, 1e10], [70, 65.5, 0.001]], np.float32)
    np.save(tmp_path / "d.npy", values)
    assert read_depth(tmp_path / "d.npy").tolist() == [[1500, 0, 0], [0, 0, 0], [0, 65500, 1]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((8, 8), 2500, np.float32), "the median depth is 2500 .* is implausible for a room"),
        (np.full((8, 8), 3, np.uint16), "is 3 .0.003 m, as integers are millimetres., which is implausible"),
        (np.full((8, 8), -2.0), "depth is negative"),
        (np.ones((8, 8), bool), "should be numbers, but is bool"),
        (np.full((8, 8), 90, np.uint8), "depth has 8 bits"),
        (np.zeros((8, 8, 3), np.uint8) + np.arange(3, dtype=np.uint8), "one channel, but has 3 that differ"),
        (np.zeros(8, np.float32), "should be an image"),
    ],
)
def test_depth_that_cannot_be_told_is_refused(values, message, tmp_path):
    np.save(tmp_path / "d.npy", values)
    with pytest.raises(UserError, match=message):
        read_depth(tmp_path / "d.npy")


@pytest.mark.parametrize(
    ("factor", "keys"),
    [
        (5, {"integer_depth_scale": 1 / 5000}),
        (6.5535, {"depth_unit_scale_factor": 1 / 6553.5}),
        (6.5535, {"png_depth_scale": 6553.5}),
        (0.1, {"depth_scale": 100}),
        (4, {"depth_scale": 0.00025}),
    ],
)
def test_keys_give_the_unit_of_depth(capture, truth, factor, keys):
    for path in (capture / "depth").iterdir():
        write_image(path, (cv2.imread(str(path), -1) * factor).round().astype(np.uint16))
    edit(capture, lambda content: content.update(keys))
    expected = truth.views(["3"], depth=True).to("cpu").depth
    for scene in both(capture):
        torch.testing.assert_close(scene.views(["3"], depth=True).to("cpu").depth, expected, atol=6e-3, rtol=0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"integer_depth_scale": 1000}, "integer_depth_scale should be metres of a unit"),
        ({"integer_depth_scale": "mm"}, "integer_depth_scale should be a number"),
        ({"integer_depth_scale": 0}, "should be a positive number"),
        ({"integer_depth_scale": 0.001, "depth_scale": 5000}, "disagree about the unit"),
        ({"depth_range": [3, 1]}, "0 < near < far"),
        ({"units": "feet"}, "units is feet"),
        ({"applied_scale": -1}, "applied_scale should be a positive number"),
    ],
)
def test_units_that_make_no_sense_are_refused(capture, keys, message):
    edit(capture, lambda content: content.update(keys))
    with pytest.raises(UserError, match=message):
        opened(capture)


def test_depth_that_ends_before_the_camera_sees_is_no_result(capture):
    for path in (capture / "depth").iterdir():
        write_image(path, (cv2.imread(str(path), -1) // 500).astype(np.uint16))
    with pytest.raises(UserError, match="is implausible for a room"):
        prepared(capture)


def test_depth_files_that_are_not_there_are_refused(capture):
    shutil.rmtree(capture / "depth")
    for use in (opened, prepared):
        with pytest.raises(UserError, match=r"depth/0.png is missing"):
            use(capture)
