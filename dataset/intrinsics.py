"""The intrinsics of a capture's frame, in whichever keys a file gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.camera import read_lens, require_same_size
from dataset.frames import same_shape
from dataset.poses import OPENGL_TO_OPENCV, to_pose
from dataset.registration import DepthCamera
from utils.errors import UserError
from utils.files import image_size
from utils.logging import warn

SIZE_KEYS = ("w", "h", "width", "height")
DEPTH = "depth_"  # begins the same keys of a depth camera
TO_COLOR = "depth_to_color"
LENGTHS = ("fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_angle_y")
DEPTH_CAMERA_KEYS = (TO_COLOR, *(DEPTH + key for key in (*SIZE_KEYS, *LENGTHS)))


def number(value, key: str, origin) -> float:
    """Return a number of a file. Raises UserError, which `origin` begins, if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise UserError(f"{origin}: {key} should be a number, at the top or in every frame")
    return float(value)


def read_intrinsics(content: dict, entry: dict, size: tuple[int, int], origin: str) -> np.ndarray:
    """(3, 3) at the stored image's `size` (h, w), pixel centres at integers. What a file says of images of another size is
    scaled if the shape is the same. Raises UserError if it is not, or if something is missing."""
    declared = _declared_size(content, entry, origin)
    if declared is not None and not same_shape(declared, size):
        raise UserError(
            f"{origin} is {size[1]}x{size[0]}, but its w and h say {declared[1]}x{declared[0]}; "
            "give the intrinsics of the images as they are"
        )
    height, width = declared or size
    values = _lengths(content, entry, (height, width), origin)
    across, down = size[1] / width, size[0] / height
    K = np.diag([values["fl_x"] * across, values["fl_y"] * down, 1])
    K[:2, 2] = values["cx"] * across - 0.5, values["cy"] * down - 0.5
    if declared is None:
        require_same_size(K, size, origin)
    return K


def camera_keys(K: np.ndarray, prefix: str = "") -> dict[str, float]:
    """Return the keys of a capture for a K (3, 3) with pixel centres at integers, which `read_intrinsics` reads. prefix: of a
    depth camera's."""
    values = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5}
    return {prefix + key: float(value) for key, value in values.items()}


def read_depth_camera(content: dict, entry: dict, file: Path | None, scale: float, origin: str) -> DepthCamera | None:
    """Return the camera of a frame's depth `file` where keys give one of its own, None else. `depth_to_color` has OpenGL axes and
    lengths times `scale`, as poses do. Raises UserError for what is missing or cannot be."""
    both = {**content, **entry}
    if file is None or not any(both.get(key) is not None for key in DEPTH_CAMERA_KEYS):
        return None
    size = image_size(file)
    keys = {key.removeprefix(DEPTH): value for key, value in both.items() if key in DEPTH_CAMERA_KEYS}
    K = read_intrinsics(keys, {}, size, f"{origin}: its depth camera (depth_fl_x, depth_cx, …)")
    to_color = np.eye(4) if both.get(TO_COLOR) is None else to_pose(both[TO_COLOR], origin, TO_COLOR)
    if not np.isfinite(to_color).all():
        raise UserError(f"{origin}: {TO_COLOR} should be a rotation and shift")
    to_color = OPENGL_TO_OPENCV @ to_color @ OPENGL_TO_OPENCV
    to_color[:3, 3] /= scale
    return DepthCamera(K, size, to_color)


def _declared_size(content: dict, entry: dict, origin: str) -> tuple[int, int] | None:
    def side(*keys: str):
        return next((v[key] for v in (entry, content) for key in keys if v.get(key) is not None), None)

    width, height = side("w", "width"), side("h", "height")
    if width is None or height is None:
        return None
    width, height = number(width, "w", origin), number(height, "h", origin)
    if min(width, height) < 1:
        raise UserError(f"{origin}: w and h should be positive, but are {width:g} and {height:g}")
    return round(height), round(width)


def _lengths(content: dict, entry: dict, size: tuple[int, int], origin: str) -> dict[str, float]:
    """fl_x, fl_y, cx, cy: of a frame before those of its capture; the focal length may be given as a field of view."""
    given = {key: entry.get(key, content.get(key)) for key in LENGTHS}
    height, width = size
    if given["fl_x"] is None and given["camera_angle_x"] is not None:
        angle = number(given["camera_angle_x"], "camera_angle_x", origin)
        if not 0 < angle < np.pi:
            raise UserError(f"{origin}: camera_angle_x should be radians below pi, but is {angle:g}")
        given["fl_x"] = width / 2 / np.tan(angle / 2)
        if given["fl_y"] is None and given["camera_angle_y"] is not None:
            given["fl_y"] = height / 2 / np.tan(number(given["camera_angle_y"], "camera_angle_y", origin) / 2)
        given["cx"] = width / 2 if given["cx"] is None else given["cx"]
        given["cy"] = height / 2 if given["cy"] is None else given["cy"]
    given["fl_y"] = given["fl_x"] if given["fl_y"] is None else given["fl_y"]
    values = {key: number(given[key], key, origin) for key in ("fl_x", "fl_y", "cx", "cy")}
    if min(values["fl_x"], values["fl_y"]) <= 0:
        raise UserError(f"{origin}: fl_x and fl_y should be positive")
    angle = given["camera_angle_x"]
    if (
        angle is not None
        and abs(np.tan(number(angle, "camera_angle_x", origin) / 2) * 2 * values["fl_x"] / width - 1) > 0.02
    ):
        warn(f"{origin.split(': ')[0]}: camera_angle_x does not fit fl_x; fl_x counts")
    return values


def field_of_view(content: dict, entry: dict, origin: str) -> float:
    """Return a frame's vertical field of view in radians. Raises UserError where it cannot be told, or for a fisheye."""
    if read_lens(content, entry, origin).is_fisheye:
        raise UserError(f"{origin} is a fisheye camera, which cannot be rendered")
    declared = _declared_size(content, entry, origin)
    if declared is None:
        raise UserError(f"{origin}: w and h should be given, at the top or in every frame")
    return float(2 * np.arctan(declared[0] / 2 / _lengths(content, entry, declared, origin)["fl_y"]))
