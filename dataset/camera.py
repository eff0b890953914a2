"""Lens models of captures, and the pinhole camera, which is used everywhere else.

The terms are those of COLMAP, nerfstudio and OpenCV. Unknown models, terms that the named model does not have, and k4
of OPENCV (a rational term in OpenCV, a factor of r^8 in other programs) are errors, since a wrong interpretation would
silently distort images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from utils.errors import UserError
from utils.logging import warn

TERMS = {  # model: the terms that it may have
    "PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2", "k3"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "SIMPLE_RADIAL_FISHEYE": ("k1",),
    "RADIAL_FISHEYE": ("k1", "k2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}
OTHER_NAMES = {
    "SIMPLE_PINHOLE": "PINHOLE",
    "PERSPECTIVE": "PINHOLE",
    "RADTAN": "OPENCV",
    "PLUMB_BOB": "OPENCV",
    "BROWN": "OPENCV",
    "RATIONAL_POLYNOMIAL": "FULL_OPENCV",
    "FISHEYE": "OPENCV_FISHEYE",
    "EQUIDISTANT": "OPENCV_FISHEYE",
    "KANNALA_BRANDT": "OPENCV_FISHEYE",
    "KANNALABRANDT4": "OPENCV_FISHEYE",
}
# Keys that name the model; contradictions are errors. "PINHOLE" beside a distortion model names the projection only.
MODEL_KEYS = ("camera_model", "camera_type", "camera_model_name", "lens_model", "projection")
LOOSE_KEYS = ("model", "lens", "type")  # keys that may hold a model, or the name of a device
UNSUPPORTED = (
    "FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE", "EQUIRECTANGULAR", "SPHERICAL", "ORTHOGRAPHIC", "ORTHOPHOTO",
    "OMNIDIRECTIONAL", "CYLINDRICAL", "MEI", "DOUBLE_SPHERE", "FTHETA", "LATLONG",
)  # fmt: skip
DISTORTION_MODEL = "distortion_model"
FLAGS = {  # instant-ngp's keys
    "is_fisheye": "OPENCV_FISHEYE",
    "fisheye": "OPENCV_FISHEYE",
    "equirectangular": "EQUIRECTANGULAR",
    "latlong": "EQUIRECTANGULAR",
    "orthographic": "ORTHOGRAPHIC",
}
COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")  # in OpenCV's order
OTHER_TERMS = ("k7", "k8", "s1", "s2", "s3", "s4", "sx1", "sy1", "b1", "b2", "omega", "xi", "alpha", "skew", "tilt")
OTHER_TERMS += tuple(f"ftheta_p{i}" for i in range(5))
DISTORTION_LISTS = ("distortion_params", "distortion_coeffs", "distortion_coefficients", "distortion", "dist_coeffs")
CAMERA_KEYS = (*MODEL_KEYS, *LOOSE_KEYS, DISTORTION_MODEL, *FLAGS, *COEFFICIENTS, *OTHER_TERMS, *DISTORTION_LISTS)
# Ratios of the principal point to the image centre: below or above these bounds in both x and y the intrinsics are
# those of another image size; below NO_MIDDLE in x or y they are invalid.
OTHER_SIZE_RATIOS = (0.75, 1.35)
NO_MIDDLE = 0.06
LIKE_ANOTHER_SIZE = (
    0.05,
    0.02,
)  # warning: ratios differ from 1 by more than this in x and y, but from each other by less


@dataclass(frozen=True)
class Lens:
    """A lens. model: of TERMS. coefficients: (8,) in OpenCV's order k1 k2 p1 p2 k3 k4 k5 k6."""

    model: str
    coefficients: np.ndarray

    @property
    def is_fisheye(self) -> bool:
        return "FISHEYE" in self.model

    @cached_property
    def is_pinhole(self) -> bool:
        return not (self.is_fisheye or self.coefficients.any())


def read_lens(capture: Mapping, frame: Mapping, origin: str) -> Lens:
    """Return the lens of a frame; its own keys have precedence over those of the capture. Raise UserError for a model
    or term that is not supported. origin: names the frame in errors."""
    frame = {key: value for key, value in frame.items() if value is not None}
    model = _model(frame, origin) or _model(capture, origin) or "OPENCV"
    listed = [key for key in DISTORTION_LISTS if frame.get(key, capture.get(key)) is not None]
    for key in listed:
        if np.any(np.array(frame.get(key, capture.get(key)), dtype=object) != 0):
            raise UserError(f"{origin}: {key} is not read; give the terms by name (k1, k2, p1, p2, …)")
    values = {}
    for term in (*COEFFICIENTS, *OTHER_TERMS):
        value = frame.get(term, capture.get(term))
        if value is None:
            continue
        values[term] = number(value, term, origin)
    for term, value in values.items():
        if value and term not in TERMS[model]:
            why = "which some read as OpenCV's rational term and some as a factor of r^8" if term == "k4" else ""
            raise UserError(f"{origin}: camera_model {model} has no {term}{', ' * bool(why)}{why}; it is {value:g}")
    return Lens(model, np.array([values.get(term, 0.0) for term in COEFFICIENTS]))


