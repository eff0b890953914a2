"""Captures in nerfstudio's format, and its relatives, as one typed value: what is said of each frame, checked.

Preparation, the loader and camera paths read transforms.json here and nowhere else. A key that changes what pixels, cameras,
depths or labels mean is honoured or refused; a key that nobody here knows is named once in a warning.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.camera import CAMERA_KEYS, Lens, read_lens, require_same_size
from dataset.frames import BAD, COPY, OTHER_SIZE, same_shape
from dataset.maps import DepthUnit
from dataset.poses import OPENGL_TO_OPENCV, to_pose
from dataset.view_selection import Split
from utils.errors import UserError
from utils.files import image_size, read_json
from utils.logging import warn

CAPTURE_FILE = "transforms.json"
BLENDER_FILES = {split: f"transforms_{split}.json" for split in ("train", "val", "test")}
TEST_STEP = 8  # without lists of file names, every eighth frame is for testing
KINDS = {  # kind of image: the keys that name its file
    "color": ("file_path",),
    "depth": ("depth_file_path", "depth_path"),
    "labels": ("semantic_path",),
    "mask": ("mask_path",),
}
LISTS = ("train_filenames", "val_filenames", "test_filenames")
SUFFIXES = (".png", ".jpg", ".jpeg", ".JPG", ".PNG", ".JPEG", ".webp")  # of images named without one
NO_FILE = "no image file"
MARKS = {  # a frame's key: its value in a frame that is not to be used
    **dict.fromkeys(
        ("is_bad", "bad", "is_blurry", "blurry", "skip", "ignore", "exclude", "excluded", "disabled"), True
    ),
    **dict.fromkeys(("valid", "is_valid", "enabled", "use", "good", "registered", "is_registered"), False),
}
SIZE_KEYS = ("w", "h", "width", "height")
LENGTHS = ("fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_angle_y")
DEPTH_UNITS = ("integer_depth_scale", "depth_unit_scale_factor", "depth_scale", "png_depth_scale")
UNIT_KEYS = {"unit", "units", "pose_unit", "length_unit"}
AXES_KEYS = {"convention", "camera_convention", "coordinate_system", "coordinate_convention", "axes", "pose_convention"}
METRES, OPENGL = {"m", "meter", "meters", "metre", "metres"}, {"opengl", "blender", "nerfstudio", "gl"}
SPECIAL = {
    "frames",
    "test_frames",
    "semantic_classes",
    "depth_range",
    "applied_scale",
    "applied_transform",
    "prepared_from",
}
WITHOUT_MEANING = {  # keys of nerfstudio, instant-ngp, Polycam, Record3D, ScanNet++ that change nothing here
    *(
        "aabb_scale",
        "aabb",
        "scale",
        "offset",
        "up",
        "n_extra_learnable_dims",
        "sharpness",
        "colmap_im_id",
        "colmap_id",
    ),
    *(
        "ply_file_path",
        "orientation_override",
        "auto_scale_poses_override",
        "rotation",
        "time",
        "timestamp",
        "id",
        "name",
    ),
    *("black_border", "keyframe_id", "camera_label", "camera_id", "camera_name", "camera_make", "has_mask", "fps"),
    *("image_id", "frame_id", "exposure", "iso", "white_balance_factor", "from_na", "render_aabb", "date", "version"),
}
CAMERA_WORDS = ("camera", "lens", "distort", "fisheye", "intrinsic", "projection", "rolling_shutter", "crop")
KNOWN = SPECIAL | WITHOUT_MEANING | UNIT_KEYS | AXES_KEYS
KNOWN |= {*CAMERA_KEYS, *MARKS, *SIZE_KEYS, *LENGTHS, *DEPTH_UNITS, *LISTS, "transform_matrix"}
KNOWN |= {key for keys in KINDS.values() for key in keys}


@dataclass(frozen=True)
class CaptureFrame:
    """name: as its file_path, with plain slashes. files: of each kind it has. size: (h, w) of the stored colour image, and
    K (3, 3) at that size, pixel centres at integers. entry: the frame as the file has it."""

    name: str
    files: dict[str, Path]
    size: tuple[int, int]
    K: np.ndarray
    lens: Lens
    entry: dict[str, Any]


@dataclass(frozen=True)
class Capture:
    """path: its file. frames: sorted by name. left_out: frame number -> why it is not to be used. classes: names of the
    classes of its labels, () without labels. scale: what its lengths were multiplied by. split: in frame numbers."""

    path: Path
    frames: list[CaptureFrame]
    left_out: dict[int, str]
    size: tuple[int, int]
    classes: tuple[str, ...]
    depth_unit: DepthUnit
    depth_range: tuple[float, float] | None
    scale: float
    split: Split
    content: dict[str, Any]

    def files(self, kind: str) -> dict[int, Path]:
        return {number: frame.files[kind] for number, frame in enumerate(self.frames) if kind in frame.files}

    def pose(self, number: int) -> np.ndarray | None:
        """Camera-to-world (4, 4), OpenCV axes, metres; not finite where it was lost, None where there is none."""
        frame = self.frames[number]
        values = frame.entry.get("transform_matrix")
        return None if values is None else read_pose(values, self.scale, self.path, frame.name)


def read_pose(values, scale: float, path: Path, name: str) -> np.ndarray:
    """Return a transform_matrix (OpenGL axes, lengths times `scale`) as camera-to-world (4, 4), OpenCV axes, metres."""
    matrix = to_pose(values, path, f"the transform_matrix of {name}") @ OPENGL_TO_OPENCV
    matrix[:3, 3] /= scale
    return matrix


def capture_file(folder: Path) -> Path | None:
    """Return the file that makes a folder a capture: transforms.json, or the first of Blender's; None if there is none.
    `folder` may be the file itself."""
    if folder.is_file():
        return folder if folder.suffix == ".json" else None
    names = (CAPTURE_FILE, *BLENDER_FILES.values())
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_capture(path: Path) -> Capture:
    """Return the capture of a transforms.json, or of Blender's transforms_train.json and its siblings. Raises UserError
    naming the key or file that cannot be used."""
    content = _read_content(path)
    _check_keys(content, path)
    entries = sorted(content["frames"], key=lambda entry: natural(entry["file_path"]))
    files = [{kind: _file(path, content, entry, kind) for kind in KINDS} for entry in entries]
    there = [number for number, found in enumerate(files) if found["color"].is_file()]
    if not there:
        raise UserError(f"{path}: none of its {len(entries)} images is there, for example {files[0]['color']}")
    sizes = {number: image_size(files[number]["color"]) for number in there}
    size = _usual_size(sizes.values())
    frames = []
    for number, (entry, found) in enumerate(zip(entries, files, strict=True)):
        own_size = sizes.get(number, size)
        name = normal(entry["file_path"])
        origin = f"{path}: {name}"
        K = _intrinsics(content, entry, own_size, origin)
        kinds = {kind: file for kind, file in found.items() if file is not None}
        frames.append(CaptureFrame(name, kinds, own_size, K, read_lens(content, entry, origin), entry))
    _require_files(path, frames)
    left_out = {number: NO_FILE for number in range(len(frames)) if number not in sizes}
    left_out |= {n: OTHER_SIZE for n, own in sizes.items() if not same_shape(own, size)}
    left_out |= {n: BAD for n, frame in enumerate(frames) if _is_marked(frame.entry)}
    left_out |= _listed_again(frames)
    return Capture(
        path,
        frames,
        left_out,
        size,
        _classes(content, frames, path),
        _depth_unit(content, path),
        _depth_range(content, path),
        read_scale(content, path),
        _split(content, frames, left_out, path),
        content,
    )


# What the file says


def _read_content(path: Path) -> dict[str, Any]:
    """The file's content; Blender's files become one, with lists of file names."""
    if path.name not in BLENDER_FILES.values():
        content = _read_one(path)
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
        shared = {key: value for key, value in content.items() if key in (*LENGTHS, *SIZE_KEYS, *CAMERA_KEYS)}
        merged["frames"] += [{**shared, **frame} for frame in content["frames"]]
        merged[f"{split}_filenames"] = [frame["file_path"] for frame in content["frames"]]
        merged |= {key: value for key, value in content.items() if key not in {"frames", *LISTS}}
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


def _check_keys(content: dict, path: Path) -> None:
    """Refuses keys that give units, axes or a camera in a way that is not read; names the others that are not."""
    unknown = Counter()
    for values in (content, *content["frames"]):
        for key, value in values.items():
            if value in (None, "", [], {}, False):
                continue
            if key in UNIT_KEYS and str(value).lower() not in METRES:
                raise UserError(f"{path}: {key} is {value}, but lengths should be metres; give applied_scale instead")
            if key in AXES_KEYS and str(value).lower() not in OPENGL:
                raise UserError(f"{path}: {key} is {value}, but cameras should have OpenGL axes (y up, z backward)")
            if key not in KNOWN:
                if any(word in key.lower() for word in CAMERA_WORDS):
                    raise UserError(
                        f"{path}: {key} is not read; give the camera as camera_model, fl_x, fl_y, cx, cy, k1, …"
                    )
                unknown[key] += 1
    if unknown:
        warn(f"{path}: keys that are not read: {', '.join(unknown)}")


def _classes(content: dict, frames: list[CaptureFrame], path: Path) -> tuple[str, ...]:
    if not any("labels" in frame.files for frame in frames):
        return ()
    names = content.get("semantic_classes")
    if not (isinstance(names, list) and names):
        raise UserError(f"{path}: frames have a semantic_path, but there is no list of semantic_classes")
    return tuple(map(str, names))


def _number(value, key: str, origin) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise UserError(f"{origin}: {key} should be a number, at the top or in every frame")
    return float(value)


def _positive(content: dict, key: str, path: Path) -> float | None:
    if content.get(key) is None:
        return None
    value = _number(content[key], key, path)
    if value <= 0:
        raise UserError(f"{path}: {key} should be a positive number, but is {value:g}")
    return value


def read_scale(content: dict, path: Path) -> float:
    """Return what the lengths of a capture were multiplied by. Raises UserError for a scale that is given another way."""
    transform = content.get("applied_transform")
    if transform is not None:
        matrix = np.array(transform, float) if np.shape(transform) in ((3, 4), (4, 4)) else np.full((3, 4), np.nan)
        size = abs(np.linalg.det(matrix[:3, :3])) ** (1 / 3)
        if not abs(size - 1) < 0.01:
            raise UserError(f"{path}: applied_transform should be a rotation and shift; give a scale as applied_scale")
    return _positive(content, "applied_scale", path) or 1.0


def _depth_unit(content: dict, path: Path) -> DepthUnit:
    """Of the keys that programs have for it: instant-ngp's of whole numbers, nerfstudio's of any, and units a metre."""
    given = {key: value for key in DEPTH_UNITS if (value := _positive(content, key, path)) is not None}
    if not given:
        return DepthUnit()
    key, value = next(iter(given.items()))
    if key in ("depth_scale", "png_depth_scale") and value >= 1:  # units a metre
        value = 1 / value
    if any(abs(1 / other - value) > 1e-3 * value and abs(other - value) > 1e-3 * value for other in given.values()):
        raise UserError(f"{path}: {' and '.join(given)} disagree about the unit of depth")
    if key == "integer_depth_scale":
        if content.get("applied_scale") not in (None, 1, 1.0):
            raise UserError(
                f"{path}: {key} beside applied_scale is ambiguous; give depth_unit_scale_factor (metres a unit)"
            )
        if value >= 1:
            raise UserError(f"{path}: {key} should be metres of a unit, such as 0.001, but is {value:g}")
        return DepthUnit(whole=value, stated=True)
    return DepthUnit(value, value, stated=True)


def _depth_range(content: dict, path: Path) -> tuple[float, float] | None:
    given = content.get("depth_range")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 2:
        raise UserError(f"{path}: depth_range should be near and far in metres")
    near, far = (_number(end, "depth_range", path) for end in given)
    if not 0 < near < far:
        raise UserError(f"{path}: depth_range should be near and far in metres, 0 < near < far, but is {given}")
    return near, far


# Files


def normal(name: str) -> str:
    """A path as it is compared: with slashes, without ./ and .. where that can be."""
    return posixpath.normpath(name.strip().replace("\\", "/"))


def natural(text: str) -> list:
    """Sorts frame_9 before frame_10."""
    pieces, digits = [], ""
    for character in text + "\0":
        if character.isdigit():
            digits += character
        else:
            if digits:
                pieces.append((0, int(digits), ""))
                digits = ""
            pieces.append((1, 0, character))
    return pieces


def _file(path: Path, content: dict, entry: dict, kind: str) -> Path | None:
    """The file of a kind that a frame names; None if it names none. A mask may be named for all frames at the top."""
    names = [entry.get(key) or (content.get(key) if kind == "mask" else None) for key in KINDS[kind]]
    name = next((name for name in names if name), None)
    if name is None:
        return None
    if not isinstance(name, str):
        raise UserError(f"{path}: {KINDS[kind][0]} of {entry['file_path']} should be a file name")
    file = path.parent / name
    if file.is_file():
        return file
    file = path.parent / normal(name)
    if file.is_file() or file.suffix:
        return file
    return next((full for end in SUFFIXES if (full := file.with_name(file.name + end)).is_file()), file)


def _require_files(path: Path, frames: list[CaptureFrame]) -> None:
    """Maps that are named have to be there: without them a scene would silently have no depth, or no labels."""
    for kind in ("depth", "labels", "mask"):
        missing = [frame.files[kind] for frame in frames if kind in frame.files and not frame.files[kind].is_file()]
        if missing:
            raise UserError(f"{path}: {missing[0]} is not there (nor {len(missing) - 1} others of {kind})")


def _is_marked(entry: dict) -> bool:
    return any(key in entry and entry[key] is not None and bool(entry[key]) == bad for key, bad in MARKS.items())


def _listed_again(frames: list[CaptureFrame]) -> dict[int, str]:
    seen: set[Path] = set()
    again = {}
    for number, frame in enumerate(frames):
        file = frame.files["color"].resolve()
        if file in seen:
            again[number] = COPY
        seen.add(file)
    return again


# Cameras


def _usual_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    counts = Counter(sizes)
    return max(
        counts, key=lambda size: (sum(n for other, n in counts.items() if same_shape(other, size)), counts[size])
    )


def _intrinsics(content: dict, entry: dict, size: tuple[int, int], origin: str) -> np.ndarray:
    """(3, 3) at the stored image's `size` (h, w), pixel centres at integers. What a file says of images of another size is
    scaled if the shape is the same. Raises UserError if it is not, or if something is missing."""
    declared = _declared_size(content, entry, origin)
    if declared is not None and not same_shape(declared, size):
        raise UserError(
            f"{origin} is {size[1]}x{size[0]}, but its w and h say {declared[1]}x{declared[0]}; "
            "give the intrinsics of the images as they are"
        )
    height, width = declared or size
    values = _lengths(content, entry, (height, width), origin)
    across, down = size[1] / width, size[0] / height
    K = np.diag([values["fl_x"] * across, values["fl_y"] * down, 1])
    K[:2, 2] = values["cx"] * across - 0.5, values["cy"] * down - 0.5
    if declared is None:
        require_same_size(K, size, origin)
    return K


def _declared_size(content: dict, entry: dict, origin: str) -> tuple[int, int] | None:
    def side(*keys: str):
        return next((v[key] for v in (entry, content) for key in keys if v.get(key) is not None), None)

    width, height = side("w", "width"), side("h", "height")
    if width is None or height is None:
        return None
    width, height = _number(width, "w", origin), _number(height, "h", origin)
    if min(width, height) < 1:
        raise UserError(f"{origin}: w and h should be positive, but are {width:g} and {height:g}")
    return round(height), round(width)


def _lengths(content: dict, entry: dict, size: tuple[int, int], origin: str) -> dict[str, float]:
    """fl_x, fl_y, cx, cy: of a frame before those of its capture; the focal length may be given as a field of view."""
    given = {key: entry.get(key, content.get(key)) for key in LENGTHS}
    height, width = size
    if given["fl_x"] is None and given["camera_angle_x"] is not None:
        angle = _number(given["camera_angle_x"], "camera_angle_x", origin)
        if not 0 < angle < np.pi:
            raise UserError(f"{origin}: camera_angle_x should be radians below pi, but is {angle:g}")
        given["fl_x"] = width / 2 / np.tan(angle / 2)
        if given["fl_y"] is None and given["camera_angle_y"] is not None:
            given["fl_y"] = height / 2 / np.tan(_number(given["camera_angle_y"], "camera_angle_y", origin) / 2)
        given["cx"] = width / 2 if given["cx"] is None else given["cx"]
        given["cy"] = height / 2 if given["cy"] is None else given["cy"]
    given["fl_y"] = given["fl_x"] if given["fl_y"] is None else given["fl_y"]
    values = {key: _number(given[key], key, origin) for key in ("fl_x", "fl_y", "cx", "cy")}
    if min(values["fl_x"], values["fl_y"]) <= 0:
        raise UserError(f"{origin}: fl_x and fl_y should be positive")
    angle = given["camera_angle_x"]
    if (
        angle is not None
        and abs(np.tan(_number(angle, "camera_angle_x", origin) / 2) * 2 * values["fl_x"] / width - 1) > 0.02
    ):
        warn(f"{origin.split(': ')[0]}: camera_angle_x does not fit fl_x; fl_x counts")
    return values


def field_of_view(content: dict, entry: dict, origin: str) -> float:
    """Return a frame's vertical field of view in radians. Raises UserError where it cannot be told, or for a fisheye."""
    if read_lens(content, entry, origin).is_fisheye:
        raise UserError(f"{origin} is a fisheye camera, which cannot be rendered")
    declared = _declared_size(content, entry, origin)
    if declared is None:
        raise UserError(f"{origin}: w and h should be given, at the top or in every frame")
    return float(2 * np.arctan(declared[0] / 2 / _lengths(content, entry, declared, origin)["fl_y"]))


