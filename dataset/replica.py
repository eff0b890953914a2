"""Replica scenes in the layouts of three projects: data/Replica/<scene>/…

Semantic-NeRF: Sequence_{1,2}/{rgb,depth,semantic_class}, depth in millimetres. vMAP: the same in imap/{00,01}.
NICE-SLAM: results/{frame,depth}*, traj.txt, and cam_params.json beside the scenes, with the camera and the unit of
depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.camera import centred_intrinsics, focal_length, number, require_same_size
from dataset.frames import Frames, numbered_files, of_another_size, require_numbered, say_of_unread, usable_frames
from dataset.labels import replica_labels
from dataset.maps import MILLIMETRES, DepthUnit
from dataset.poses import to_pose
from dataset.scene import SceneFiles, SceneName
from utils.errors import UserError
from utils.files import read_json, read_text
from utils.images import image_size
from utils.logging import warn

DEPTH_RANGE = (0.1, 6.0)
FIELD_OF_VIEW = np.pi / 2  # horizontal, of all renderings
CAMERA_FILE = "cam_params.json"
NICE_SLAM_UNIT = 6553.5  # a metre, where no cam_params.json says otherwise
IMAGES, MAPS = (".png", ".jpg", ".jpeg"), (".png", ".tif", ".tiff", ".npy")


@dataclass(frozen=True)
class Layout:
    """A layout of files. parts: kind -> folder and prefix of its file names. trajectory: file of the poses."""

    parts: dict[str, tuple[str, str]]
    trajectory: str


SEMANTIC_NERF = Layout(
    {"color": ("rgb", "rgb_"), "depth": ("depth", "depth_"), "labels": ("semantic_class", "semantic_class_")},
    "traj_w_c.txt",
)
NICE_SLAM = Layout({"color": ("results", "frame"), "depth": ("results", "depth")}, "traj.txt")


def replica_scene(name: SceneName, data_root: Path) -> SceneFiles:
    """Find the files of a sequence. Raise UserError if required files are missing."""
    folder = name.folder(data_root)
    if not folder.is_dir():
        raise UserError(f"{name.text}: there is no folder {folder}; prepare the scene there or set data_root")
    layout = NICE_SLAM if (folder / "results").is_dir() else SEMANTIC_NERF
    files = _find_images(name, folder, layout)
    info, camera = _above(folder, "info_semantic.json"), _above(folder, CAMERA_FILE)
    labels = replica_labels(info) if "labels" in files else None
    size = image_size(files["color"][min(files["color"])])
    if camera and layout is SEMANTIC_NERF and any(camera.parent.glob("*/results")):
        camera = None  # it belongs to scenes of the other layout beside this one
    if camera is None and layout is NICE_SLAM:
        warn(
            f"{folder}: there is no {CAMERA_FILE}; images are taken to be 90 degrees wide, and depth to be in 1/{NICE_SLAM_UNIT} m"
        )
    K, unit = read_camera(camera, size, MILLIMETRES if layout is SEMANTIC_NERF else None)
    trajectory = folder / layout.trajectory

    def find_frames() -> Frames:
        poses = by_number(read_trajectory(trajectory), sorted(files["color"]), trajectory)
        return usable_frames(name.text, files, poses.get, K, of_another_size(files["color"], size))

    return SceneFiles(
        name=name,
        folder=folder,
        files=files,
        others=[trajectory, *[path for path in (info, camera) if path]],
        raw_size=size,
        depth_range=DEPTH_RANGE,
        labels=labels,
        find_frames=find_frames,
        depth_unit=unit,
    )


def _find_images(name: SceneName, folder: Path, layout: Layout) -> dict[str, dict[int, Path]]:
    """Return kind -> frame number -> file, of the kinds that a sequence has. Raise UserError without colour, and for
    folders of maps without valid names; warn of other folders."""
    found = {
        kind: numbered_files(folder / part, IMAGES if kind == "color" else MAPS, start)
        for kind, (part, start) in layout.parts.items()
    }
    files = {kind: paths for kind, paths in found.items() if paths}
    if "color" not in files:
        part, start = layout.parts["color"]
        raise UserError(f"{name.text}: {folder / part} has no images named {start}0.png, {start}1.png, …")
    for kind in set(layout.parts) - {"color"}:
        part, start = layout.parts[kind]
        require_numbered(folder / part, found[kind], MAPS, start)
    if layout is SEMANTIC_NERF:
        say_of_unread(name.text, folder, files, [part for part, _ in layout.parts.values()])
    return files


def find_sequences(scene: Path) -> list[Path]:
    """Return the sequences of a scene's folder, in any of the layouts."""
    found = sorted([*scene.glob("Sequence_*"), *scene.glob("imap/*")])
    found = [path for path in found if path.is_dir()]
    return found or ([scene] if (scene / "results").is_dir() else [])


