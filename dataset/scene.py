"""What every scene offers, whatever its files look like: frame ids, cameras, and one decode per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from dataset.labels import LabelSet
from dataset.views import Cameras, Views
from utils.errors import UserError

NO_DEPTH_READING = 65535  # what some sensors write instead of 0


@dataclass(frozen=True)
class SceneName:
    """A database name such as `scannet/scene0376_02/black_320`: type, path inside the type's folder, image width."""

    text: str
    kind: str
    path: str
    width: int

    @classmethod
    def parse(cls, text: str) -> SceneName:
        """Raises UserError if the text is not TYPE/SCENE/…/BACKGROUND_WIDTH."""
        parts = text.strip().split("/")
        background, _, width = parts[-1].rpartition("_")
        if len(parts) < 3 or not background or not width.isdigit() or not all(parts) or ".." in parts:
            raise UserError(
                f"'{text}' is not a database name such as scannet/scene0376_02/black_320 (type/scene/black_width)"
            )
        if not 16 <= int(width) <= 16384:
            raise UserError(f"'{text}': an image width of {width} is out of range (16 to 16384)")
        return cls(text.strip(), parts[0], "/".join(parts[1:-1]), int(width))


class Scene:
    """A scene on disk. Subclasses find the files; this class resizes, scales intrinsics and makes `Views`.

    frame_ids: the usable frames in numeric order. camera_to_world: (N, 4, 4) float64, row by row theirs.
    K: (3, 3) intrinsics at `raw_size`, the (height, width) of the colour files. size: (height, width) of
    the views. labels: None where the scene has none. skipped: why frames are not usable -> how many.
    """

    name: str
    frame_ids: list[str]
    camera_to_world: np.ndarray
    K: np.ndarray
    raw_size: tuple[int, int]
    size: tuple[int, int]
    depth_range: tuple[float, float]
    labels: LabelSet | None
    has_depth: bool
    skipped: dict[str, int]

    def color_path(self, frame: str) -> Path:
        raise NotImplementedError

    def read_color(self, frame: str) -> np.ndarray:
        """(h, w, 3) uint8 RGB as on disk."""
        raise NotImplementedError

    def read_depth(self, frame: str) -> np.ndarray:
        """(h, w) uint16 millimetres as on disk."""
        raise NotImplementedError

    def read_classes(self, frame: str) -> np.ndarray:
        """(h, w) uint8 classes, at the size on disk."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.frame_ids)

    def centres(self, frames: Sequence[str]) -> np.ndarray:
        """Camera centres (N, 3) in metres."""
        return self.camera_to_world[self._rows(frames), :3, 3]

    def cameras(self, frames: Sequence[str]) -> Cameras:
        """The cameras of frames at this scene's image size."""
        to_world = self.camera_to_world[self._rows(frames)]
        rotations = to_world[:, :3, :3].transpose(0, 2, 1)
        poses = np.concatenate([rotations, -rotations @ to_world[:, :3, 3:]], -1)
        count = len(frames)
        return Cameras(
            torch.from_numpy(poses).float(),
            torch.from_numpy(scale_intrinsics(self.K, self.raw_size, self.size)).float().repeat(count, 1, 1),
            torch.tensor(self.depth_range, dtype=torch.float32).repeat(count, 1),
            self.size,
        )

    def views(self, frames: Sequence[str], depth: bool = False, labels: bool = False) -> Views:
        """Frames as `Views` of this scene's size; depth and labels where asked for and there."""
        return Views(
            self.cameras(frames),
            _stack(self._color(frame) for frame in frames).permute(0, 3, 1, 2).contiguous(),
            _stack(self._depth(frame) for frame in frames)[:, None] if depth and self.has_depth else None,
            _stack(self._labels(frame) for frame in frames) if labels and self.labels is not None else None,
        )

    def _rows(self, frames: Sequence[str]) -> list[int]:
        if not hasattr(self, "_row_of_frame"):
            self._row_of_frame = {frame: row for row, frame in enumerate(self.frame_ids)}
        return [self._row_of_frame[frame] for frame in frames]

    def _color(self, frame: str) -> np.ndarray:
        image = self.read_color(frame)
        if image.shape[:2] != self.raw_size:
            raise UserError(
                f"{self.color_path(frame)}: is {image.shape[1]}x{image.shape[0]}, but the scene's first frame "
                f"is {self.raw_size[1]}x{self.raw_size[0]} and they share one camera"
            )
        return cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)

    def _depth(self, frame: str) -> np.ndarray:
        depth = _resize_nearest(self._same_shape(self.read_depth(frame), frame, "depth"), self.size)
        return np.where(depth == NO_DEPTH_READING, 0, depth).astype(np.uint16)

    def _labels(self, frame: str) -> np.ndarray:
        return _resize_nearest(self._same_shape(self.read_classes(frame), frame, "label"), self.size)

    def _same_shape(self, values: np.ndarray, frame: str, kind: str) -> np.ndarray:
        """Maps may be of another size than the colour image, but not of another shape."""
        ratio = (values.shape[1] / values.shape[0]) / (self.raw_size[1] / self.raw_size[0])
        if not 0.97 < ratio < 1.03:
            raise UserError(
                f"{self.name}, frame {frame}: the {kind} image is {values.shape[1]}x{values.shape[0]}, but colour "
                f"is {self.raw_size[1]}x{self.raw_size[0]}: they cannot be of the same frame"
            )
        return values


def view_size(width: int, raw_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of views `width` pixels wide of images of `raw_size`: the height that keeps the shape,
    to the nearest multiple of 4 (so that 1296x968 and 640x480 both become 320x240)."""
    return max(4, round(width * raw_size[0] / raw_size[1] / 4) * 4), width


def scale_intrinsics(K: np.ndarray, raw_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Intrinsics (3, 3) of an image resized from `raw_size` to `size` (h, w): each axis by its own ratio,
    with pixel centres at integers, c' = s (c + 0.5) - 0.5."""
    scaled = K.astype(np.float64)
    for row, axis in ((0, 1), (1, 0)):
        ratio = size[axis] / raw_size[axis]
        scaled[row] *= ratio
        scaled[row, 2] += 0.5 * (ratio - 1)
    return scaled


def _resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _stack(arrays) -> torch.Tensor:
    return torch.from_numpy(np.stack(list(arrays)))
