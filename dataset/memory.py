"""A scene of posed images in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataset.frames import Frames
from dataset.maps import MILLIMETRES, to_millimetres
from dataset.poses import to_pose
from dataset.scene import Scene, SceneFiles, SceneName
from dataset.transforms import DEPTH_RANGE
from dataset.view_selection import Split
from utils.errors import UserError

NAME = "images"  # of the scene, in messages


class MemoryScene(Scene):
    """A scene of N images given as arrays. All of them may be references; there are no test frames."""

    def __init__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        poses: np.ndarray | Sequence[np.ndarray],
        K: np.ndarray,
        depth: np.ndarray | Sequence[np.ndarray] | None = None,
        masks: np.ndarray | Sequence[np.ndarray] | None = None,
        width: int | None = None,
    ):
        """images: (N, h, w, 3) uint8, or floats in [0, 1]. poses: (N, 4, 4) camera-to-world, OpenCV axes, metres. K:
        (3, 3) of all images or (N, 3, 3), in pixels of the images, pixel centres at integers. depth: (N, h, w) z-depth,
        floats in metres or uint16 in millimetres, 0 where unknown. masks: (N, h, w), 0 where an image does not count.
        width: that the images are resized to; None: as they are.

        Raise UserError for arrays that do not belong together.
        """
        self._arrays = {"color": _colors(images)}
        count, *raw_size = self._arrays["color"].shape[:3]
        if depth is not None:
            self._arrays["depth"] = np.stack([to_millimetres(np.asarray(map), MILLIMETRES) for map in depth])
        if masks is not None:
            self._arrays["mask"] = (np.asarray(masks) > 0).astype(np.uint8)
        for kind, values in self._arrays.items():
            if values.shape[:3] != (count, *raw_size):
                raise UserError(f"{NAME}: {kind} is {values.shape}, but there are {count} images of {tuple(raw_size)}")
        if len(poses) != count:
            raise UserError(f"{NAME}: there are {count} images, but {len(poses)} poses")
        frames = self._frames(poses, _intrinsics(K, count))
        files = {kind: {i: Path(f"{kind} {i}") for i in range(count)} for kind in self._arrays}
        super().__init__(
            SceneFiles(
                name=SceneName.parse(f"memory/{NAME}/black_{width or raw_size[1]}"),
                folder=Path(NAME),
                files=files,
                others=[],
                raw_size=tuple(raw_size),
                depth_range=DEPTH_RANGE,
                labels=None,
                find_frames=lambda: frames,
                split=Split(references=[str(number) for number in range(count)], tests=[]),
            )
        )

    @staticmethod
    def _frames(poses, Ks: np.ndarray) -> Frames:
        matrices = np.stack([to_pose(pose, NAME, f"pose {number}") for number, pose in enumerate(poses)])
        lost = np.flatnonzero(~np.isfinite(matrices).all((1, 2)))
        if len(lost):
            raise UserError(f"{NAME}: pose {lost[0]} is not finite, or all zero; leave that image out")
        return Frames(list(range(len(matrices))), matrices, Ks, {})

    def stored(self, frame: str, kind: str) -> np.ndarray:
        """Return a frame's image as it was given."""
        return self._arrays[kind][int(frame)]


def _colors(images) -> np.ndarray:
    """Return images as (N, h, w, 3) uint8. Raise UserError for arrays that are no images."""
    try:
        values = np.asarray(images)
    except ValueError:
        values = np.empty(0)
    if values.ndim != 4 or values.shape[-1] != 3 or not len(values):
        raise UserError(f"{NAME}: should be (N, h, w, 3), all of one size, but are {values.shape}")
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise UserError(f"{NAME}: floats should be from 0 to 1; give uint8 for 0 to 255")
        return (values * 255).round().astype(np.uint8)
    if values.dtype != np.uint8:
        raise UserError(f"{NAME}: should be uint8, or floats in [0, 1], but are {values.dtype}")
    return values


def _intrinsics(K, count: int) -> np.ndarray:
    """Return intrinsics as (N, 3, 3). Raise UserError for another shape."""
    K = np.asarray(K, float)
    if K.shape not in ((3, 3), (count, 3, 3)):
        raise UserError(f"{NAME}: K should be (3, 3) or ({count}, 3, 3), but is {K.shape}")
    return np.broadcast_to(K, (count, 3, 3)).copy()
