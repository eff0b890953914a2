"""The interface of a scene, common to all file layouts: frame ids, cameras, and one decode per frame."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from dataset.cache import Cache
from dataset.camera import scale_intrinsics
from dataset.capture import CAPTURE_FILE, capture_file
from dataset.depth_range import DEPTH_FRAMES, matching_pairs, range_of_depth, range_of_matches
from dataset.exports import seems_to_be
from dataset.frames import Frames, require_shape
from dataset.labels import LabelSet
from dataset.maps import MILLIMETRES, DepthUnit, read_depth, read_ids, read_mask
from dataset.registration import DepthCamera
from dataset.view_selection import Split, evenly, split_frames
from dataset.views import Cameras, Views
from utils.errors import UserError
from utils.images import read_color
from utils.logging import warn

OTHER_FOLDERS = {"replica": ("Replica",)}  # names of a type's folder under data
FOLDER_WIDTH = 320  # of the images of a capture named by its folder alone


@dataclass(frozen=True)
class SceneName:
    """A database name such as `scannet/scene0376_02/black_320`: type, path inside the type's folder, image width."""

    text: str
    kind: str
    path: str
    width: int

    @classmethod
    def parse(cls, text: str) -> SceneName:
        """Parse TYPE/SCENE/…/BACKGROUND_WIDTH. Raise UserError for any other text."""
        parts = text.strip().split("/")
        background, _, width = parts[-1].rpartition("_")
        if len(parts) < 3 or not background or not width.isdigit() or not all(parts) or ".." in parts:
            raise UserError(
                f"'{text}' is not a database name such as scannet/scene0376_02/black_320 (type/scene/black_width), "
                f"nor a folder with a transforms.json{seems_to_be(Path(text.strip()))}"
            )
        if not 16 <= int(width) <= 16384:
            raise UserError(f"'{text}': an image width of {width} is out of range (16 to 16384)")
        return cls(text.strip(), parts[0], "/".join(parts[1:-1]), int(width))

    @classmethod
    def of_folder(cls, text: str) -> SceneName | None:
        """Return the name of the capture in a folder, given as `FOLDER` or `FOLDER/black_WIDTH`; None if there is none.

        `path` is the absolute path. `text` contains a part of its hash, so that folders of the same name differ in
        results.
        """
        head, _, tail = text.strip().rstrip("/").rpartition("/")
        background, _, width = tail.rpartition("_")
        if not (background and width.isdigit() and capture_file(Path(head))):
            head, background, width = text.strip(), "black", str(FOLDER_WIDTH)
        if not capture_file(Path(head)):
            return None
        place = Path(head).resolve()
        place = place.parent if place.name == CAPTURE_FILE else place
        mark = hashlib.blake2b(str(place).encode(), digest_size=2).hexdigest()
        name = cls.parse(f"transforms/{place.name}-{mark}/{background}_{width}")
        return cls(name.text, name.kind, str(place), name.width)

    def folder(self, data_root: str | Path) -> Path:
        """Return the folder of the scene, which does not depend on the image width in the name."""
        roots = [Path(data_root) / folder for folder in (*OTHER_FOLDERS.get(self.kind, ()), self.kind)]
        return next((root / self.path for root in roots if (root / self.path).exists()), roots[0] / self.path)


@dataclass(frozen=True)
class SceneFiles:
    """Description of a scene, known before any frame is read.

    files: kind (color, depth, labels, mask) -> frame number -> image file, of the kinds that the scene has. others:
    further files that it depends on (poses, intrinsics, tables). raw_size: (height, width) of the colour files.
    depth_range: near and far in metres. find_frames: reads the poses and returns the usable frames. split: the
    capture's own, in frame numbers; None for the published rule. depth_unit: of its depth files. depth_cameras: frame
    number -> camera of its depth, if that differs from the colour camera.
    """

    name: SceneName
    folder: Path
    files: dict[str, dict[int, Path]]
    others: list[Path]
    raw_size: tuple[int, int]
    depth_range: tuple[float, float]
    labels: LabelSet | None
    find_frames: Callable[[], Frames]
    split: Split | None = None
    depth_unit: DepthUnit = MILLIMETRES
    depth_cameras: dict[int, DepthCamera] = field(default_factory=dict)


