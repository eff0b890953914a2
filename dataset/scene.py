"""What every scene offers, whatever its files look like: frame ids, cameras, and one decode per frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from dataset.cache import Cache
from dataset.depth_range import DEPTH_FRAMES, evenly, matching_pairs, range_of_depth, range_of_matches
from dataset.frames import Frames
from dataset.labels import LabelSet
from dataset.view_selection import Split, split_frames
from dataset.views import Cameras, Views
from utils.errors import UserError
from utils.files import read_color, read_map
from utils.logging import warn

NO_DEPTH_READING = 65535  # what some sensors write instead of 0
CAPTURE_FILE = "transforms.json"  # what makes a folder a capture of its own
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
        """Raises UserError if the text is not TYPE/SCENE/…/BACKGROUND_WIDTH."""
        parts = text.strip().split("/")
        background, _, width = parts[-1].rpartition("_")
        if len(parts) < 3 or not background or not width.isdigit() or not all(parts) or ".." in parts:
            raise UserError(
                f"'{text}' is not a database name such as scannet/scene0376_02/black_320 (type/scene/black_width), "
                "nor a folder with a transforms.json"
            )
        if not 16 <= int(width) <= 16384:
            raise UserError(f"'{text}': an image width of {width} is out of range (16 to 16384)")
        return cls(text.strip(), parts[0], "/".join(parts[1:-1]), int(width))

    @classmethod
    def of_folder(cls, text: str) -> SceneName | None:
        """The name of the capture in a folder with a transforms.json, given as `FOLDER` or `FOLDER/black_WIDTH`; None
        if there is none."""
        head, _, tail = text.strip().rstrip("/").rpartition("/")
        background, _, width = tail.rpartition("_")
        if not (background and width.isdigit() and Path(head, CAPTURE_FILE).is_file()):
            head, background, width = text.strip(), "black", str(FOLDER_WIDTH)
        if not Path(head, CAPTURE_FILE).is_file():
            return None
        folder = Path(head).resolve()
        name = cls.parse(f"transforms/{folder.name}/{background}_{width}")
        return cls(name.text, name.kind, str(folder), name.width)


@dataclass(frozen=True)
class SceneFiles:
    """What a kind of dataset knows of one of its scenes before any frame is read.

    files: of each kind that the scene has (color, depth, labels, mask), frame number -> image file.
    others: further files that it depends on (poses, intrinsics, tables).
    raw_size: (height, width) of the colour files. find_frames: reads the poses and says which frames are usable.
    split: the capture's own, in frame numbers; None for the published rule.
    """

    name: SceneName
    files: dict[str, dict[int, Path]]
    others: list[Path]
    raw_size: tuple[int, int]
    depth_range: tuple[float, float]
    labels: LabelSet | None
    find_frames: Callable[[], Frames]
    split: Split | None = None


class Scene:
    """A scene on disk, ready to give `Views` of its frames at the size that its name asks for.

    frame_ids: the usable frames in numeric order. camera_to_world: (N, 4, 4) float64, row by row theirs.
    size: (height, width) of the views. labels: None where the scene has none.
    skipped: why frames are not usable -> how many.
    """

    def __init__(self, source: SceneFiles, cache: Cache | None = None):
        self.name = source.name.text
        self.raw_size, self.depth_range, self.labels = source.raw_size, source.depth_range, source.labels
        self.size = view_size(source.name.width, source.raw_size)
        self._files = source.files
        everything = [path for paths in source.files.values() for path in paths.values()] + source.others
        self._store = cache.open(self.name, self.size, list(source.files), everything) if cache else None
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
        """Its reference pool and test frames."""
        return self.own_split or split_frames(self.frame_ids)

    def training_frames(self, hold_out_tests: bool) -> list[str]:
        """Frames to train on: those that a capture lists for it, or all; without the test frames if asked to."""
        frames = self.frame_ids if self.own_split is None else self.own_split.references
        left_out = set(self.split().tests) if hold_out_tests else set()
        return [frame for frame in frames if frame not in left_out]

    def fit_depth_range(self, use_depth: bool) -> None:
        """Make `depth_range` what the frames show that are not for testing: their depth maps, or without them points that
        their images have in common. It stays as it is, with a warning, where nothing is found."""
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
        """The images that can be read; whoever needs one of the others will say why it cannot."""
        for frame in frames:
            with contextlib.suppress(UserError):
                yield frame, self._read(kind, frame)

    def __len__(self) -> int:
        return len(self.frame_ids)

    @property
    def kinds(self) -> list[str]:
        """What each frame has: color, and depth, labels, mask where the scene has them."""
        return list(self._files)

    @property
    def has_depth(self) -> bool:
        return "depth" in self._files

    def numbers_on_disk(self) -> np.ndarray:
        """The sorted numbers of all colour files, usable or not."""
        return np.array(sorted(self._files["color"]))

    def path(self, frame: str, kind: str = "color") -> Path:
        """The image file of a frame: color, depth, labels or mask."""
        return self._files[kind][int(frame)]

    def centres(self, frames: Sequence[str]) -> np.ndarray:
        """Camera centres (N, 3) in metres."""
        return self.camera_to_world[[self._rows[frame] for frame in frames], :3, 3]

    def cameras(self, frames: Sequence[str]) -> Cameras:
        """The cameras of frames at this scene's image size."""
        rows = [self._rows[frame] for frame in frames]
        Ks = scale_intrinsics(self.Ks[rows], self.raw_size, self.size)
        return to_cameras(self.camera_to_world[rows], Ks, self.depth_range, self.size)

    def views(self, frames: Sequence[str], depth: bool = False, labels: bool = False) -> Views:
        """Frames as `Views` of this scene's size, in storage types; depth and labels where asked for and there."""
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

    def _read(self, kind: str, frame: str) -> np.ndarray:
        """An image at this scene's size, from the cache if it has it."""
        if self._store is None:
            return self._decode(kind, frame)
        row = self._rows[frame]
        values = self._store.read(kind, row)
        if values is None:
            values = self._decode(kind, frame)
            self._store.write(kind, row, values)
        return values

    def _decode(self, kind: str, frame: str) -> np.ndarray:
        path = self.path(frame, kind)
        if kind == "color":
            return self._decode_color(path)
        values = read_map(path)
        self._require_shape(values, frame, kind)
        if kind == "depth":
            depth = _resize_nearest(values, self.size)
            return np.where(depth == NO_DEPTH_READING, 0, depth).astype(np.uint16)
        if kind == "labels":
            return _resize_nearest(self.labels.classes(values, path), self.size)
        return _resize_nearest((values > 0).astype(np.uint8), self.size)

    def _decode_color(self, path: Path) -> np.ndarray:
        image = read_color(path)
        if image.shape[:2] != self.raw_size:
            raise UserError(
                f"{path}: is {image.shape[1]}x{image.shape[0]}, but the scene's first frame "
                f"is {self.raw_size[1]}x{self.raw_size[0]} and they share one camera"
            )
        return cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)

    def _require_shape(self, values: np.ndarray, frame: str, kind: str) -> None:
        """Maps may be of another size than the colour image, but not of another shape."""
        ratio = (values.shape[1] / values.shape[0]) / (self.raw_size[1] / self.raw_size[0])
        if not 0.97 < ratio < 1.03:
            raise UserError(
                f"{self.path(frame, kind)}: is {values.shape[1]}x{values.shape[0]}, but the frame's colour is "
                f"{self.raw_size[1]}x{self.raw_size[0]}: they cannot be of the same frame"
            )


