"""The Python API: load a network, open a scene, render new views.

    import semray

    scene = semray.load().scene("captures/kitchen")
    view = scene.render(scene.poses[0])
    print(view.color.shape, view.depth[0, 0], view.class_names[view.classes[0, 0]])

Cameras have OpenCV axes (x right, y down, z forward), pixel centres lie at integers, poses are camera-to-world 4x4, and
lengths are metres. Arrays may be NumPy's or tensors on any device. Errors that a caller can fix are a `UserError` of
one line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from easydict import EasyDict

from dataset.camera import scale_intrinsics
from dataset.database import configured_scene, has_depth, set_depth_range
from dataset.memory import MemoryScene
from dataset.poses import to_pose
from dataset.prepare.transforms import undistorted
from dataset.scene import SceneName, to_cameras
from train.pictures import to_picture
from train.shipped import model_config, shipped_model
from utils.errors import UserError
from viewing.references import References
from viewing.session import Model, Session, load_model

__all__ = ["Field", "Scene", "UserError", "View", "load"]

Array = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class View:
    """A rendered view: arrays of h x w pixels.

    color: (h, w, 3) uint8. depth: (h, w) float32, z-depth in metres. seen: (h, w) bool, false where no reference sees
    the surface and the result is a guess. classes: (h, w), indices into `class_names`. probabilities: (h, w, K+1)
    float32, of each class. class_names: of the K classes, and "invalid". For a network without classes the last three
    are None, None and ().
    """

    color: np.ndarray
    depth: np.ndarray
    seen: np.ndarray
    classes: np.ndarray | None
    probabilities: np.ndarray | None
    class_names: tuple[str, ...]


class Scene:
    """A scene of posed images, with a network that renders it.

    poses: (N, 4, 4) float64, camera-to-world of the usable images. size: (height, width) at which the images are read.
    K: (3, 3), intrinsics of the first image at that size. class_names: of the K classes, and "invalid"; () without
    classes. class_colors: (K+1, 3) uint8; None without classes.
    """

    def __init__(self, session: Session):
        self._session = session
        self._references = References(session.scene, session.references)
        scene, classes = session.scene, session.classes
        self.poses: np.ndarray = scene.camera_to_world
        self.size: tuple[int, int] = scene.size
        self.K: np.ndarray = scale_intrinsics(scene.Ks[0], scene.raw_size, scene.size)
        self.class_names: tuple[str, ...] = () if classes is None else classes.names
        self.class_colors: np.ndarray | None = None if classes is None else classes.colors

    def render(self, camera_to_world: Array, K: Array | None = None, size: tuple[int, int] | None = None) -> View:
        """Render the view of a camera at a pose (4, 4).

        K: (3, 3) in pixels of `size`; None for the scene's own, scaled to `size`. size: (height, width); None for the
        scene's. The encodings of recent sets of references are cached. Raise UserError for an invalid pose, K or size.
        """
        camera = self._camera(camera_to_world, K, size or self.size)
        rendered = self._session.render(camera, [(1.0, self._references.choose(camera))])
        picture = to_picture(rendered, camera.size, probabilities=True)
        return View(
            picture.color, picture.depth, picture.seen, picture.classes, picture.probabilities, self.class_names
        )

    def _camera(self, camera_to_world: Array, K: Array | None, size: tuple[int, int]):
        pose = to_pose(_numpy(camera_to_world), "render", "camera_to_world")
        if not np.isfinite(pose).all():
            raise UserError("render: camera_to_world is not finite, or all zero")
        if not (len(size) == 2 and min(size) >= 1):
            raise UserError(f"render: size should be (height, width) in pixels, but is {size}")
        K = scale_intrinsics(self.K, self.size, size) if K is None else np.asarray(_numpy(K), float)
        if K.shape != (3, 3) or not np.isfinite(K).all() or min(K[0, 0], K[1, 1]) <= 0:
            raise UserError("render: K should be 3x3 numbers with positive focal lengths, in pixels of `size`")
        return to_cameras(pose[None], K[None], self._session.scene.depth_range, tuple(map(int, size)))


class Field:
    """A trained network, which opens scenes. Created by `load`."""

    def __init__(self, path: str | Path | None, device: str):
        self._path, self._device = path, device
        self._models: dict[Path, Model] = {}
        self._model(depth=True)  # so that a missing or unsuitable file is an error of `load`

    def scene(self, source: str | Path, width: int = 320, data_root: str | Path = "data") -> Scene:
        """Return the scene of a folder with a transforms.json, or of a database name such as `scannet/scene0376_02`.

        width: of the images, in pixels, unless the name ends in one (`.../black_320`). data_root: the folder of
        database names, and of the undistorted copy of a distorted capture. Raise UserError if the scene cannot be used.
        """
        name = undistorted(_with_width(str(source), width), data_root)
        model = self._model(has_depth(name, data_root))
        cfg = EasyDict({**model.cfg, "data_root": str(data_root)})
        return Scene(model.session(configured_scene(name, cfg, model.needs.reads_depth)))

    def scene_of_images(
        self,
        images: Array | Sequence[Array],
        poses: Array | Sequence[Array],
        K: Array,
        depth: Array | Sequence[Array] | None = None,
        masks: Array | Sequence[Array] | None = None,
        width: int | None = None,
    ) -> Scene:
        """Return the scene of N posed images in memory.

        images: (N, h, w, 3), uint8 or floats in [0, 1]. poses: (N, 4, 4). K: (3, 3) of all or (N, 3, 3), in pixels of
        the images. depth: (N, h, w) z-depth, floats in metres or uint16 in millimetres, 0 where unknown. masks: (N, h,
        w), 0 where an image shows nothing that counts. width: that the images are resized to; None: as they are. Raise
        UserError for arrays that do not belong together.
        """
        given = [None if values is None else _numpy(values) for values in (images, poses, K, depth, masks)]
        scene, model = MemoryScene(*given, width=width), self._model(depth is not None)
        set_depth_range(scene, model.cfg, model.needs.reads_depth)
        return Scene(model.session(scene))

    def _model(self, depth: bool) -> Model:
        path = shipped_model(depth) if self._path is None else Path(self._path)
        if path not in self._models:
            # A library should not write a cache into the current folder.
            self._models[path] = load_model(model_config(path, [f"device={self._device}", "cache=false"]), path)
        return self._models[path]


def load(path: str | Path | None = None, device: str = "auto") -> Field:
    """Load the network in a file of weights with a config inside, such as a checkpoint of a training.

    path: None for the weights that come with the repository. device: cpu, cuda, cuda:1; auto: a GPU if there is one.
    Raise UserError if the file or the device is missing or does not fit.
    """
    return Field(path, device)


def _with_width(source: str, width: int) -> str:
    """Return the name of a scene with the width of its images."""
    named = f"{source.rstrip('/')}/black_{width}"
    if SceneName.of_folder(named) is None and re.search(r"/black_\d+/?$", source):
        return source
    return named


def _numpy(values: Array | Sequence[Array]) -> np.ndarray | list[np.ndarray]:
    """Return arrays or tensors, or sequences of them, as arrays."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    if isinstance(values, list | tuple) and any(isinstance(value, torch.Tensor) for value in values):
        return [_numpy(value) for value in values]
    return values