def number(value, key: str, origin) -> float:
    """Return a value as float. Raise UserError, which begins with `origin`, if it is not a finite number."""
    try:
        if not isinstance(value, bool | str) and np.isfinite(result := float(value)):
            return result
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{origin}: {key} should be a number, at the top or in every frame")


def require_same_size(K: np.ndarray, size: tuple[int, int], origin: str) -> None:
    """Raise UserError if K (3, 3) belongs to images of another size than `size` (h, w): its principal point is off the
    centre by a similar factor in x and y. Warn if it may."""
    height, width = size
    ratios = np.array([2 * K[0, 2] / width, 2 * K[1, 2] / height])
    low, high = OTHER_SIZE_RATIOS
    if (ratios > high).all() or (ratios < low).all() or (ratios > 2).any() or (ratios < NO_MIDDLE).any():
        raise UserError(
            f"{origin}: the principal point ({K[0, 2]:.4g}, {K[1, 2]:.4g}) is not near the middle of images of "
            f"{width}x{height}; are the intrinsics of another image size?"
        )
    least, difference = LIKE_ANOTHER_SIZE
    if (abs(ratios - 1) > least).all() and abs(ratios[0] - ratios[1]) < difference:
        warn(
            f"{origin.split(': ')[0]}: the principal point fits images of {ratios.mean():.2f} times the size; are the intrinsics of another size?"
        )


def _model(values: Mapping, origin: str) -> str | None:
    """Return the model that the keys of a frame or a capture name; None if there is none."""
    named = {key: values[key] for key in MODEL_KEYS if values.get(key) not in (None, "")}
    named |= {key: values[key] for key in LOOSE_KEYS if _plain(values.get(key)) in (*TERMS, *OTHER_NAMES, *UNSUPPORTED)}
    named |= {key: name for key, name in FLAGS.items() if values.get(key)}
    models = {_known(name, key, origin): key for key, name in named.items()}
    if values.get(DISTORTION_MODEL) not in (None, "", "none", "None"):
        models.pop("PINHOLE", None)
        models[_known(values[DISTORTION_MODEL], DISTORTION_MODEL, origin)] = DISTORTION_MODEL
    if len(models) > 1:
        raise UserError(f"{origin}: " + " but ".join(f"{key} says {model}" for model, key in models.items()))
    return next(iter(models), None)


def _known(name, key: str, origin: str) -> str:
    model = OTHER_NAMES.get(_plain(name), _plain(name))
    if model not in TERMS:
        raise UserError(f"{origin}: {key} {name} is not supported (there are {', '.join(TERMS)})")
    return model


def _plain(name) -> str:
    return str(name).strip().upper().replace("-", "_").replace(" ", "_").removeprefix("CAMERATYPE.")


def undistort(image: np.ndarray, K: np.ndarray, lens: Lens, nearest: bool, size: tuple[int, int]) -> np.ndarray:
    """Undistort an image to a pinhole camera with the same K; 0 outside of the original image. nearest:
    nearest-neighbour sampling, for maps, instead of bilinear. K: of colour images of `size` (h, w); maps may have
    another size."""
    own = scale_intrinsics(K, size, image.shape[:2])
    shape = image.shape[1::-1]
    if lens.is_fisheye:
        terms = lens.coefficients[[0, 1, 4, 5]]
        maps = cv2.fisheye.initUndistortRectifyMap(own, terms, np.eye(3), own, shape, cv2.CV_32FC1)
    else:
        maps = cv2.initUndistortRectifyMap(own, lens.coefficients, None, own, shape, cv2.CV_32FC1)
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.remap(image, *maps, how, borderMode=cv2.BORDER_CONSTANT)


def centred_intrinsics(focal: float, size: tuple[int, int]) -> np.ndarray:
    """Return the intrinsics (3, 3) of square pixels with the principal point in the middle of images of `size` (h, w).

    focal: in pixels.
    """
    height, width = size
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def focal_length(view: float, side: int) -> float:
    """Return the focal length in pixels of a field of view in radians along a side of so many pixels."""
    return side / 2 / np.tan(view / 2)


def field_of_view(focal: float, side: int) -> float:
    """Return the field of view in radians along a side of so many pixels. focal: in pixels."""
    return float(2 * np.arctan(side / 2 / focal))


def scale_intrinsics(Ks, raw_size: tuple[int, int], size: tuple[int, int]):
    """Return the intrinsics (..., 3, 3), arrays or tensors, of images resized from `raw_size` to `size` (h, w): each
    axis by its own ratio, with pixel centres at integers, c' = s (c + 0.5) - 0.5."""
    scaled = Ks.copy() if isinstance(Ks, np.ndarray) else Ks.clone()
    for row, axis in ((0, 1), (1, 0)):
        ratio = size[axis] / raw_size[axis]
        scaled[..., row, :] *= ratio
        scaled[..., row, 2] += 0.5 * (ratio - 1)
    return scaled