# Which frames are for what


def _split(content: dict, frames: list[CaptureFrame], left_out: dict[int, str], path: Path) -> Split:
    """References are train_filenames, tests test_filenames (or val_filenames). Without a list of tests, they are the frames
    that train_filenames leaves out; if it leaves none, or there are no lists, every eighth frame. No frame is both."""
    listed = {key: _numbers(content, key, frames, path) for key in LISTS}
    usable = [number for number in range(len(frames)) if number not in left_out]
    train, tests = listed["train_filenames"], listed["test_filenames"] or listed["val_filenames"]
    if not tests:
        rest = [number for number in usable if number not in train] if train else []
        tests = rest or [number for number in train or usable if number in usable][TEST_STEP // 2 :: TEST_STEP]
    both = set(tests) & set(train)
    if both and (listed["test_filenames"] or listed["val_filenames"]):
        warn(f"{path}: {len(both)} frames are listed for training and for testing; they are for testing")
    unused = {*tests, *listed["val_filenames"]}
    references = [number for number in train or usable if number not in set(tests if train else unused)]
    return Split([str(number) for number in references], [str(number) for number in tests])


def _numbers(content: dict, key: str, frames: list[CaptureFrame], path: Path) -> list[int]:
    """The frames that a list of file names stands for. Raises UserError for an entry that is none of them."""
    entries = content.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise UserError(f"{path}: {key} should be a list of file names")
    number_of: dict[str, int] = {}
    for number, frame in enumerate(frames):
        number_of.setdefault(frame.name, number)
    found = [number_of.get(normal(entry), -1) for entry in entries]
    for place, entry in enumerate(entries):
        if found[place] < 0:
            found[place] = _similar(normal(entry), number_of, f"{path}: {key} has {entry}, which is")
    return list(dict.fromkeys(found))


def _similar(entry: str, number_of: dict[str, int], origin: str) -> int:
    """The one frame whose path ends like `entry`, or the other way round; without extension if need be."""

    def same(a: str, b: str) -> bool:
        return a == b or a.endswith(f"/{b}") or b.endswith(f"/{a}")

    def stem(name: str) -> str:
        return posixpath.splitext(name)[0]

    matches = [n for name, n in number_of.items() if same(name, entry)]
    matches = matches or [
        n for name, n in number_of.items() if same(stem(name), stem(entry)) or same(stem(name), entry)
    ]
    if len(matches) != 1:
        raise UserError(f"{origin} {'none' if not matches else 'more than one'} of the frames' file_path")
    return matches[0]
