"""Parsing and validation of captures in nerfstudio's format and its relatives: the only reader of transforms.json.

Preparation, the loader and camera paths use it. A key that changes the meaning of pixels, cameras, depth or labels is
either honoured or an error; other unknown keys are named once in a warning.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dataset.camera import CAMERA_KEYS, Lens, read_lens
from dataset.capture_files import find_file_of, require_files
from dataset.capture_keys import KINDS, check_keys, is_marked, read_depth_range, read_depth_unit, read_scale
from dataset.frames import BAD, COPY, OTHER_SIZE, same_shape
from dataset.intrinsics import DEPTH_CAMERA_KEYS, LENGTHS, SIZE_KEYS, read_depth_camera, read_intrinsics
from dataset.labels import LARGEST_ID
from dataset.maps import DepthUnit, require_one_palette
from dataset.name_lists import LISTS, listed_split, natural, normal, split_of_frames
from dataset.poses import OPENGL_TO_OPENCV, to_pose
from dataset.registration import DepthCamera
from dataset.view_selection import Split, evenly
from utils.errors import UserError
from utils.files import read_json
from utils.images import color_profile, image_size, orientation, read_color
from utils.logging import warn

CAPTURE_FILE = "transforms.json"
BLENDER_FILES = {split: f"transforms_{split}.json" for split in ("train", "val", "test")}
NO_FILE = "no image file"

TAGS_LOOKED_AT = 16  # images whose orientation tags and colour profiles are read
THUMBNAIL, SAME_PICTURE = (32, 24), 4.0  # size in pixels; largest mean difference, of 255, due to encoding and resizing


@dataclass(frozen=True)
class CaptureFrame:
    """A frame of a capture.

    name: its file_path with forward slashes. files: kind -> file. size: (h, w) of the stored colour image. K: (3, 3) at
    that size, pixel centres at integers. entry: the frame's object in the JSON file. depth_camera: None if depth is
    aligned with colour.
    """

    name: str
    files: dict[str, Path]
    size: tuple[int, int]
    K: np.ndarray
    lens: Lens
    entry: dict[str, Any]
    depth_camera: DepthCamera | None = None


@dataclass(frozen=True)
class Capture:
    """A parsed capture.

    path: its JSON file. frames: sorted by name. left_out: frame number -> reason why it is not used. size: (h, w) of
    most images. classes: names, () without labels. class_ids: ids of the classes in label maps, and last the ignored
    one; None: class numbers and 255. scale: factor by which its lengths were multiplied. split: in frame numbers.
    content: the JSON object.
    """

    path: Path
    frames: list[CaptureFrame]
    left_out: dict[int, str]
    size: tuple[int, int]
    classes: tuple[str, ...]
    class_ids: tuple[int, ...] | None
    depth_unit: DepthUnit
    depth_range: tuple[float, float] | None
    scale: float
    split: Split
    content: dict[str, Any]

    def files(self, kind: str) -> dict[int, Path]:
        return {number: frame.files[kind] for number, frame in enumerate(self.frames) if kind in frame.files}

    def pose(self, number: int) -> np.ndarray | None:
        """Return camera-to-world (4, 4), OpenCV axes, metres; not finite if tracking was lost, None if there is no
        pose."""
        frame = self.frames[number]
        values = frame.entry.get("transform_matrix")
        return None if values is None else read_pose(values, self.scale, self.path, frame.name)


def read_pose(values, scale: float, path: Path, name: str) -> np.ndarray:
    """Convert a transform_matrix (OpenGL axes, lengths times `scale`) to camera-to-world (4, 4), OpenCV axes,
    metres."""
    matrix = to_pose(values, path, f"the transform_matrix of {name}") @ OPENGL_TO_OPENCV
    matrix[:3, 3] /= scale
    return matrix


def capture_file(folder: Path) -> Path | None:
    """Return the JSON file of a capture's folder: transforms.json, or the first of Blender's; None if there is none.
    `folder` may be the file itself."""
    if folder.is_file():
        return folder if folder.suffix == ".json" else None
    names = (CAPTURE_FILE, *BLENDER_FILES.values())
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_capture(path: Path) -> Capture:
    """Parse a transforms.json, or Blender's transforms_train.json and its siblings. Raise UserError, which names the
    key or file, if the capture cannot be used."""
    content = _read_content(path)
    check_keys(content, path)
    entries = sorted(content["frames"], key=lambda entry: natural(entry["file_path"]))
    files = [{kind: find_file_of(path, content, entry, kind) for kind in KINDS} for entry in entries]
    there = [number for number, found in enumerate(files) if found["color"].is_file()]
    if not there:
        raise UserError(
            f"{path}: none of its {len(entries)} images is there, for example {files[0]['color']}; it names them from its own folder"
        )
    _say_of_tags([files[number]["color"] for number in there], path)
    sizes = {number: image_size(files[number]["color"]) for number in there}
    size = _usual_size(sizes.values())
    frames, scale = [], read_scale(content, path)
    for number, (entry, found) in enumerate(zip(entries, files, strict=True)):
        own_size = sizes.get(number, size)
        name = normal(entry["file_path"])
        origin = f"{path}: {name}"
        K = read_intrinsics(content, entry, own_size, origin)
        kinds = {kind: file for kind, file in found.items() if file is not None}
        depth_camera = read_depth_camera(content, entry, found["depth"], scale, origin)
        depth_camera = depth_camera and depth_camera.unless_same(K, own_size)
        frames.append(CaptureFrame(name, kinds, own_size, K, read_lens(content, entry, origin), entry, depth_camera))
    require_files(path, [(frame.entry, frame.files) for frame in frames])
    left_out = {number: NO_FILE for number in range(len(frames)) if number not in sizes}
    left_out |= {n: OTHER_SIZE for n, own in sizes.items() if not same_shape(own, size)}
    left_out |= {n: BAD for n, frame in enumerate(frames) if is_marked(frame.entry, path)}
    left_out |= _listed_again(frames, path)
    left_out |= _saved_again({n: frame for n, frame in enumerate(frames) if n not in left_out})
    classes = _classes(content, frames, path)
    return Capture(
        path=path,
        frames=frames,
        left_out=left_out,
        size=size,
        classes=classes,
        class_ids=_class_ids(content, classes, path),
        depth_unit=read_depth_unit(content, path),
        depth_range=read_depth_range(content, path),
        scale=scale,
        split=listed_split(content, [frame.name for frame in frames], left_out, path),
        content=content,
    )


# Content of the file


def _read_content(path: Path) -> dict[str, Any]:
    """Return the content of the file. Blender's files are merged into one, with lists of file names for the split."""
    content = _read_parts(path)
    return content | split_of_frames(content, path)


