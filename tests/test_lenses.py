"""Camera models and image sizes as captures state them: honoured by the values that arrive, or refused in one line."""

import cv2
import numpy as np
import pytest
import torch
from captures import FRAMES, SIZE, assert_same, both, edit, image, opened, prepared, resize_images

from dataset.camera import read_lens
from dataset.database import open_scene
from utils.errors import UserError
from utils.images import read_color

FISHEYE = {"k1": 0.1, "k2": -0.05, "k3": 0.01, "k4": 0.002}


@pytest.mark.parametrize(
    "model",
    [
        {"camera_model": "OPENCV_FISHEYE"},
        {"camera_model": "opencv_fisheye"},
        {"camera_model": "FISHEYE"},
        {"is_fisheye": True},
        {"distortion_model": "equidistant"},
        {"camera_model": "PINHOLE", "distortion_model": "equidistant"},
        {"model": "OPENCV_FISHEYE"},
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["top", "frames"])
def test_a_fisheye_is_seen_whoever_names_it_and_undistorted_once(capture, model, place):
    def change(content):
        content.pop("camera_model")
        for target in [content] if place == "top" else content["frames"]:
            target.update(model, **FISHEYE)

    edit(capture, change)
    with pytest.raises(UserError, match="is distorted; undistort .*OPENCV_FISHEYE"):
        opened(capture)
    if place == "frames" and "is_fisheye" not in model:
        return
    scene = prepared(capture)
    K = open_scene(f"transforms/mine/black_{SIZE[1]}", capture.parent / "data").cameras(["3"]).Ks[0].double().numpy()
    read = read_color(image(capture))
    views = open_scene(f"transforms/mine/black_{SIZE[1]}", capture.parent / "data").views(["3"])
    seen = views.images[0].permute(1, 2, 0).numpy().astype(int)
    for y, x in ((48, 64), (30, 40), (60, 100), (70, 30)):  # by the formula of an equidistant lens, in a loop
        a, b = (x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]
        r = np.hypot(a, b)
        theta = np.arctan(r)
        bent = theta * (1 + 0.1 * theta**2 - 0.05 * theta**4 + 0.01 * theta**6 + 0.002 * theta**8) / r
        u, v = K[0, 0] * a * bent + K[0, 2], K[1, 1] * b * bent + K[1, 2]
        expected = cv2.remap(read, np.float32([[u]]), np.float32([[v]]), cv2.INTER_LINEAR)[0, 0]
        assert np.abs(seen[y, x] - expected).max() < 14
    assert len(scene) == FRAMES


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"camera_model": "OPENCV", "k4": 0.01}, "OPENCV has no k4, which some read"),
        ({"camera_model": "OPENCV", "k5": 0.01}, "OPENCV has no k5"),
        ({"camera_model": "PINHOLE", "k1": 0.1}, "PINHOLE has no k1"),
        ({"camera_model": "SIMPLE_PINHOLE", "p1": 0.1}, "PINHOLE has no p1"),
        ({"camera_model": "SIMPLE_RADIAL", "k2": 0.1}, "SIMPLE_RADIAL has no k2"),
        ({"camera_model": "OPENCV_FISHEYE", "p1": 0.1}, "OPENCV_FISHEYE has no p1"),
        ({"camera_model": "RADIAL_FISHEYE", "k3": 0.1}, "RADIAL_FISHEYE has no k3"),
        ({"camera_model": "OPENCV", "s1": 0.1}, "OPENCV has no s1"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model EQUIRECTANGULAR is not supported"),
        ({"camera_model": "THIN_PRISM_FISHEYE"}, "THIN_PRISM_FISHEYE is not supported"),
        ({"equirectangular": True}, "EQUIRECTANGULAR is not supported"),
        ({"orthographic": True}, "ORTHOGRAPHIC is not supported"),
        ({"camera_model": "OPENCV", "is_fisheye": True}, "camera_model says OPENCV but is_fisheye says"),
        ({"camera_model": "OPENCV", "distortion_params": [0.1, 0, 0, 0]}, "distortion_params is not read"),
        ({"camera_model": "OPENCV", "k1": "a"}, "k1 should be a number"),
        ({"lens_shading": 3}, "lens_shading is not read"),
        ({"rolling_shutter": [0, 1, 0]}, "rolling_shutter is not read"),
        ({"coordinate_system": "opencv"}, "coordinate_system is opencv"),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["top", "frame"])
def test_models_and_terms_that_cannot_be_honoured_are_refused(capture, keys, message, place):
    def change(content):
        content.pop("camera_model")
        (content if place == "top" else content["frames"][5]).update(keys)

    edit(capture, change)
    for use in (opened, prepared):
        with pytest.raises(UserError, match=message):
            use(capture)


def test_terms_in_opencv_s_order():
    terms = {"k1": 1.0, "k2": 2, "p1": 3, "p2": 4, "k3": 5, "k4": 6, "k5": 7, "k6": 8}
    lens = read_lens({"camera_model": "FULL_OPENCV", **terms}, {}, "x")
    assert lens.coefficients.tolist() == [1, 2, 3, 4, 5, 6, 7, 8] and not lens.is_pinhole
    assert read_lens({"model": "iPhone 14", "camera_model": "OPENCV", "k1": 0, "k4": 0.0}, {}, "x").is_pinhole


def test_keys_that_nobody_knows_are_named(capture, capsys):
    edit(capture, lambda content: content.update(sparkle=3))
    opened(capture)
    assert "keys that are not read: sparkle" in capsys.readouterr().err


@pytest.mark.parametrize("numbers", [range(FRAMES), range(0, FRAMES, 3)], ids=["all", "some"])
def test_intrinsics_follow_images_of_another_size_and_the_same_shape(capture, truth, numbers):
    resize_images(capture, (48, 64), numbers)
    for scene in both(capture):
        torch.testing.assert_close(scene.cameras(["3"]).Ks, truth.cameras(["3"]).Ks, atol=1e-3, rtol=0)
        assert len(scene) == FRAMES
        difference = (scene.views(["3"]).images.float() - truth.views(["3"]).images.float()).abs().mean()
        assert difference < 4


@pytest.mark.parametrize("size", [(128, 96), (96, 96)])
def test_images_of_another_shape_than_w_and_h_are_refused(capture, size):
    resize_images(capture, size)
    for use in (opened, prepared):
        with pytest.raises(UserError, match=f"is {size[1]}x{size[0]}, but its w and h say 128x96"):
            use(capture)


def test_without_w_and_h_the_principal_point_tells(capture, truth):
    edit(capture, lambda content: [content.pop(key) for key in "wh"] and None)
    assert_same(opened(capture), truth)
    resize_images(capture, (48, 64))
    with pytest.raises(UserError, match="intrinsics of another image size"):
        opened(capture)
