"""The check of labels: those that do not lie on their surfaces, or mean another class in each frame, are named."""

import cv2
import numpy as np
import pytest
from captures import FRAMES, checked

from utils.images import write_image


def label(capture, change):
    """Write each label map anew: `change` gets all of them, and the frame's number."""
    maps = [cv2.imread(str(capture / "labels" / f"{number}.png"), -1) for number in range(FRAMES)]
    for number in range(FRAMES):
        write_image(capture / "labels" / f"{number}.png", np.ascontiguousarray(change(maps, number)))


def numbered_anew(maps, number):
    return np.where(maps[number] == 255, 255, (maps[number].astype(int) + number) % 20).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda maps, n: maps[n][:, ::-1], "likely cause: labels are mirrored against depth"),
        (lambda maps, n: maps[n][::-1, ::-1], "likely cause: labels are turned by 180 degrees against depth"),
        (numbered_anew, "a number means another class in each frame"),
        (lambda maps, n: maps[(n + FRAMES // 2) % FRAMES], "likely cause: labels are of other frames"),
        (lambda maps, n: maps[min(n + 2, FRAMES - 1)], "each frame has the labels of the second frame after it"),
        (lambda maps, n: maps[max(n - 1, 0)], "each frame has the labels of the frame before it"),
        (lambda maps, n: maps[n][:, :: 1 - 2 * (n % 2)], "labels do not fit depth and poses"),
    ],
    ids=["mirrored", "turned", "instances", "others", "later", "earlier", "some"],
)
def test_labels_that_do_not_fit_are_named(capture, change, told):
    label(capture, change)
    found = checked(capture, 4)
    assert told in found and found.count("; likely cause") <= 1 and "frames do not agree" not in found


def test_labels_that_a_network_predicted_roughly_fit(capture):
    """One pixel in ten is another class, and borders are off by two pixels."""
    rng = np.random.default_rng(0)

    def rough(maps, number):
        wrong = rng.random(maps[number].shape) < 0.1
        shift = rng.integers(-2, 3, 2)
        return np.where(wrong, 3, np.roll(maps[number], shift, (0, 1))).astype(np.uint8)

    label(capture, rough)
    assert "labels do not fit" not in checked(capture, 4)