def _read_parts(path: Path) -> dict[str, Any]:
    if path.name not in BLENDER_FILES.values():
        content = _read_one(path)
        others = [name for name in BLENDER_FILES.values() if path.with_name(name).is_file()]
        if others:
            warn(f"{path}: only this file is read, not {', '.join(others)} beside it")
        more = content.pop("test_frames", None)  # of ScanNet++
        if more:
            _check_frames(more, path, "test_frames")
            content["test_filenames"] = [frame["file_path"] for frame in more]
            content["frames"] = [*content["frames"], *more]
        return content
    parts = {split: path.with_name(name) for split, name in BLENDER_FILES.items() if path.with_name(name).is_file()}
    merged: dict[str, Any] = {"frames": []}
    for split, part in parts.items():
        content = _read_one(part)
        shared = {
            key: value
            for key, value in content.items()
            if key in (*LENGTHS, *SIZE_KEYS, *CAMERA_KEYS, *DEPTH_CAMERA_KEYS)
        }
        merged["frames"] += [{**shared, **frame} for frame in content["frames"]]
        merged[f"{split}_filenames"] = [frame["file_path"] for frame in content["frames"]]
        others = {key: value for key, value in content.items() if key not in {"frames", *shared, *LISTS}}
        differing = next((key for key in others if key in merged and merged[key] != others[key]), None)
        if differing:
            raise UserError(f"{part}: its {differing} differs from that in the files beside it")
        merged |= others
    return merged


