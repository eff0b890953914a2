"""A capture with a transforms.json (nerfstudio's format) to data/transforms/<name>: undistorted, with masks and a depth range."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dataset.transforms import DISTORTION_KEYS, PATH_KEYS, distortion, intrinsics, read_transforms
from utils.errors import UserError
from utils.files import atomic_write, read_color, read_map, write_image, write_text
from utils.logging import say

MODELS = ("PINHOLE", "OPENCV")
FOLDERS = {"color": "images", "depth": "depth", "labels": "labels", "mask": "masks"}
DEPTH_MARGIN = 1.1  # around what the depth maps show


def prepare_transforms(source: Path, out: Path, name: str) -> None:
    """Undistorts each frame once and writes a PINHOLE transforms.json of the same poses.

    Images of cameras without distortion are copied byte for byte. Raises UserError naming what cannot be used.
    """
    path = source / "transforms.json" if source.is_dir() else source
    capture = read_transforms(path)
    model = capture.get("camera_model", "OPENCV")
    if model not in MODELS:
        raise UserError(f"{path}: camera_model {model} cannot be undistorted here (there are {', '.join(MODELS)})")
    target = out / name
    depth_ends: list[tuple[float, float]] = []
    frames = [
        _prepare_frame(capture, frame, number, path, target, depth_ends)
        for number, frame in enumerate(tqdm(capture["frames"], desc=name, unit="frame"))
    ]
    renamed = {old["file_path"]: new["file_path"] for old, new in zip(capture["frames"], frames, strict=True)}
    content = {key: value for key, value in capture.items() if key not in DISTORTION_KEYS}
    for key in ("train_filenames", "val_filenames", "test_filenames"):
        if key in content:
            content[key] = [renamed[name] for name in content[key] if name in renamed]
    if depth_ends:
        near, far = np.array(depth_ends).T
        content["depth_range"] = [float(max(0.05, near.min() / DEPTH_MARGIN)), float(far.max() * DEPTH_MARGIN)]
    content |= {"camera_model": "PINHOLE", "frames": frames}
    write_text(target / "transforms.json", json.dumps(content, indent=1) + "\n")
    depth = (
        f", depth from {content['depth_range'][0]:.2f} to {content['depth_range'][1]:.2f} m"
        if depth_ends
        else ", no depth"
    )
    say(f"transforms/{name}: {len(frames)} frames{depth}; its database name is transforms/{name}/black_320")


def _prepare_frame(capture, frame, number, path, target, depth_ends) -> dict:
    """Writes one frame's images and returns its entry."""
    K, coefficients = intrinsics(capture, frame, path), distortion(capture, frame)
    files = {kind: path.parent / frame[key] for kind, key in PATH_KEYS.items() if frame.get(key)}
    entry = {
        key: value for key, value in frame.items() if key not in (*DISTORTION_KEYS, *PATH_KEYS.values(), "camera_model")
    }
    images = {
        kind: read_color(file) if kind == "color" else read_map(_one_channel(file)) for kind, file in files.items()
    }
    if "depth" in images:
        depth = images["depth"]
        valid = depth[(depth > 0) & (depth < 65535)]
        if len(valid):
            depth_ends.append(tuple(np.quantile(valid, [0.001, 0.999]) / 1000))
    for kind, image in images.items():
        suffix = files[kind].suffix.lower() if kind == "color" else ".png"
        name = f"{FOLDERS[kind]}/{number}{suffix}"
        if not coefficients.any() and suffix == files[kind].suffix.lower():
            _copy(files[kind], target / name)
        else:
            write_image(target / name, undistort(image, K, coefficients, kind, images["color"].shape[:2]), quality=95)
        entry[PATH_KEYS[kind]] = name
    if coefficients.any() and "mask" not in images:
        whole = np.full(images["color"].shape[:2], 255, np.uint8)
        mask = undistort(whole, K, coefficients, "mask", whole.shape)
        if not mask.all():
            entry["mask_path"] = f"masks/{number}.png"
            write_image(target / entry["mask_path"], mask)
    return entry


def undistort(
    image: np.ndarray, K: np.ndarray, coefficients: np.ndarray, kind: str, size: tuple[int, int]
) -> np.ndarray:
    """An image as a pinhole camera of the same K would see it; 0 where it shows nothing. Colour is read bilinearly,
    maps by their nearest pixel. `K` is of colour images of `size` (h, w); maps may be smaller."""
    scale = np.array([image.shape[1] / size[1], image.shape[0] / size[0], 1])
    own = K * scale[:, None]
    own[:2, 2] += 0.5 * (scale[:2] - 1)
    maps = cv2.initUndistortRectifyMap(own, coefficients, None, own, image.shape[1::-1], cv2.CV_32FC1)
    how = cv2.INTER_LINEAR if kind == "color" else cv2.INTER_NEAREST
    return cv2.remap(image, *maps, how, borderMode=cv2.BORDER_CONSTANT)


def _one_channel(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: there is no such image")
    return path


def _copy(source: Path, target: Path) -> None:
    if not (target.is_file() and target.samefile(source)):
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
