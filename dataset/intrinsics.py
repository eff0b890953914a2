"""Intrinsics of the frames of a capture, from the keys of several programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.camera import field_of_view, focal_length, number, read_lens, require_same_size
from dataset.frames import same_shape
from dataset.poses import OPENGL_TO_OPENCV, to_pose
from dataset.registration import DepthCamera
from utils.errors import UserError
from utils.images import image_size
from utils.logging import warn

SIZE_KEYS = ("w", "h", "width", "height")
DEPTH = "depth_"  # prefix of the same keys for a depth camera
TO_COLOR = "depth_to_color"
FOCAL_WIDTHS = (0.15, 20.0)  # bounds of a plausible focal length, in image widths
# As shares of the image side: distance of the principal point to the border below which it is an error, and to the
# middle above which there is a warning.
NOWHERE, OFF_THE_MIDDLE = 0.03, 0.12
OBLONG = 0.1  # logarithm of fl_y / fl_x above which there is a warning
ANGLE_OFF = 0.02  # largest relative difference between a focal length and that of its camera_angle
LENGTHS = ("fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_angle_y")
DEPTH_CAMERA_KEYS = (TO_COLOR, *(DEPTH + key for key in (*SIZE_KEYS, *LENGTHS)))


def read_intrinsics(content: dict, entry: dict, size: tuple[int, int], origin: str) -> np.ndarray:
    """Return the intrinsics (3, 3) at the stored image's `size` (h, w), pixel centres at integers. If the file gives
    them for another size of the same aspect ratio they are scaled. Raise UserError for another aspect ratio and for
    missing keys."""
    declared = _declared_size(content, entry, origin, size)
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
    """Return the keys that `read_intrinsics` reads for a K (3, 3) with pixel centres at integers. prefix: `DEPTH` for a
    depth camera."""
    values = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5}
    return {prefix + key: float(value) for key, value in values.items()}


def read_depth_camera(content: dict, entry: dict, file: Path | None, scale: float, origin: str) -> DepthCamera | None:
    """Return the camera of a frame's depth `file`; None if no keys describe one. Like poses, `depth_to_color` has
    OpenGL axes and lengths times `scale`. Raise UserError for missing or invalid keys."""
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


def _declared_size(
    content: dict, entry: dict, origin: str, size: tuple[int, int] | None = None
) -> tuple[int, int] | None:
    """Return the (h, w) that a file declares; None if it declares none. size: of the image; if only one side is
    declared the other follows from its aspect ratio."""
    sides = {}
    for side, names in {"w": ("w", "width"), "h": ("h", "height")}.items():
        given = [number(v[key], key, origin) for v in (entry, content) for key in names if v.get(key) is not None]
        own = {number(entry[key], key, origin) for key in names if entry.get(key) is not None}
        if len(own or set(given)) > 1:
            raise UserError(f"{origin}: {' and '.join(names)} differ; remove one")
        sides[side] = given[0] if given else None
    width, height = sides["w"], sides["h"]
    if (width is None and height is None) or (size is None and None in (width, height)):
        return None
    width = height * size[1] / size[0] if width is None else width
    height = width * size[0] / size[1] if height is None else height
    if min(width, height) < 1:
        raise UserError(f"{origin}: w and h should be positive, but are {width:g} and {height:g}")
    return round(height), round(width)


def _lengths(content: dict, entry: dict, size: tuple[int, int], origin: str) -> dict[str, float]:
    """Return fl_x, fl_y, cx, cy. Those of the frame have precedence over those of the capture; the focal length may be
    given as a field of view."""
    given = {key: content.get(key) if entry.get(key) is None else entry[key] for key in LENGTHS}
    height, width = size
    angles = {}
    for key, length, side in (("camera_angle_x", "fl_x", width), ("camera_angle_y", "fl_y", height)):
        if given[key] is not None:
            angle = number(given[key], key, origin)
            if not 0 < angle < np.pi:
                raise UserError(f"{origin}: {key} should be radians below pi, but is {angle:g}")
            angles[length] = (key, focal_length(angle, side))
    if given["fl_x"] is None and given["fl_y"] is None and angles:
        given["cx"] = width / 2 if given["cx"] is None else given["cx"]
        given["cy"] = height / 2 if given["cy"] is None else given["cy"]
        given |= {length: value for length, (_, value) in angles.items()}
        given["fl_x"] = given["fl_y"] if given["fl_x"] is None else given["fl_x"]
    given["fl_y"] = given["fl_x"] if given["fl_y"] is None else given["fl_y"]
    values = {key: number(given[key], key, origin) for key in ("fl_x", "fl_y", "cx", "cy")}
    if min(values["fl_x"], values["fl_y"]) <= 0:
        raise UserError(f"{origin}: fl_x and fl_y should be positive")
    for length, (key, expected) in angles.items():
        if abs(expected / values[length] - 1) > ANGLE_OFF:
            raise UserError(
                f"{origin}: {key} says that {length} is {expected:.4g}, but it is {values[length]:.4g}; remove one"
            )
    _require_plausible(values, size, origin)
    return values


def _require_plausible(values: dict[str, float], size: tuple[int, int], origin: str) -> None:
    """Raise UserError for intrinsics that are impossible for images of `size` (h, w); warn of unusual ones."""
    height, width = size
    shortest, longest = FOCAL_WIDTHS
    if not all(shortest * width < values[key] < longest * width for key in ("fl_x", "fl_y")):
        raise UserError(
            f"{origin}: fl_x and fl_y are {values['fl_x']:.4g} and {values['fl_y']:.4g}, which cannot be pixels of images of "
            f"{width}x{height}"
        )
    middle = np.array([values["cx"] / width, values["cy"] / height])
    if (middle < NOWHERE).any() or (middle > 1 - NOWHERE).any():
        raise UserError(
            f"{origin}: cx and cy are {values['cx']:.4g} and {values['cy']:.4g}, which are not near the middle of images of "
            f"{width}x{height}; are the intrinsics of another image size?"
        )
    file = origin.split(": ")[0]
    if (np.abs(middle - 0.5) > OFF_THE_MIDDLE).any():
        warn(f"{file}: the principal point is far from the middle of some images; it is taken as it is")
    if abs(np.log(values["fl_y"] / values["fl_x"])) > OBLONG:
        warn(f"{file}: fl_x and fl_y differ in some frames, so that pixels are not square; they are taken as they are")


def frame_field_of_view(content: dict, entry: dict, origin: str) -> float:
    """Return a frame's vertical field of view in radians. Raise UserError if it is not given, and for a fisheye
    camera."""
    if read_lens(content, entry, origin).is_fisheye:
        raise UserError(f"{origin} is a fisheye camera, which cannot be rendered")
    if not read_lens(content, entry, origin).is_pinhole:
        warn(f"{origin.split(': ')[0]}: the distortion of its cameras is not rendered")
    declared = _declared_size(content, entry, origin)
    if declared is None:
        raise UserError(f"{origin}: w and h should be given, at the top or in every frame")
    return field_of_view(_lengths(content, entry, declared, origin)["fl_y"], declared[0])
