"""Masks as people have them, and those that undistortion adds."""

import cv2
import numpy as np
import pytest
from captures import FRAMES, SIZE, both, change_poses, checked, edit, prepared

from dataset.maps import read_mask
from utils.images import write_image


@pytest.mark.parametrize(
    "mask",
    [
        np.uint8([[0, 255]]),
        np.uint8([[0, 1]]),
        np.uint8([[[0, 0, 0], [255, 255, 255]]]),
        np.uint8([[[0, 0, 0, 255], [0, 9, 0, 255]]]),
        np.uint8([[[9, 9, 9, 0], [9, 9, 9, 255]]]),
        np.array([[0, 65535]], np.uint16),
    ],
    ids=["grey", "ones", "three channels", "colour", "alpha", "16 bits"],
)
def test_masks_of_some_frames_are_honoured_and_no_mask_means_all(capture, mask):
    big = np.repeat(np.repeat(mask, SIZE[0], 0), SIZE[1] // 2, 1)
    (capture / "masks").mkdir()
    cv2.imwrite(str(capture / "masks" / "3.png"), big if big.ndim == 2 else big[..., [2, 1, 0, 3][: big.shape[2]]])
    edit(capture, lambda content: content["frames"][3].update(mask_path="masks/3.png"))
    for scene in both(capture):
        views = scene.views(["2", "3"])
        assert len(scene) == FRAMES and views.mask[0].all()
        assert not views.mask[1, ..., :31].any() and views.mask[1, ..., 33:].all()


def test_masks_and_lost_poses_of_some_frames_are_nothing_wrong(capture):
    change_poses(capture, lambda m: np.full((4, 4), np.nan), 6)
    (capture / "masks").mkdir()
    write_image(capture / "masks" / "3.png", np.uint8([[0, 255]]).repeat(SIZE[0], 0).repeat(SIZE[1] // 2, 1))
    edit(capture, lambda content: content["frames"][3].update(mask_path="masks/3.png"))
    assert checked(capture, 0) == ""


def test_a_jpeg_mask_is_cut_in_the_middle(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 20:] = 255
    write_image(tmp_path / "m.jpg", mask, quality=60)
    assert (read_mask(tmp_path / "m.jpg") == (mask > 0)).mean() > 0.99


def test_holes_of_some_undistorted_frames_leave_the_others_in(capture, base):
    edit(capture, lambda content: content["frames"][3].update(camera_model="OPENCV", k1=0.4))
    scene = prepared(capture)
    assert len(scene) == FRAMES
    views = scene.views(["2", "3"])
    assert views.mask[0].all() and 0.5 < views.mask[1].float().mean() < 0.99
