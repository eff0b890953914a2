"""Checks of the conventions that a capture states (units, axes, …), and of unknown keys.

A statement (units, axes, the direction of poses, the kind of depth, …) must agree with the conventions of this loader.
An unknown key is an error if its name suggests that it changes the meaning of pixels, cameras, depth or labels, or if
it looks like a misspelt known key. The caller warns of all others.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError

SIMILAR = 0.85  # similarity of two keys from which on one is a misspelling of the other
SHOWN = 40  # characters of a value in an error message


class Statement(NamedTuple):
    """A convention that a capture may state. keys: their names. values: accepted values, as normalised by `plain`.
    holds: the convention of this loader, for messages."""

    keys: frozenset[str]
    values: frozenset[str]
    holds: str


def words(text: str) -> frozenset[str]:
    """Return the set of words in a text."""
    return frozenset(text.split())


def _statement(keys: str, values: str, holds: str) -> Statement:
    return Statement(words(keys), words(values), holds)


STATEMENTS = (
    _statement(
        "unit units pose_unit pose_units length_unit length_units translation_unit translation_units world_unit world_units "
        "position_unit position_units scene_unit scene_units",
        "m meter meters metre metres 1 1.0",
        "lengths should be metres; give applied_scale instead",
    ),
    _statement(
        "convention camera_convention coordinate_system coordinate_convention coordinate_frame coordinates coord_system axes "
        "pose_convention frame_convention camera_axes camera_coordinates axis_convention camera_frame",
        "opengl blender nerfstudio gl",
        "cameras should have OpenGL axes (y up, z backward)",
    ),
    _statement(
        "pose_type pose_format pose_direction transform_type transform_direction matrix_type extrinsics_type "
        "extrinsics_convention extrinsic_type",
        "c2w cameratoworld camtoworld cam2world camera2world",
        "poses should be camera-to-world",
    ),
    _statement("matrix_order storage_order matrix_layout", "rowmajor row rows c", "matrices should be row by row"),
    _statement("handedness", "right righthanded rh", "coordinates should be right-handed"),
    _statement(
        "depth_type depth_kind depth_mode depth_representation depth_convention depth_format depth_encoding depth_definition",
        "z zdepth planar plane perpendicular orthogonal",
        "depth should be z-depth, along the optical axis",
    ),
    _statement("color_space colour_space colorspace color_encoding", "srgb rgb", "colour should be sRGB"),
    _statement("color_order channel_order", "rgb", "channels should be RGB"),
    _statement("pixel_center pixel_centre", "0.5 half", "pixel centres should be at +0.5"),
    _statement(
        "ignore_label ignore_index ignore_id ignored_id ignore_class void_id void_label void_class background_id background_label "
        "unlabeled_id unlabelled_id",
        "255",
        "255 is ignored; give semantic_ids instead",
    ),
    _statement("invalid_depth depth_invalid_value invalid_depth_value", "0 0.0 65535 nan", "unknown depth should be 0"),
    _statement(
        "camera_to_world is_c2w c2w row_major metric is_metric metric_scale undistorted is_undistorted rectified is_rectified "
        "depth_is_registered depth_registered depth_aligned registered_depth enable_depth_loading is_opengl opengl half_pixel",
        "true 1",
        "only captures for which it is true can be read",
    ),
)
BY_KEY = {key: statement for statement in STATEMENTS for key in statement.keys}
# Unknown keys with one of these parts, or one of these words, in their name may change the meaning of the data.
PARTS = words(
    "camera lens distort fisheye intrinsic extrinsic projection shutter crop focal fov principal skew radial tangential pixel "
    "coeff sensor binning downscale downsample resolution width height "
    "depth dispar euclid "
    "pose transform translat rotat quat qvec tvec matrix w2c c2w world coord convention axes inver unit scale metric mirror flip "
    "orient "
    "color colour gamma linear hdr transparen alpha "
    "label semantic categor segment instance panoptic mask ignore void class "
    "split filename holdout track lost outlier background znear zfar upside portrait landscape offset"
)
WORDS = words("k f r t s p fx fy ppx ppy dist roi rotate near far bgr path paths file files train val test eval x y")
FURTHER = words(  # parts of the names of keys for further data, which have no effect here: only a warning
    "confidence normal mesh ply video audio thumbnail feature score velocity acceleration imu gps bounding bbox points "
    "trainer timestamp"
)


HOLDING = words(  # parts of names that state a convention of this loader, unless their value is false
    "c2w to_world metric row_major right_hand opengl srgb half_pixel pixel_cent registered aligned rectified undistorted zdepth "
    "z_depth"
)


def check_statement(key: str, value, path: Path) -> bool:
    """Return whether a key is a statement. Raise UserError if it contradicts the conventions of this loader."""
    statement = BY_KEY.get(key)
    if statement is None:
        return False
    if value not in (None, "", [], {}) and plain(value) not in statement.values:
        raise UserError(f"{path}: {key} is {str(value)[:SHOWN]}, but {statement.holds}")
    return True


def refuse_denial(key: str, value, known: Collection[str], path: Path) -> None:
    """Raise UserError for an unknown key that is false (or 0) and whose name states a convention of this loader."""
    if value is not None and value == 0 and key not in known and any(part in key.lower() for part in HOLDING):
        raise UserError(f"{path}: {key} is {value}, but only captures for which it is true can be read")


def refuse_unread(key: str, known: Collection[str], path: Path) -> None:
    """Raise UserError for an unknown key that looks like a misspelling of one of `known`, or may change the meaning of
    the data."""
    if any(word in key.lower() for word in FURTHER):
        return
    meant = {plain(name): name for name in known}
    close = get_close_matches(plain(key), meant, 1, SIMILAR)
    if close:
        raise UserError(f"{path}: {key} is not read; should it be {meant[close[0]]}?")
    spoken = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower()))
    if spoken & WORDS or any(part in key.lower() for part in PARTS):
        raise UserError(
            f"{path}: {key} is not read, and may change what the capture means; remove it, or use the keys in docs/data.md"
        )


def plain(text) -> str:
    """Normalise a key or a value to lower-case letters, digits and dots."""
    return re.sub(r"[^a-z0-9.]", "", str(text).lower())
