"""ScanNet scenes: data/scannet/sceneXXXX_YY/{color,depth,label-filt,pose,intrinsic}."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from dataset.labels import SCANNET_TABLE, scannet_labels
from dataset.scene import Scene, SceneName, view_size
from utils.errors import UserError
from utils.files import read_color, read_map
from utils.logging import warn

DEPTH_RANGE = (0.1, 10.0)
COLOR_SUFFIXES = (".jpg", ".png")


class ScanNetScene(Scene):
    """Poses, intrinsics and the label table are read here, once; images when they are asked for."""

    def __init__(self, name: SceneName, data_root: Path):
        self.name = name.text
        self.folder = data_root / "scannet" / name.path
        if not self.folder.is_dir():
            raise UserError(f"{name.text}: there is no folder {self.folder}; prepare the scene there or set data_root")
        colors = numbered_files(self.folder / "color", COLOR_SUFFIXES)
        if not colors:
            raise UserError(f"{name.text}: {self.folder / 'color'} has no images named 0.jpg, 1.jpg, …")
        self._colors = colors
        self._maps = {kind: numbered_files(self.folder / kind, (".png",)) for kind in ("depth", "label-filt")}
        self.has_depth = bool(self._maps["depth"])
        self.labels = None
        if self._maps["label-filt"]:
            self.labels = scannet_labels(data_root / "scannet" / SCANNET_TABLE)
        self.raw_size = image_size(colors[min(colors)])
        self.size = view_size(name.width, self.raw_size)
        self.K = read_matrix(self.folder / "intrinsic" / "intrinsic_color.txt")[:3, :3]
        self.depth_range = DEPTH_RANGE
        self._find_usable_frames()

    def _find_usable_frames(self) -> None:
        poses = numbered_files(self.folder / "pose", (".txt",))
        needed = {"pose": poses, **{kind: files for kind, files in self._maps.items() if files}}
        self.skipped, usable = {}, {}
        for number in sorted(self._colors):
            missing = next((f"no {kind}" for kind, files in needed.items() if number not in files), None)
            if missing is None:
                pose = read_matrix(poses[number])
                missing = None if np.isfinite(pose).all() else "tracking lost"
            if missing is None:
                usable[str(number)] = pose
            else:
                self.skipped[missing] = self.skipped.get(missing, 0) + 1
        reasons = ", ".join(f"{reason}: {count}" for reason, count in self.skipped.items())
        if not usable:
            raise UserError(f"{self.name}: none of the {len(self._colors)} frames is usable ({reasons})")
        if set(self.skipped) - {"tracking lost"}:
            warn(
                f"{self.name}: {len(self._colors) - len(usable)} of {len(self._colors)} frames are left out ({reasons})"
            )
        self.frame_ids = list(usable)
        self.camera_to_world = np.stack(list(usable.values()))

    def color_path(self, frame: str) -> Path:
        return self._colors[int(frame)]

    def read_color(self, frame: str) -> np.ndarray:
        return read_color(self.color_path(frame))

    def read_depth(self, frame: str) -> np.ndarray:
        return read_map(self._maps["depth"][int(frame)])

    def read_classes(self, frame: str) -> np.ndarray:
        path = self._maps["label-filt"][int(frame)]
        return self.labels.classes(read_map(path), path)


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
