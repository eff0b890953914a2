"""Validation of camera-to-world matrices, and detection of implausible ones."""

from __future__ import annotations

import numpy as np

from utils.errors import UserError
from utils.logging import warn

OPENGL_TO_OPENCV = np.diag([1.0, -1, -1, 1])
LOST_POSE = np.full((4, 4), np.nan)
EXACT, ROUNDED = 1e-3, 0.01  # largest error of a rotation by rounding: without, and with a warning
SQUARE = 0.02  # largest cosine between two axes of a (scaled) rotation
LEAP = 8.0  # distance of an outlier to its neighbours, in median steps
FEWEST_FOR_LEAPS = 8  # with fewer poses outliers are not detected
FARTHEST_OFF = 30000.0  # metres from the origin, beyond which single precision does not resolve millimetres
RESET_JUMP = 4.0  # distance of a reset pose to both of its neighbours, in median steps


def to_pose(values, source, what: str) -> np.ndarray:
    """Return a camera-to-world matrix (4, 4) with an orthonormal rotation; `LOST_POSE` if tracking was lost (not
    finite, or all zero). values: 4x4 or 3x4 numbers, or 16 or 12 in one row. source, what: the file and the matrix in
    it, for messages.

    A scaled rotation is divided by its scale, with a warning. Raise UserError for another shape, a reflection, axes
    that are not orthogonal, or a last row that is not 0 0 0 1.
    """
    matrix = numbers_of(values, ((4, 4), (3, 4), (16,), (12,)))
    if matrix.ndim < 3:
        matrix = np.concatenate([matrix.reshape(-1, 4), [[0, 0, 0, 1]]])[:4]
    else:
        raise UserError(f"{source}: {what} should be 4x4 numbers (or 3x4)")
    if not np.isfinite(matrix).all() or not matrix[:3, :3].any():
        return LOST_POSE
    if np.abs(matrix[3, :3]).max() > 1e-6 or matrix[3, 3] == 0:
        hint = "; is it transposed?" if not matrix[:3, 3].any() else ""
        raise UserError(f"{source}: {what} is not a rotation and translation (its last row is not 0 0 0 1){hint}")
    return _with_rotation(matrix / matrix[3, 3], source, what)


def numbers_of(values, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Return a file's numbers as an array of one of `shapes`; an array (4, 4, 4) of nan if they have another shape."""
    try:
        array = np.array(values, float)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    return array if array.shape in shapes else np.full((4, 4, 4), np.nan)


def _with_rotation(matrix: np.ndarray, source, what: str) -> np.ndarray:
    scales = np.linalg.norm(matrix[:3, :3], axis=0)
    axes = matrix[:3, :3] / np.maximum(scales, 1e-12)
    if np.abs(axes.T @ axes - np.eye(3)).max() > SQUARE:
        raise UserError(f"{source}: {what} is not a rotation and translation (its axes are not at right angles)")
    if np.linalg.det(axes) < 0:
        raise UserError(f"{source}: {what} is a mirror image (determinant -1); flip one axis where it was written")
    if np.abs(matrix[:3, :3].T @ matrix[:3, :3] - np.eye(3)).max() <= EXACT:
        return matrix
    if np.abs(scales - 1).max() > ROUNDED:
        warn(
            f"{source}: rotations are scaled by {scales.mean():.3g}; they are divided by it, and positions are taken as "
            "they are"
        )
    else:
        warn(f"{source}: rotations are rounded, by up to a hundredth; export them with more digits")
    u, _, v = np.linalg.svd(axes)
    result = matrix.copy()
    result[:3, :3] = u @ v
    return result


def reset_poses(poses: np.ndarray) -> np.ndarray:
    """Return which of the poses (N, 4, 4), in temporal order, a tracker has reset to the identity, (N,) bool.

    The identity may be the valid first pose, or that of the photo to which a set is aligned. It is a reset if it occurs
    again, or is far from its neighbours.
    """
    identity = np.isclose(poses, np.eye(4), atol=1e-9).all((1, 2))
    identity |= np.isclose(poses, OPENGL_TO_OPENCV, atol=1e-9).all((1, 2))
    if not identity.any() or identity.all():
        return np.zeros(len(poses), bool)
    starts = np.flatnonzero(identity & ~np.r_[False, identity[:-1]])
    ends = np.flatnonzero(identity & ~np.r_[identity[1:], False])
    usual = _steps(poses[~identity])
    reset = identity.copy()
    for start, end in zip(starts, ends, strict=True):
        beside = [i for i in (start - 1, end + 1) if 0 <= i < len(poses)]
        jumps = np.array([_steps(poses[[start, i]])[0] for i in beside])
        fits = len(usual) > 0 and (jumps.min(0) <= RESET_JUMP * np.median(usual, 0) + 1e-9).all()
        if fits and (start == 0 or (len(starts) == 1 and start == end)):
            reset[start : end + 1] = False
    return reset


def leaps(poses: np.ndarray) -> np.ndarray:
    """Return the outliers among the poses (N, 4, 4), in temporal order, (N,) bool: far from both neighbours, while
    these are near each other."""
    if len(poses) < FEWEST_FOR_LEAPS:
        return np.zeros(len(poses), bool)
    step = _steps(poses)
    across = _steps(poses, 2)
    usual = np.maximum(np.median(step, 0), 1e-6)
    out = (np.minimum(step[:-1], step[1:]) > LEAP * usual) & (across < LEAP / 2 * usual)
    return np.r_[False, out.any(1), False]


def _steps(poses: np.ndarray, apart: int = 1) -> np.ndarray:
    """Return the distance in metres and in radians from each pose i to pose i + apart, (N - apart, 2)."""
    moved = np.linalg.norm(poses[apart:, :3, 3] - poses[:-apart, :3, 3], axis=1)
    cosine = (np.einsum("nij,nij->n", poses[:-apart, :3, :3], poses[apart:, :3, :3]) - 1) / 2
    return np.stack([moved, np.arccos(np.clip(cosine, -1, 1))], 1)
