"""The frames of a scene on disk: numbered files, and the selection of usable frames."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.poses import FARTHEST_OFF, leaps, reset_poses
from utils.errors import UserError
from utils.images import image_size
from utils.logging import warn

# Reasons why frames are left out.
LOST, RESET = "tracking lost", "pose reset to the identity"
COPY, OTHER_SIZE, BAD = "a second copy of a frame", "of another image size", "marked as bad"

SAME_POSE, POSE_DIGITS = 1e-6, 6  # largest difference, and digits, of the entries of equal poses
LARGEST_ROOM = 100.0  # metres between the outermost cameras


class Frames(NamedTuple):
    """The usable frames of a scene: numbers (N), camera_to_world (N, 4, 4), Ks (N, 3, 3) at the files' size. skipped:
    reason why frames are not usable -> their number."""

    numbers: list[int]
    camera_to_world: np.ndarray
    Ks: np.ndarray
    skipped: dict[str, int]


def numbered_files(folder: Path, suffixes: tuple[str, ...], prefix: str = "") -> dict[int, Path]:
    """Return files such as 12.jpg, 000012.JPG or rgb_12.png by their number; {} if there is no such folder. Raise
    UserError if two have the same number."""
    found: dict[int, Path] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        number = path.stem[len(prefix) :]
        if path.suffix.lower() in suffixes and path.stem.startswith(prefix) and number.isdecimal():
            if int(number) in found:
                raise UserError(f"{folder}: {found[int(number)].name} and {path.name} have the same number; remove one")
            found[int(number)] = path
    return found


def require_numbered(folder: Path, files: dict[int, Path], suffixes: tuple[str, ...], start: str = "") -> None:
    """Raise UserError for a folder with files of which none has a valid name (`files` is empty): the scene would
    silently have no maps."""
    others = sorted(path.name for path in folder.glob(f"{start or '[!.]'}*"))
    if others and not files:
        raise UserError(
            f"{folder}: has no maps named {start}0.png, {start}1.png, … but {others[0]} ({', '.join(suffixes)} are read)"
        )


def say_of_unread(scene: str, folder: Path, kinds: Collection[str], read: Collection[str]) -> None:
    """Warn of folders that are not `read`, if the scene lacks depth or labels, and of folders of masks in any case.
    kinds: those that the scene has."""
    missing = [kind for kind in ("depth", "labels") if kind not in kinds]
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    unread = [name for name in names if name not in read and (missing or "mask" in name.lower())]
    if unread:
        without = f"has no {' and no '.join(missing)}; " if missing else ""
        warn(f"{scene}: {without}folders that are not read: {', '.join(unread)}")


def usable_frames(
    scene: str,
    files: dict[str, dict[int, Path]],
    read_pose: Callable[[int], np.ndarray | None],
    K: np.ndarray,
    left_out: dict[int, str],
) -> Frames:
    """Return the frames that have a pose and an image of every kind in `files` except masks, in numeric order. K (3,
    3): of all.

    read_pose: frame number -> camera-to-world (4, 4), not finite if tracking was lost, None if there is none. left_out:
    frame number -> reason why it is not used. Frames whose pose was reset, and second copies of a frame, are left out
    as well. Raise UserError if no frame is usable, or cameras are too far from the origin. Warn of implausible poses.
    """
    reasons = dict(left_out)
    poses: dict[int, np.ndarray] = {}
    for number in sorted(set(files["color"]) - set(reasons)):
        missing = next((kind for kind, paths in files.items() if kind != "mask" and number not in paths), None)
        pose = None if missing else read_pose(number)
        if pose is None:
            reasons[number] = f"no {missing or 'pose'}"
        elif np.isfinite(pose).all():
            poses[number] = pose
        else:
            reasons[number] = LOST
    numbers = list(poses)
    if numbers:
        reset = reset_poses(np.stack(list(poses.values())))
        reasons |= {number: RESET for number, is_reset in zip(numbers, reset, strict=True) if is_reset}
    reasons |= dict.fromkeys(
        _copies(scene, {n: pose for n, pose in poses.items() if n not in reasons}, files["color"]), COPY
    )
    usable = [number for number in numbers if number not in reasons]
    skipped = dict(Counter(reasons[number] for number in sorted(reasons)))
    total, told = len(files["color"]), ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
    if not usable:
        raise UserError(f"{scene}: none of the {total} frames is usable ({told})")
    if set(skipped) - {LOST}:
        warn(f"{scene}: {total - len(usable)} of {total} frames are left out ({told})")
    _say_of_poses(scene, usable, np.stack([poses[n] for n in usable]))
    return Frames(usable, np.stack([poses[n] for n in usable]), np.tile(K, (len(usable), 1, 1)), skipped)


def _say_of_poses(scene: str, numbers: list[int], poses: np.ndarray) -> None:
    off = float(np.abs(poses[:, :3, 3]).max())
    if off > FARTHEST_OFF:
        raise UserError(
            f"{scene}: cameras are {off:.3g} m from the origin, too far for a precision of millimetres; are these metres? subtract an offset"
        )
    extent = float(np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0)))
    if extent > LARGEST_ROOM:
        warn(f"{scene}: cameras are spread over {extent:.3g} m; are poses in another unit than metres?")
    leaping = np.flatnonzero(leaps(poses))
    if len(leaping):
        some = ", ".join(str(numbers[i]) for i in leaping[:5])
        warn(
            f"{scene}: the pose of {len(leaping)} frames leaps away from those before and after ({some}); are they right?"
        )
    if len(poses) > 1 and np.ptp(poses, axis=0).max() < 1e-9:
        warn(f"{scene}: all {len(poses)} frames have the same pose")
        return
    first = np.unique(poses.round(POSE_DIGITS), axis=0, return_index=True)[1]
    again = sorted(set(range(len(poses))) - set(first.tolist()))
    if again:
        some = ", ".join(str(numbers[i]) for i in again[:5])
        warn(
            f"{scene}: {len(again)} frames have the pose of another one ({some}); are they copies of it, or did tracking stop?"
        )


def _copies(scene: str, poses: dict[int, np.ndarray], images: dict[int, Path]) -> list[int]:
    """Return the frames with the same pose and the same image file content as an earlier frame. Warn of those with the
    same content but another pose."""
    same_length: dict[int, list[int]] = {}
    for number in poses:
        same_length.setdefault(images[number].stat().st_size if images[number].is_file() else 0, []).append(number)
    copies, moved = [], []
    for numbers in same_length.values():
        first: dict[bytes, int] = {}
        for number in numbers if len(numbers) > 1 else []:
            content = hashlib.blake2b(images[number].read_bytes() if images[number].is_file() else b"").digest()
            earlier = first.setdefault(content, number)
            if earlier != number:
                same = np.abs(poses[number] - poses[earlier]).max() < SAME_POSE
                (copies if same else moved).append(number)
    if moved:
        some = ", ".join(map(str, sorted(moved)[:5]))
        warn(f"{scene}: {len(moved)} frames have the image of another one, but another pose ({some}); are they right?")
    return copies


def of_another_size(images: dict[int, Path], size: tuple[int, int]) -> dict[int, str]:
    """Return the frames whose image is not of `size` (h, w), for `left_out`."""
    found = {}
    for number, path in images.items():
        with contextlib.suppress(UserError):  # an unreadable image is reported when it is read
            if image_size(path) != size:
                found[number] = OTHER_SIZE
    return found


def require_shape(size: tuple[int, int], raw_size: tuple[int, int], path: Path, kind: str) -> None:
    """Raise UserError for an image whose `size` (h, w) does not match the colour images' `raw_size`. Maps may have
    another size, but must have the same aspect ratio."""
    ratio = (size[1] / size[0]) / (raw_size[1] / raw_size[0])
    if not (same_shape(size, raw_size) or (kind != "color" and 0.97 < ratio < 1.03)):
        what = "the scene's images are" if kind == "color" else "the frame's colour is"
        raise UserError(
            f"{path}: is {size[1]}x{size[0]}, but {what} {raw_size[1]}x{raw_size[0]}: they cannot be of the same camera"
        )


def same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes (h, w) have the same aspect ratio, to within 1% or one pixel."""
    expected = size[0] * other[1] / size[1], size[1] * other[0] / size[0]
    return all(abs(found - side) <= max(1.0, 0.01 * side) for found, side in zip(expected, other, strict=True))
