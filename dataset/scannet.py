"""ScanNet scenes: data/scannet/sceneXXXX_YY/{color,depth,label-filt,pose,intrinsic}."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.frames import Frames, image_size, numbered_files, usable_frames
from dataset.labels import SCANNET_TABLE, scannet_labels
from dataset.scene import SceneFiles, SceneName
from utils.errors import UserError

DEPTH_RANGE = (0.1, 10.0)
COLOR_SUFFIXES = (".jpg", ".png")


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
