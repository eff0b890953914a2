"""The keys of a capture's file: which mean something, which do not, and what those say that hold for all frames."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from dataset.camera import CAMERA_KEYS, LOOSE_KEYS, number
from dataset.intrinsics import DEPTH, DEPTH_CAMERA_KEYS, LENGTHS, SIZE_KEYS
from dataset.maps import DepthUnit
from dataset.name_lists import LISTS, SPLIT
from dataset.poses import SQUARE, numbers_of
from dataset.statements import check_statement, refuse_denial, refuse_unread, words
from utils.errors import UserError
from utils.logging import warn

KINDS = {  # kind of image: the keys that name its file
    "color": ("file_path",),
    "depth": ("depth_file_path", "depth_path"),
    "labels": ("semantic_path",),
    "mask": ("mask_path",),
}
BAD = (  # keys that mark a frame as unusable if they are true
    "is_bad bad is_blurry blurry skip skipped ignore ignored exclude excluded disabled invalid is_invalid reject rejected "
    "discard discarded drop outlier is_outlier lost is_lost tracking_lost"
)
GOOD = (  # keys that mark a frame as unusable if they are false
    "valid is_valid pose_valid is_pose_valid enabled use good is_good registered is_registered keep include included tracked "
    "is_tracked accepted usable"
)
# key -> its value in a frame that is not used
MARKS = {**dict.fromkeys(BAD.split(), True), **dict.fromkeys(GOOD.split(), False)}
SAID = {**dict.fromkeys(("true", "yes", "1", "1.0"), True), **dict.fromkeys(("false", "no", "0", "0.0"), False)}
DEPTH_UNITS = ("integer_depth_scale", "depth_unit_scale_factor", "depth_scale", "png_depth_scale")
DEPTH_UNIT_NAMES = ("depth_unit", "depth_units")
NAMED_UNITS = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 0.001),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 0.01),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1.0),
}
FOR_ALL = {"frames", "test_frames", "semantic_classes", "semantic_ids", "depth_range", "applied_scale", "prepared_from"}
FOR_ALL |= {"applied_transform", *DEPTH_UNITS, *DEPTH_UNIT_NAMES, *LISTS}
OF_A_FRAME = {"transform_matrix", SPLIT, *KINDS["color"], *KINDS["depth"], *KINDS["labels"]}
# keys of nerfstudio, instant-ngp, Polycam, Record3D and ScanNet++ that change nothing here
WITHOUT_MEANING = words(
    "aabb aabb_scale scale offset up render_aabb from_na n_extra_learnable_dims sharpness colmap_im_id colmap_id "
    "ply_file_path orientation_override auto_scale_poses_override time timestamp id name image_id frame_id "
    "keyframe_id fps black_border camera_id camera_label camera_name camera_make camera_linear_velocity "
    "camera_angular_velocity has_mask exposure exposure_time iso white_balance_factor date version up_axis world_up "
    "gravity num_classes num_frames depth_sensor depth_source color_temperature"
)
TURN_OF_BLENDER = "rotation"  # in Blender's files: radians from one frame to the next, without effect
KNOWN = FOR_ALL | OF_A_FRAME | WITHOUT_MEANING | {*CAMERA_KEYS, *MARKS, *SIZE_KEYS, *LENGTHS, *DEPTH_CAMERA_KEYS}
KNOWN |= {TURN_OF_BLENDER, *KINDS["mask"]}

HARMLESS_INSIDE = WITHOUT_MEANING | set(LOOSE_KEYS)  # keys that may be nested in unknown ones


def check_keys(content: dict, path: Path) -> None:
    """Raise UserError for a key that contradicts the conventions of this loader, stands where it is not read, or is
    unknown but may change the meaning of the data. Warn once of all other unknown keys."""
    unknown: Counter[str] = Counter()
    for values in (content, *content["frames"]):
        _check_places(values, content, path)
        for key, value in values.items():
            if check_statement(key, value, path):
                continue
            if value in (None, "", [], {}, False):
                refuse_denial(key, value, KNOWN, path)
                continue
            if key == TURN_OF_BLENDER and not (isinstance(value, float) and abs(value) < 1):
                raise UserError(f"{path}: {key} is not read; turn the images, and give poses as transform_matrix")
            if key.startswith(DEPTH) and key.removeprefix(DEPTH) in CAMERA_KEYS:
                raise UserError(
                    f"{path}: {key} is not read: a separate depth camera should be a pinhole; undistort its maps"
                )
            if key not in KNOWN:
                if not unknown[key]:
                    refuse_unread(key, KNOWN - WITHOUT_MEANING, path)
                _check_inside(value, key, path)
                unknown[key] += 1
    if unknown:
        warn(f"{path}: keys that are not read: {', '.join(unknown)}")


def _check_inside(value, key: str, path: Path) -> None:
    """Raise UserError for a known key nested in an unknown one, where it would be ignored."""
    for part in value if isinstance(value, list) else []:
        _check_inside(part, key, path)
    for inner, content in value.items() if isinstance(value, dict) else ():
        if check_statement(inner, content, path) or content in (None, "", [], {}, False) or inner in HARMLESS_INSIDE:
            continue
        if inner in KNOWN:
            raise UserError(f"{path}: {inner} stands inside of {key}, where it is not read; move it, or remove it")
        refuse_unread(inner, KNOWN - WITHOUT_MEANING, path)
        _check_inside(content, f"{key}.{inner}", path)


def is_marked(entry: dict, path: Path) -> bool:
    """Return whether a frame is marked as unusable. Raise UserError for a mark that is neither true nor false."""
    for key, bad in MARKS.items():
        value = entry.get(key)
        if value in (None, ""):
            continue
        said = SAID.get(str(value).strip().lower())
        if said is None:
            raise UserError(f"{path}: {key} of {entry['file_path']} should be true or false, but is {str(value)[:40]}")
        if said == bad:
            return True
    return False


def _check_places(values: dict, content: dict, path: Path) -> None:
    """Raise UserError for a frame's key at the top, and for a key of the top in a frame, unless it has the same
    value."""
    if values is content:
        for key in OF_A_FRAME & set(values):
            raise UserError(f"{path}: {key} stands at the top, but should stand in each frame")
        return
    for key in FOR_ALL & set(values):
        if values[key] is not None and values[key] != content.get(key):
            raise UserError(
                f"{path}: {key} stands in a frame ({values.get('file_path')}), but is read at the top, for all frames"
            )


def _positive(content: dict, key: str, path: Path) -> float | None:
    if content.get(key) is None:
        return None
    value = number(content[key], key, path)
    if value <= 0:
        raise UserError(f"{path}: {key} should be a positive number, but is {value:g}")
    return value


def read_scale(content: dict, path: Path) -> float:
    """Return the factor by which the lengths of a capture were multiplied. Raise UserError for a scale in
    applied_transform."""
    transform = content.get("applied_transform")
    if transform is not None:
        turn = numbers_of(transform, ((3, 4), (4, 4)))[:3, :3]
        if not np.abs(turn.T @ turn - np.eye(3)).max() < SQUARE:
            raise UserError(f"{path}: applied_transform should be a rotation and shift; give a scale as applied_scale")
    return _positive(content, "applied_scale", path) or 1.0


def read_depth_unit(content: dict, path: Path) -> DepthUnit:
    """Return the unit of depth, by the keys of several programs: metres per unit of integers (instant-ngp) or of all
    numbers (nerfstudio), units per metre, or the name of the unit."""
    given = {key: value for key in DEPTH_UNITS if (value := _positive(content, key, path)) is not None}
    given |= {key: _named_unit(content, key, path) for key in DEPTH_UNIT_NAMES if content.get(key) is not None}
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


def _named_unit(content: dict, key: str, path: Path) -> float:
    name = str(content[key]).strip().lower()
    if name not in NAMED_UNITS:
        raise UserError(
            f"{path}: {key} should be mm, cm or m, but is {content[key]}; else give depth_unit_scale_factor"
        )
    return NAMED_UNITS[name]


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
