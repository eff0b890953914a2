"""Replica scenes as rendered for Semantic-NeRF: data/Replica/<scene>/Sequence_{1,2}/{rgb,depth,semantic_class}."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.frames import Frames, image_size, numbered_files, usable_frames
from dataset.labels import replica_labels
from dataset.scene import SceneFiles, SceneName
from utils.errors import UserError

DEPTH_RANGE = (0.1, 6.0)
FIELD_OF_VIEW = np.pi / 2  # horizontal, of all renderings


def replica_scene(name: SceneName, data_root: Path) -> SceneFiles:
    """Finds a sequence's files. Raises UserError if what every sequence needs is missing."""
    roots = [data_root / "Replica", data_root / "replica"]
    folder = next((root / name.path for root in roots if (root / name.path).is_dir()), None)
    if folder is None:
        raise UserError(
            f"{name.text}: there is no folder {roots[0] / name.path}; prepare the scene there or set data_root"
        )
    found = {
        kind: numbered_files(folder / part, (".png", ".jpg"), f"{part}_")
        for kind, part in {"color": "rgb", "depth": "depth", "labels": "semantic_class"}.items()
    }
    files = {kind: paths for kind, paths in found.items() if paths}
    if "color" not in files:
        raise UserError(f"{name.text}: {folder / 'rgb'} has no images named rgb_0.png, rgb_1.png, …")
    info = next(
        (
            path
            for path in (parent / "info_semantic.json" for parent in (folder, *folder.parents[:2]))
            if path.is_file()
        ),
        None,
    )
    labels = replica_labels(info) if "labels" in files else None
    raw_size = image_size(files["color"][min(files["color"])])
    trajectory = folder / "traj_w_c.txt"

    def find_frames() -> Frames:
        poses = read_trajectory(trajectory)
        K = intrinsics(raw_size)
        return usable_frames(name.text, files, lambda number: poses[number] if number < len(poses) else None, K)

    others = [trajectory, *([info] if info else [])]
    return SceneFiles(name, files, others, raw_size, DEPTH_RANGE, labels, find_frames)


def intrinsics(size: tuple[int, int]) -> np.ndarray:
    """(3, 3) of a rendering of `size` (h, w): square pixels, the principal point in the middle."""
    height, width = size
    focal = width / 2 / np.tan(FIELD_OF_VIEW / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def read_trajectory(path: Path) -> np.ndarray:
    """Camera-to-world matrices (N, 4, 4), one a line of 16 numbers. Raises UserError naming the line that is not."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: the trajectory is missing") from None
    matrices = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            values = []
        if len(values) != 16:
            raise UserError(f"{path}, line {number}: should hold 16 numbers (a 4x4 matrix, row by row)")
        matrices.append(values)
    if not matrices:
        raise UserError(f"{path}: the trajectory is empty")
    return np.array(matrices).reshape(-1, 4, 4)
