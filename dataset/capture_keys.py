"""The keys of a capture's file: which mean something, which do not, and what those say that hold for all frames."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from dataset.camera import CAMERA_KEYS
from dataset.intrinsics import DEPTH, DEPTH_CAMERA_KEYS, LENGTHS, SIZE_KEYS, number
from dataset.maps import DepthUnit
from dataset.name_lists import LISTS
from utils.errors import UserError
from utils.logging import warn

KINDS = {  # kind of image: the keys that name its file
    "color": ("file_path",),
    "depth": ("depth_file_path", "depth_path"),
    "labels": ("semantic_path",),
    "mask": ("mask_path",),
}
MARKS = {  # a frame's key: its value in a frame that is not to be used
    **dict.fromkeys(
        ("is_bad", "bad", "is_blurry", "blurry", "skip", "ignore", "exclude", "excluded", "disabled"), True
    ),
    **dict.fromkeys(("valid", "is_valid", "enabled", "use", "good", "registered", "is_registered"), False),
}
DEPTH_UNITS = ("integer_depth_scale", "depth_unit_scale_factor", "depth_scale", "png_depth_scale")
UNIT_KEYS = {"unit", "units", "pose_unit", "length_unit"}
AXES_KEYS = {"convention", "camera_convention", "coordinate_system", "coordinate_convention", "axes", "pose_convention"}
METRES, OPENGL = {"m", "meter", "meters", "metre", "metres"}, {"opengl", "blender", "nerfstudio", "gl"}
SPECIAL = set(
    [
        "frames",
        "test_frames",
        "semantic_classes",
        "semantic_ids",
        "depth_range",
        "applied_scale",
        "applied_transform",
        "prepared_from",
    ]
)
WITHOUT_MEANING = set(  # keys of nerfstudio, instant-ngp, Polycam, Record3D, ScanNet++ that change nothing here
    [
        "aabb",
        "aabb_scale",
        "scale",
        "offset",
        "up",
        "render_aabb",
        "from_na",
        "n_extra_learnable_dims",
        "sharpness",
        "colmap_im_id",
        "colmap_id",
        "ply_file_path",
        "orientation_override",
        "auto_scale_poses_override",
        "rotation",
        "time",
        "timestamp",
        "id",
        "name",
        "image_id",
        "frame_id",
        "keyframe_id",
        "fps",
        "black_border",
        "camera_id",
        "camera_label",
        "camera_name",
        "camera_make",
        "has_mask",
        "exposure",
        "iso",
        "white_balance_factor",
        "date",
        "version",
    ]
)
CAMERA_WORDS = ("camera", "lens", "distort", "fisheye", "intrinsic", "projection", "rolling_shutter", "crop")
KNOWN = SPECIAL | WITHOUT_MEANING | UNIT_KEYS | AXES_KEYS
KNOWN |= {*CAMERA_KEYS, *MARKS, *SIZE_KEYS, *LENGTHS, *DEPTH_UNITS, *LISTS, *DEPTH_CAMERA_KEYS, "transform_matrix"}
KNOWN |= {key for keys in KINDS.values() for key in keys}


def check_keys(content: dict, path: Path) -> None:
    """Refuses keys that give units, axes or a camera in a way that is not read; names the others that are not."""
    unknown = Counter()
    for values in (content, *content["frames"]):
        for key, value in values.items():
            if value in (None, "", [], {}, False):
                continue
            if key in UNIT_KEYS and str(value).lower() not in METRES:
                raise UserError(f"{path}: {key} is {value}, but lengths should be metres; give applied_scale instead")
            if key in AXES_KEYS and str(value).lower() not in OPENGL:
                raise UserError(f"{path}: {key} is {value}, but cameras should have OpenGL axes (y up, z backward)")
            if key.startswith(DEPTH) and key.removeprefix(DEPTH) in CAMERA_KEYS:
                raise UserError(
                    f"{path}: {key} is not read: a depth camera of its own should be a pinhole; undistort its maps"
                )
            if key not in KNOWN:
                if any(word in key.lower() for word in CAMERA_WORDS):
                    raise UserError(
                        f"{path}: {key} is not read; give the camera as camera_model, fl_x, fl_y, cx, cy, k1, …"
                    )
                unknown[key] += 1
    if unknown:
        warn(f"{path}: keys that are not read: {', '.join(unknown)}")


def _positive(content: dict, key: str, path: Path) -> float | None:
    if content.get(key) is None:
        return None
    value = number(content[key], key, path)
    if value <= 0:
        raise UserError(f"{path}: {key} should be a positive number, but is {value:g}")
    return value


def read_scale(content: dict, path: Path) -> float:
    """Return what the lengths of a capture were multiplied by. Raises UserError for a scale that is given another way."""
    transform = content.get("applied_transform")
    if transform is not None:
        matrix = np.array(transform, float) if np.shape(transform) in ((3, 4), (4, 4)) else np.full((3, 4), np.nan)
        size = abs(np.linalg.det(matrix[:3, :3])) ** (1 / 3)
        if not abs(size - 1) < 0.01:
            raise UserError(f"{path}: applied_transform should be a rotation and shift; give a scale as applied_scale")
    return _positive(content, "applied_scale", path) or 1.0


def read_depth_unit(content: dict, path: Path) -> DepthUnit:
    """Read the unit by the keys of several programs: instant-ngp's of whole numbers, nerfstudio's of any, and units a metre."""
    given = {key: value for key in DEPTH_UNITS if (value := _positive(content, key, path)) is not None}
    if not given:
        return DepthUnit()
    key, value = next(iter(given.items()))
    if key in ("depth_scale", "png_depth_scale") and value >= 1:  # units a metre
        value = 1 / value
    if any(abs(1 / other - value) > 1e-3 * value and abs(other - value) > 1e-3 * value for other in given.values()):
        raise UserError(f"{path}: {' and '.join(given)} disagree about the unit of depth")
    if key == "integer_depth_scale":
        if content.get("applied_scale") not in (None, 1, 1.0):
            raise UserError(
                f"{path}: {key} beside applied_scale is ambiguous; give depth_unit_scale_factor (metres a unit)"
            )
        if value >= 1:
            raise UserError(f"{path}: {key} should be metres of a unit, such as 0.001, but is {value:g}")
        return DepthUnit(whole=value, stated=True)
    return DepthUnit(value, value, stated=True)


def read_depth_range(content: dict, path: Path) -> tuple[float, float] | None:
    given = content.get("depth_range")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 2:
        raise UserError(f"{path}: depth_range should be near and far in metres")
    near, far = (number(end, "depth_range", path) for end in given)
    if not 0 < near < far:
        raise UserError(f"{path}: depth_range should be near and far in metres, 0 < near < far, but is {given}")
    return near, far