class Scene:
    """A scene on disk, which reads `Views` of its frames at the size in its name.

    folder: identifies the scene. frame_ids: the N usable frames in numeric order. camera_to_world: (N, 4, 4) float64.
    Ks: (N, 3, 3) at raw_size. size: (height, width) of the views. labels: None without label maps. depth_unit: of its
    depth files. skipped: reason why frames are not usable -> their number.
    """

    def __init__(self, source: SceneFiles, cache: Cache | None = None):
        self.name, self.folder = source.name.text, source.folder.resolve()
        self.raw_size, self.depth_range, self.labels = source.raw_size, source.depth_range, source.labels
        self.size = view_size(source.name.width, source.raw_size)
        self._files, self.depth_unit, self._depth_cameras = source.files, source.depth_unit, source.depth_cameras
        everything = [path for paths in source.files.values() for path in paths.values()] + source.others
        meaning = (source.depth_unit, source.labels and source.labels.source, *map(repr, source.depth_cameras.values()))
        self._store = cache.open(self.name, self.size, list(source.files), everything, meaning) if cache else None
        frames = self._store.frames if self._store else None
        if frames is None:
            frames = source.find_frames()
            if self._store:
                self._store = self._store.create(frames)
        self.frame_ids = [str(number) for number in frames.numbers]
        self.camera_to_world, self.Ks, self.skipped = frames.camera_to_world, frames.Ks, frames.skipped
        self._rows = {frame: row for row, frame in enumerate(self.frame_ids)}
        self.own_split = source.split and Split(*[[f for f in part if f in self._rows] for part in source.split])

    def split(self) -> Split:
        """Return the reference pool and the test frames."""
        return self.own_split or split_frames(self.frame_ids)

    def validation_split(self, count: int) -> Split:
        """Return the reference pool and `count` validation frames: training frames that are not in the pool, if there
        are enough of them."""
        pool, frames = self.split().references, self.training_frames(hold_out_tests=True)
        others = [frame for frame in frames if frame not in set(pool)]
        chosen = evenly(others if len(others) >= count else frames, count)
        return Split([frame for frame in pool if frame not in chosen], chosen)

    def training_frames(self, hold_out_tests: bool, validated: int | None = None) -> list[str]:
        """Return the training frames: those of the capture's own split, or all frames.

        hold_out_tests: leave out the test frames. validated: leave out so many validation frames.
        """
        frames = self.frame_ids if self.own_split is None else self.own_split.references
        left_out = set(self.split().tests) if hold_out_tests else set()
        if validated:
            left_out.update(self.validation_split(validated).tests)
        return [frame for frame in frames if frame not in left_out]

    def fit_depth_range(self, use_depth: bool) -> None:
        """Set `depth_range` from the training frames: from their depth maps if `use_depth`, else from feature matches
        of their images. If nothing is found, keep it and warn."""
        source = "depth" if use_depth and self.has_depth else "matches"
        known = self._store.recall("depth_range") if self._store else {}
        if source not in known:
            known[source] = self._range_of_depth() if source == "depth" else self._range_of_matches()
            if self._store:
                self._store.remember("depth_range", known)
        if known[source] is None:
            warn(f"{self.name}: no depth and too few matches to fit near and far; keeps {list(self.depth_range)} m")
        else:
            self.depth_range = tuple(known[source])

    def _range_of_depth(self) -> tuple[float, float] | None:
        frames = evenly(self.training_frames(hold_out_tests=True) or self.frame_ids, DEPTH_FRAMES)
        return range_of_depth(depth for _, depth in self._readable("depth", frames))

    def _range_of_matches(self) -> tuple[float, float] | None:
        frames = self.training_frames(hold_out_tests=True) or self.frame_ids
        rows = [self._rows[frame] for frame in frames]
        pairs = matching_pairs(self.camera_to_world[rows])
        needed = [frames[i] for i in sorted({i for pair in pairs for i in pair})]
        images = {frames.index(frame): image for frame, image in self._readable("color", needed)}
        pairs = [pair for pair in pairs if all(i in images for i in pair)]
        Ks = scale_intrinsics(self.Ks[rows], self.raw_size, self.size)
        return range_of_matches(images, self.camera_to_world[rows], Ks, pairs)

    def _readable(self, kind: str, frames: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the images that can be read. Errors are reported when a sample needs the image."""
        for frame in frames:
            with contextlib.suppress(UserError):
                yield frame, self._read(kind, frame)

    def __len__(self) -> int:
        return len(self.frame_ids)

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of images that the scene has: color, depth, labels, mask."""
        return list(self._files)

    @property
    def has_depth(self) -> bool:
        return "depth" in self._files

    def numbers_on_disk(self) -> np.ndarray:
        """Return the sorted numbers of all colour files, usable or not."""
        return np.array(sorted(self._files["color"]))

    def path(self, frame: str, kind: str = "color") -> Path | None:
        """Return the image file of a frame: color, depth, labels or mask; None for a frame without a mask."""
        return self._files[kind].get(int(frame))

    def centres(self, frames: Sequence[str]) -> np.ndarray:
        """Return the camera centres (N, 3) in metres."""
        return self.camera_to_world[[self._rows[frame] for frame in frames], :3, 3]

    def cameras(self, frames: Sequence[str]) -> Cameras:
        """Return the cameras of frames at this scene's image size."""
        rows = [self._rows[frame] for frame in frames]
        Ks = scale_intrinsics(self.Ks[rows], self.raw_size, self.size)
        return to_cameras(self.camera_to_world[rows], Ks, self.depth_range, self.size)

    def views(self, frames: Sequence[str], depth: bool = False, labels: bool = False) -> Views:
        """Read frames as `Views` of this scene's size, in storage types. depth, labels: read them too, if the scene has
        them."""
        wanted = {"color": True, "depth": depth, "labels": labels, "mask": True}
        arrays = {
            kind: torch.from_numpy(np.stack([self._read(kind, frame) for frame in frames]))
            for kind, asked in wanted.items()
            if asked and kind in self._files
        }
        if self._store:
            self._store.release()
        return Views(
            self.cameras(frames),
            arrays["color"].permute(0, 3, 1, 2),
            arrays["depth"][:, None] if "depth" in arrays else None,
            arrays.get("labels"),
            arrays["mask"][:, None] if "mask" in arrays else None,
        )

    def label_maps(self, frames: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (frame, classes (h, w) uint8 at this scene's size) of the frames whose labels can be read."""
        return self._readable("labels", frames)

    def _read(self, kind: str, frame: str) -> np.ndarray:
        """Return an image at this scene's size, from the cache if possible."""
        if self._store is None:
            return self._decode(kind, frame)
        row = self._rows[frame]
        values = self._store.read(kind, row)
        if values is None:
            values = self._decode(kind, frame)
            self._store.write(kind, row, values)
        return values

    def _decode(self, kind: str, frame: str) -> np.ndarray:
        if self.path(frame, kind) is None:  # a frame without a mask is valid everywhere
            return np.ones(self.size, np.uint8)
        values = self.stored(frame, kind)
        if kind == "color":
            return cv2.resize(values, self.size[::-1], interpolation=cv2.INTER_AREA)
        if kind == "labels":
            values = self.labels.classes(values, self.path(frame, kind))
        return cv2.resize(values, self.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    def stored(self, frame: str, kind: str) -> np.ndarray:
        """Read a frame's image at the size of its file: RGB uint8, depth in millimetres uint16, raw class ids, mask 0
        or 1. Raise UserError for one that cannot be read, or cannot be of this scene."""
        path = self.path(frame, kind)
        if kind == "depth":
            values = self._registered(read_depth(path, self.depth_unit), path, frame)
        else:
            values = {"color": read_color, "labels": read_ids, "mask": read_mask}[kind](path)
        require_shape(values.shape[:2], self.raw_size, path, kind)
        return values

    def _registered(self, depth: np.ndarray, path: Path, frame: str) -> np.ndarray:
        """Return a depth map as seen by the frame's colour camera."""
        camera = self._depth_cameras.get(int(frame))
        return depth if camera is None else camera.register(depth, self.Ks[self._rows[frame]], self.raw_size, path)


def view_size(width: int, raw_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of images of `raw_size` resized to `width`. The height keeps the aspect ratio, rounded
    to a multiple of 4, so that 1296x968 and 640x480 both become 320x240."""
    return max(4, round(width * raw_size[0] / raw_size[1] / 4) * 4), width


def to_cameras(
    camera_to_world: np.ndarray, Ks: np.ndarray, depth_range: tuple[float, float], size: tuple[int, int]
) -> Cameras:
    """Return `Cameras` of poses (N, 4, 4) and intrinsics (N, 3, 3) of images of `size` (h, w)."""
    rotations = camera_to_world[:, :3, :3].transpose(0, 2, 1)
    poses = np.concatenate([rotations, -rotations @ camera_to_world[:, :3, 3:]], -1)
    ranges = torch.tensor(depth_range, dtype=torch.float32).repeat(len(poses), 1)
    return Cameras(torch.from_numpy(poses).float(), torch.from_numpy(Ks).float(), ranges, size)
