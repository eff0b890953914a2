"""Replica scenes as rendered for Semantic-NeRF: data/Replica/<scene>/Sequence_{1,2}/{rgb,depth,semantic_class}."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.labels import replica_labels
from dataset.scannet import image_size, numbered_files
from dataset.scene import Scene, SceneName, view_size
from utils.errors import UserError
from utils.files import read_color, read_map
from utils.logging import warn

DEPTH_RANGE = (0.1, 6.0)
FIELD_OF_VIEW = np.pi / 2  # horizontal, of all renderings


class ReplicaScene(Scene):
    """The trajectory and the class names are read here, once; images when they are asked for."""

    def __init__(self, name: SceneName, data_root: Path):
        self.name = name.text
        roots = [data_root / "Replica", data_root / "replica"]
        self.folder = next((root / name.path for root in roots if (root / name.path).is_dir()), None)
        if self.folder is None:
            raise UserError(
                f"{name.text}: there is no folder {roots[0] / name.path}; prepare the scene there or set data_root"
            )
        folders = {"rgb": "rgb_", "depth": "depth_", "semantic_class": "semantic_class_"}
        self._files = {
            kind: numbered_files(self.folder / kind, (".png", ".jpg"), prefix) for kind, prefix in folders.items()
        }
        if not self._files["rgb"]:
            raise UserError(f"{name.text}: {self.folder / 'rgb'} has no images named rgb_0.png, rgb_1.png, …")
        self.has_depth = bool(self._files["depth"])
        info = next(
            (
                path
                for path in (
                    self.folder / "info_semantic.json",
                    self.folder.parent / "info_semantic.json",
                    self.folder.parent.parent / "info_semantic.json",
                )
                if path.is_file()
            ),
            None,
        )
        self.labels = replica_labels(info) if self._files["semantic_class"] else None
        self.raw_size = image_size(self._files["rgb"][min(self._files["rgb"])])
        self.size = view_size(name.width, self.raw_size)
        height, width = self.raw_size
        focal = width / 2 / np.tan(FIELD_OF_VIEW / 2)
        self.K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        self.depth_range = DEPTH_RANGE
        self._find_usable_frames()

    def _find_usable_frames(self) -> None:
        poses = read_trajectory(self.folder / "traj_w_c.txt")
        needed = [files for files in self._files.values() if files]
        usable = [
            number
            for number in sorted(self._files["rgb"])
            if number < len(poses) and np.isfinite(poses[number]).all() and all(number in files for files in needed)
        ]
        left_out = len(self._files["rgb"]) - len(usable)
        self.skipped = {"no pose, depth or label": left_out} if left_out else {}
        if not usable:
            raise UserError(
                f"{self.name}: none of the {left_out} frames has an image, a pose, and the depth and label "
                "that other frames have"
            )
        if left_out:
            warn(f"{self.name}: {left_out} of {len(self._files['rgb'])} frames are left out (no pose, depth or label)")
        self.frame_ids = [str(number) for number in usable]
        self.camera_to_world = poses[usable]

    def color_path(self, frame: str) -> Path:
        return self._files["rgb"][int(frame)]

    def read_color(self, frame: str) -> np.ndarray:
        return read_color(self.color_path(frame))

    def read_depth(self, frame: str) -> np.ndarray:
        return read_map(self._files["depth"][int(frame)])

    def read_classes(self, frame: str) -> np.ndarray:
        path = self._files["semantic_class"][int(frame)]
        return self.labels.classes(read_map(path), path)


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