def _read_one(path: Path) -> dict[str, Any]:
    content = read_json(path, f"there is no such file; a capture needs a {CAPTURE_FILE}")
    if not isinstance(content, dict):
        raise UserError(f"{path}: has no list of frames")
    _check_frames(content.get("frames"), path, "frames")
    return content


def _check_frames(frames, path: Path, key: str) -> None:
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{path}: has no list of {key}")
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str) or not frame["file_path"]:
            where = "" if key == "frames" else f" of {key}"
            raise UserError(f"{path}: frame {number}{where} has no file_path")


def _classes(content: dict, frames: list[CaptureFrame], path: Path) -> tuple[str, ...]:
    if not any("labels" in frame.files for frame in frames):
        return ()
    names = content.get("semantic_classes")
    if not (isinstance(names, list) and names):
        raise UserError(f"{path}: frames have a semantic_path, but there is no list of semantic_classes")
    if not all(isinstance(name, str) and name.strip() for name in names) or len(set(names)) < len(names):
        raise UserError(f"{path}: semantic_classes should be different names, one for each class number")
    require_one_palette([frame.files["labels"] for frame in frames if "labels" in frame.files])
    return tuple(names)


def _class_ids(content: dict, classes: tuple[str, ...], path: Path) -> tuple[int, ...] | None:
    """Return the ids of the classes in label maps, and last the ignored id; None if there are none. Raise UserError
    unless they are K+1 different ids."""
    ids = content.get("semantic_ids")
    if not classes or ids is None:
        return None
    whole = isinstance(ids, list) and all(type(number) is int and 0 <= number <= LARGEST_ID for number in ids)
    if not whole or not len(set(ids)) == len(ids) == len(classes) + 1:
        raise UserError(f"{path}: semantic_ids should be {len(classes) + 1} different ids, the last one to be ignored")
    return tuple(ids)


# Frames


def _listed_again(frames: list[CaptureFrame], path: Path) -> dict[int, str]:
    """Return the frames whose image file is that of an earlier frame. Raise UserError if their poses differ."""
    seen: dict[str, CaptureFrame] = {}
    again = {}
    for number, frame in enumerate(frames):
        first = seen.setdefault(os.path.realpath(frame.files["color"]), frame)
        if first is not frame:
            again[number] = COPY
            if first.entry.get("transform_matrix") != frame.entry.get("transform_matrix"):
                raise UserError(f"{path}: {frame.name} is listed twice, with different poses")
    return again


def _saved_again(frames: dict[int, CaptureFrame]) -> dict[int, str]:
    """Return the frames with the pose and, up to encoding and size, the picture of an earlier frame. As references they
    would leak test frames."""
    same_pose: dict[str, list[int]] = {}
    for number, frame in frames.items():
        same_pose.setdefault(str(frame.entry.get("transform_matrix")), []).append(number)
    again = {}
    for numbers in same_pose.values() if len(same_pose) > 1 else ():  # frames from a tripod are no copies
        kept: list[np.ndarray] = []
        for number in numbers if len(numbers) > 1 else []:
            with contextlib.suppress(UserError):  # an unreadable image is reported when it is read
                small = cv2.resize(read_color(frames[number].files["color"]), THUMBNAIL, interpolation=cv2.INTER_AREA)
                if any(np.abs(small.astype(float) - other).mean() < SAME_PICTURE for other in kept):
                    again[number] = COPY
                kept.append(small)
    return again


def _say_of_tags(files: list[Path], path: Path) -> None:
    """Warn of orientation tags, which are ignored, and of colour profiles, which are converted: other programs may show
    such images differently."""
    some = evenly(files, TAGS_LOOKED_AT)
    turned = [file.name for file in some if orientation(file) not in (0, 1)]
    profiles = sorted({name for file in some for name, profile in [color_profile(file)] if name and profile})
    if profiles:
        warn(
            f"{path}: images have a colour profile ({', '.join(profiles)}); they are converted to sRGB when they are read"
        )
    if turned:
        warn(
            f"{path}: images have an orientation tag ({', '.join(turned[:3])}); they are taken as they are stored, not turned"
        )


def _usual_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    counts = Counter(sizes)
    return max(
        counts, key=lambda size: (sum(n for other, n in counts.items() if same_shape(other, size)), counts[size])
    )