def view_size(width: int, raw_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of views `width` pixels wide of images of `raw_size`: the height that keeps the shape,
    to the nearest multiple of 4 (so that 1296x968 and 640x480 both become 320x240)."""
    return max(4, round(width * raw_size[0] / raw_size[1] / 4) * 4), width


def to_cameras(
    camera_to_world: np.ndarray, Ks: np.ndarray, depth_range: tuple[float, float], size: tuple[int, int]
) -> Cameras:
    """`Cameras` of poses (N, 4, 4) and intrinsics (N, 3, 3) of images of `size` (h, w)."""
    rotations = camera_to_world[:, :3, :3].transpose(0, 2, 1)
    poses = np.concatenate([rotations, -rotations @ camera_to_world[:, :3, 3:]], -1)
    ranges = torch.tensor(depth_range, dtype=torch.float32).repeat(len(poses), 1)
    return Cameras(torch.from_numpy(poses).float(), torch.from_numpy(Ks).float(), ranges, size)


def scale_intrinsics(Ks, raw_size: tuple[int, int], size: tuple[int, int]):
    """Intrinsics (..., 3, 3), arrays or tensors, of images resized from `raw_size` to `size` (h, w): each axis by its
    own ratio, with pixel centres at integers, c' = s (c + 0.5) - 0.5."""
    scaled = Ks.copy() if isinstance(Ks, np.ndarray) else Ks.clone()
    for row, axis in ((0, 1), (1, 0)):
        ratio = size[axis] / raw_size[axis]
        scaled[..., row, :] *= ratio
        scaled[..., row, 2] += 0.5 * (ratio - 1)
    return scaled


def _resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