def _above(folder: Path, name: str) -> Path | None:
    """Return a file of a sequence, or of the folders above it."""
    return next((path for path in (parent / name for parent in (folder, *folder.parents[:3])) if path.is_file()), None)


def read_camera(path: Path | None, size: tuple[int, int], unit: DepthUnit | None) -> tuple[np.ndarray, DepthUnit]:
    """Return the intrinsics (3, 3) of images of `size` (h, w) and the unit of depth from a cam_params.json. path: None
    for the default intrinsics and `unit` (None: that of NICE-SLAM)."""
    if path is None:
        return intrinsics(size), unit or DepthUnit(1 / NICE_SLAM_UNIT, stated=True)
    content = read_json(path, "there is no such file")
    values = content.get("camera") if isinstance(content, dict) else None
    keys = ("fx", "fy", "cx", "cy", "w", "h", "scale")
    if not isinstance(values, dict) or not all(key in values for key in keys):
        raise UserError(f"{path}: should hold {{'camera': {{{', '.join(keys)}}}}}")
    given = {**content, **values}
    other = next((key for key in given if key not in (*keys, "camera") and given[key]), None)
    if other:
        raise UserError(f"{path}: {other} is not read; images should be of a pinhole camera with {', '.join(keys)}")
    fx, fy, cx, cy, width, height, scale = (number(values[key], key, path) for key in keys)
    if min(fx, fy, scale) <= 0 or (round(height), round(width)) != size:
        raise UserError(f"{path}: is the camera of {width:g}x{height:g} images, but they are {size[1]}x{size[0]}")
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    require_same_size(K, size, str(path))
    return K, DepthUnit(1 / scale, stated=True)


def intrinsics(size: tuple[int, int]) -> np.ndarray:
    """Return the intrinsics (3, 3) of a rendering of `size` (h, w)."""
    return centred_intrinsics(focal_length(FIELD_OF_VIEW, size[1]), size)


def by_number(poses: np.ndarray, numbers: list[int], path: Path) -> dict[int, np.ndarray]:
    """Return image number -> pose. Line i is the pose of image i. If there are as many lines as images, but the numbers
    do not start at 0, lines and images are paired in order, with a warning. Raise UserError if neither is possible, as
    where a line is missing: all poses behind it would be those of the next image."""
    told = f"images are numbered {numbers[0]} to {numbers[-1]}, and there are {len(poses)} poses"
    in_a_row = numbers == list(range(len(numbers)))
    if in_a_row and len(poses) < len(numbers):
        raise UserError(
            f"{path}: {told}; which images have none is not known: restore the missing lines, or remove the images"
        )
    if in_a_row and len(numbers) != len(poses):
        warn(f"{path}: {told}; pose i is taken for image i")
    if in_a_row or numbers[-1] < len(poses):
        return dict(enumerate(poses))
    if len(numbers) != len(poses):
        raise UserError(f"{path}: {told} for {len(numbers)} images; they cannot be matched")
    warn(f"{path}: {told}; the first pose is taken for image {numbers[0]}, and so on")
    return dict(zip(numbers, poses, strict=True))


def read_trajectory(path: Path) -> np.ndarray:
    """Return camera-to-world matrices (N, 4, 4) from lines of 16 (or 12) numbers. Raise UserError, which names the
    line, for any other line."""
    matrices = []
    for place, line in enumerate(read_text(path, "the trajectory is missing").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.replace(",", " ").split()]
        except ValueError:
            values = []
        if len(values) not in (12, 16):
            raise UserError(f"{path}, line {place}: should hold 16 numbers (a 4x4 matrix, row by row)")
        matrices.append(to_pose(np.reshape(values, (-1, 4)), path, f"line {place}"))
    if not matrices:
        raise UserError(f"{path}: the trajectory is empty")
    return np.array(matrices)
