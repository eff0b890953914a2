"""The frames of a scene on disk: numbered files, and which of them can be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as imageio
import numpy as np

from utils.errors import UserError
from utils.logging import warn

LOST = "tracking lost"


class Frames(NamedTuple):
    """The usable frames of a scene: numbers (N), camera_to_world (N, 4, 4), Ks (N, 3, 3) at the files' size,
    and why the others are not usable -> how many."""

    numbers: list[int]
    camera_to_world: np.ndarray
    Ks: np.ndarray
    skipped: dict[str, int]


def numbered_files(folder: Path, suffixes: tuple[str, ...], prefix: str = "") -> dict[int, Path]:
    """Files such as 12.jpg or rgb_12.png by their number; {} if there is no such folder."""
    if not folder.is_dir():
        return {}
    return {
        int(path.stem[len(prefix) :]): path
        for path in folder.iterdir()
        if path.suffix in suffixes and path.stem.startswith(prefix) and path.stem[len(prefix) :].isdigit()
    }


def usable_frames(
    scene: str, files: dict[str, dict[int, Path]], read_pose: Callable[[int], np.ndarray | None], K: np.ndarray
) -> Frames:
    """The frames with a finite pose and an image of every kind in `files`, in numeric order; K (3, 3) is of all.

    read_pose: frame number -> camera-to-world (4, 4), None if there is none. Raises UserError if no frame is usable.
    """
    skipped: dict[str, int] = {}
    usable: dict[int, np.ndarray] = {}
    for number in sorted(files["color"]):
        missing = next((f"no {kind}" for kind, paths in files.items() if number not in paths), None)
        if missing is None:
            pose = read_pose(number)
            missing = "no pose" if pose is None else None if np.isfinite(pose).all() else LOST
        if missing is None:
            usable[number] = pose
        else:
            skipped[missing] = skipped.get(missing, 0) + 1
    total = len(files["color"])
    reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
    if not usable:
        raise UserError(f"{scene}: none of the {total} frames is usable ({reasons})")
    if set(skipped) - {LOST}:
        warn(f"{scene}: {total - len(usable)} of {total} frames are left out ({reasons})")
    return Frames(list(usable), np.stack(list(usable.values())), np.tile(K, (len(usable), 1, 1)), skipped)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header."""
    try:
        return imageio.improps(path).shape[:2]
    except Exception:
        raise UserError(f"{path}: not an image, or damaged; copy or export it again") from None
