"""Own captures in nerfstudio's format: data/transforms/<name>/transforms.json and the images it names.

Cameras there have OpenGL axes (y up, z backward) and pixel centres at +0.5. Labels are an extension:
`semantic_path` of a frame (class numbers, 255 to be ignored) and `semantic_classes` (names) at the top.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dataset.frames import Frames, image_size, usable_frames
from dataset.labels import LabelSet, capture_labels
from dataset.scene import SceneFiles, SceneName
from dataset.view_selection import Split
from utils.errors import UserError
from utils.files import read_json

OPENGL_TO_OPENCV = np.diag([1.0, -1, -1, 1])
DEPTH_RANGE = (0.1, 10.0)
TEST_STEP = 8  # without lists of file names, every eighth frame is for testing
PATH_KEYS = {"color": "file_path", "depth": "depth_file_path", "labels": "semantic_path", "mask": "mask_path"}
DISTORTION_KEYS = ("k1", "k2", "p1", "p2", "k3", "k4")


def transforms_scene(name: SceneName, data_root: Path) -> SceneFiles:
    """Finds a capture's files. Raises UserError if transforms.json is not usable as it is."""
    folder = data_root / "transforms" / name.path
    path = folder / "transforms.json"
    capture = read_transforms(path)
    frames = capture["frames"]
    distorted = next((frame["file_path"] for frame in frames if distortion(capture, frame).any()), None)
    if distorted is not None:
        raise UserError(
            f"{path}: {distorted} is distorted; undistort the capture with `python -m dataset.prepare transforms`"
        )
    files = {
        kind: {number: folder / frame[key] for number, frame in enumerate(frames) if frame.get(key)}
        for kind, key in PATH_KEYS.items()
    }
    files = {kind: paths for kind, paths in files.items() if paths}
    names = capture.get("semantic_classes")
    if "labels" in files and not (isinstance(names, list) and names):
        raise UserError(f"{path}: frames have a semantic_path, but there is no list of semantic_classes")
    labels: LabelSet | None = capture_labels(tuple(map(str, names)), str(path)) if "labels" in files else None
    Ks = np.stack([intrinsics(capture, frame, path) for frame in frames])

    scale = float(capture.get("applied_scale") or 1.0)

    def find_frames() -> Frames:
        found = usable_frames(name.text, files, lambda number: pose(frames[number], scale, path), Ks[0])
        return found._replace(Ks=Ks[found.numbers])

    raw_size = image_size(files["color"][min(files["color"])])
    near_far = tuple(capture.get("depth_range") or DEPTH_RANGE)
    return SceneFiles(name, files, [path], raw_size, near_far, labels, find_frames, _listed_split(capture, frames))


def read_transforms(path: Path) -> dict[str, Any]:
    """The content of a transforms.json, its frames sorted by file name. Raises UserError if it is none."""
    content = read_json(path, "there is no such file; a capture needs a transforms.json")
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{path}: has no list of frames")
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise UserError(f"{path}: frame {number} has no file_path")
    return {**content, "frames": sorted(frames, key=lambda frame: _natural(frame["file_path"]))}


def pose(frame: dict, scale: float, path: Path) -> np.ndarray:
    """Camera-to-world (4, 4) with OpenCV axes, in metres (`scale`: what the capture's lengths were multiplied by)."""
    try:
        matrix = np.array(frame["transform_matrix"], dtype=float)
        matrix = np.concatenate([matrix, [[0, 0, 0, 1]]]) if matrix.shape == (3, 4) else matrix
    except (KeyError, ValueError, TypeError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4):
        raise UserError(f"{path}: the transform_matrix of {frame['file_path']} should be 4x4")
    matrix = matrix @ OPENGL_TO_OPENCV
    matrix[:3, 3] /= scale
    return matrix


def intrinsics(capture: dict, frame: dict, path: Path) -> np.ndarray:
    """(3, 3) with pixel centres at integers, a frame's own values before the capture's."""
    values = {}
    for key in ("fl_x", "fl_y", "cx", "cy"):
        value = frame.get(key, capture.get(key, frame.get("fl_x", capture.get("fl_x")) if key == "fl_y" else None))
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise UserError(f"{path}: {key} should be a number, at the top or in every frame")
        values[key] = float(value)
    return np.array([[values["fl_x"], 0, values["cx"] - 0.5], [0, values["fl_y"], values["cy"] - 0.5], [0, 0, 1]])


def distortion(capture: dict, frame: dict) -> np.ndarray:
    """OpenCV's coefficients (8,): k1, k2, p1, p2, k3, k4, 0, 0. All zero for a pinhole."""
    values = [float(frame.get(key, capture.get(key, 0)) or 0) for key in DISTORTION_KEYS]
    pinhole = frame.get("camera_model", capture.get("camera_model", "OPENCV")) == "PINHOLE"
    return np.zeros(8) if pinhole else np.array([*values, 0, 0])


def _listed_split(capture: dict, frames: list[dict]) -> Split:
    """References are train_filenames, tests test_filenames (or val_filenames); without lists every eighth frame."""
    number_of = {frame["file_path"]: str(number) for number, frame in enumerate(frames)}

    def numbers(key: str) -> list[str]:
        return [number_of[name] for name in capture.get(key) or [] if name in number_of]

    tests = numbers("test_filenames") or numbers("val_filenames")
    everything = list(number_of.values())
    if not tests:
        tests = everything[TEST_STEP // 2 :: TEST_STEP]
    unused = set(tests) | set(numbers("val_filenames"))
    references = numbers("train_filenames") or [number for number in everything if number not in unused]
    return Split(references, tests)


def _natural(text: str) -> list:
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
