"""ScanNet scenes: data/scannet/sceneXXXX_YY/{color,depth,label-filt,pose,intrinsic}."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from dataset.cache import Frames
from dataset.labels import SCANNET_TABLE, scannet_labels
from dataset.scene import SceneFiles, SceneName
from utils.errors import UserError
from utils.logging import warn

DEPTH_RANGE = (0.1, 10.0)
COLOR_SUFFIXES = (".jpg", ".png")
LOST = "tracking lost"


def scannet_scene(name: SceneName, data_root: Path) -> SceneFiles:
    """Finds a scene's files. Raises UserError if what every scene needs is missing."""
    folder = data_root / "scannet" / name.path
    if not folder.is_dir():
        raise UserError(f"{name.text}: there is no folder {folder}; prepare the scene there or set data_root")
    found = {
        "color": numbered_files(folder / "color", COLOR_SUFFIXES),
        "depth": numbered_files(folder / "depth", (".png",)),
        "labels": numbered_files(folder / "label-filt", (".png",)),
    }
    files = {kind: paths for kind, paths in found.items() if paths}
    if "color" not in files:
        raise UserError(f"{name.text}: {folder / 'color'} has no images named 0.jpg, 1.jpg, …")
    poses = numbered_files(folder / "pose", (".txt",))
    intrinsics, table = folder / "intrinsic" / "intrinsic_color.txt", data_root / "scannet" / SCANNET_TABLE
    labels = scannet_labels(table) if "labels" in files else None

    def find_frames() -> Frames:
        K = read_matrix(intrinsics)[:3, :3]
        return usable_frames(
            name.text, files, lambda number: read_matrix(poses[number]) if number in poses else None, K
        )

    others = [*poses.values(), intrinsics, *([table] if labels else [])]
    return SceneFiles(
        name, files, others, image_size(files["color"][min(files["color"])]), DEPTH_RANGE, labels, find_frames
    )


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


def numbered_files(folder: Path, suffixes: tuple[str, ...], prefix: str = "") -> dict[int, Path]:
    """Files such as 12.jpg or rgb_12.png by their number; {} if there is no such folder."""
    if not folder.is_dir():
        return {}
    return {
        int(path.stem[len(prefix) :]): path
        for path in folder.iterdir()
        if path.suffix in suffixes and path.stem.startswith(prefix) and path.stem[len(prefix) :].isdigit()
    }


def read_matrix(path: Path) -> np.ndarray:
    """A 4x4 matrix from a text file; it may hold inf or nan. Raises UserError if it is missing or not 4x4."""
    try:
        values = [float(word) for word in path.read_text().split()]
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (ValueError, OSError):
        raise UserError(f"{path}: should hold a 4x4 matrix, but holds something else") from None
    if len(values) != 16:
        raise UserError(f"{path}: should hold a 4x4 matrix, but has {len(values)} numbers")
    return np.array(values).reshape(4, 4)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header."""
    try:
        return imageio.improps(path).shape[:2]
    except Exception:
        raise UserError(f"{path}: not an image, or damaged; copy or export it again") from None
