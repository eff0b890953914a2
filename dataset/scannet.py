"""ScanNet scenes: data/scannet/sceneXXXX_YY/{color,depth,label-filt,pose,intrinsic}, or laid out as
scannet_frames_25k."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from pathlib import Path

import numpy as np

from dataset.camera import require_same_size, scale_intrinsics
from dataset.frames import Frames, numbered_files, of_another_size, require_numbered, say_of_unread, usable_frames
from dataset.labels import NYU40_LAST_ID, SCANNET_TABLE, LabelSet, look_like_nyu40, nyu40_labels, scannet_labels
from dataset.maps import read_ids
from dataset.poses import to_pose
from dataset.registration import DepthCamera
from dataset.scene import SceneFiles, SceneName
from dataset.view_selection import evenly
from utils.errors import UserError
from utils.files import read_text
from utils.images import image_size
from utils.logging import warn

DEPTH_RANGE = (0.1, 10.0)
IMAGES, MAPS = (".jpg", ".jpeg", ".png"), (".png", ".tif", ".tiff", ".npy")
LABEL_FOLDERS = ("label-filt", "label")  # of the release (raw ids); of scannet_frames_25k (NYU40 ids)
INTRINSICS = (
    "intrinsic/intrinsic_color.txt",
    "intrinsics_color.txt",
    "intrinsic_color.txt",
    "intrinsic/intrinsics_color.txt",
)
# Share of the depth map's width below which depth is aligned with colour. The release is aligned by its authors'
# statement, but its intrinsics differ by up to 0.6%.
ALIGNED = 0.01
LABEL_IDS = ("auto", "raw", "nyu40")  # ids in label maps; auto: by the name of their folder
NYU40_HINT = (
    "its labels are read as ScanNet's raw ids, but look like NYU40 ids; "
    "set label_ids to raw or nyu40 (dataset.check: --label-ids)"
)
SAMPLE = 8  # label maps that are read to determine their ids


def scannet_scene(name: SceneName, data_root: Path, label_ids: str = "auto") -> SceneFiles:
    """Find the files of a scene. label_ids: of LABEL_IDS. Raise UserError if required files are missing."""
    folder = name.folder(data_root)
    if not folder.is_dir():
        raise UserError(f"{name.text}: there is no folder {folder}; prepare the scene there or set data_root")
    label_folder = next(
        (folder / part for part in LABEL_FOLDERS if any((folder / part).glob("[!.]*"))), folder / LABEL_FOLDERS[0]
    )
    files = _find_images(name, folder, label_folder)
    poses = numbered_files(folder / "pose", (".txt",))
    intrinsics = next((folder / part for part in INTRINSICS if (folder / part).is_file()), folder / INTRINSICS[0])
    table = data_root / "scannet" / SCANNET_TABLE
    labels = choose_labels(files["labels"], label_folder, table, label_ids) if "labels" in files else None
    size = image_size(files["color"][min(files["color"])])

    refuse_distortion(folder)
    K, rig = read_intrinsics(intrinsics), read_rig(folder)
    camera = None if "depth" not in files else read_depth_camera(intrinsics, rig, K, size, files["depth"])

    def read_pose(number: int) -> np.ndarray | None:
        pose = _pose(poses.get(number))
        return None if pose is None else pose @ rig["color"]

    def find_frames() -> Frames:
        require_same_size(K, size, str(intrinsics))
        if labels is not None and label_ids == "auto":
            warn_of_nyu40(name.text, labels, files["labels"])
        odd = of_another_size(files["color"], size)
        return usable_frames(name.text, files, read_pose, K, odd)

    others = [*poses.values(), intrinsics, *([table] if table.is_file() else [])]
    others += [path for path in intrinsics.parent.glob("*trinsic*_*.txt") if path != intrinsics]
    return SceneFiles(
        name=name,
        folder=folder,
        files=files,
        others=others,
        raw_size=size,
        depth_range=DEPTH_RANGE,
        labels=labels,
        find_frames=find_frames,
        depth_cameras=dict.fromkeys(files["depth"], camera) if camera else {},
    )


def _find_images(name: SceneName, folder: Path, label_folder: Path) -> dict[str, dict[int, Path]]:
    """Return kind -> frame number -> file, of the kinds that a scene has. Raise UserError without colour, and for folders
    of maps without valid names; warn of other folders."""
    found = {
        "color": numbered_files(folder / "color", IMAGES),
        "depth": numbered_files(folder / "depth", MAPS),
        "labels": numbered_files(label_folder, MAPS),
    }
    files = {kind: paths for kind, paths in found.items() if paths}
    if "color" not in files:
        raise UserError(f"{name.text}: {folder / 'color'} has no images named 0.jpg, 1.jpg, …")
    require_numbered(folder / "depth", found["depth"], MAPS)
    require_numbered(label_folder, found["labels"], MAPS)
    say_of_unread(name.text, folder, files, ("color", "pose", "intrinsic", "depth", *LABEL_FOLDERS))
    return files


def choose_labels(maps: dict[int, Path], folder: Path, table: Path, label_ids: str) -> LabelSet:
    """Return the label set of a scene. `auto`: raw ids, but NYU40's in a folder `label` where none exceeds 40."""
    if label_ids == "auto" and folder.name != LABEL_FOLDERS[0]:
        label_ids = "nyu40" if max(count_ids(maps), default=0) <= NYU40_LAST_ID else "raw"
    return nyu40_labels() if label_ids == "nyu40" else scannet_labels(table)


def warn_of_nyu40(scene: str, labels: LabelSet, maps: dict[int, Path]) -> None:
    if labels.source != nyu40_labels().source and look_like_nyu40(count_ids(maps)):
        warn(f"{scene}: {NYU40_HINT}")


def count_ids(maps: dict[int, Path]) -> Counter:
    """Count the pixels of each raw id in a few label maps; unreadable ones are skipped here and reported when a sample
    needs them."""
    counts: Counter = Counter()
    for number in evenly(sorted(maps), SAMPLE):
        try:
            ids, pixels = np.unique(read_ids(maps[number]), return_counts=True)
        except UserError:
            continue
        counts.update(dict(zip(ids.tolist(), pixels.tolist(), strict=True)))
    return counts


def read_matrix(path: Path, shapes: tuple[tuple[int, int], ...] = ((4, 4),)) -> np.ndarray:
    """Return a matrix of one of `shapes` from a text file; it may hold inf or nan. Raise UserError if it is missing or
    of another shape."""
    try:
        values = [float(word) for word in read_text(path).replace(",", " ").split()]
    except ValueError:
        raise UserError(f"{path}: should hold a 4x4 matrix, but holds something else") from None
    shape = next((shape for shape in shapes if shape[0] * shape[1] == len(values)), None)
    if shape is None:
        raise UserError(f"{path}: should hold a 4x4 matrix, but has {len(values)} numbers")
    return np.array(values).reshape(shape)


def read_intrinsics(path: Path) -> np.ndarray:
    """Return (3, 3) from a file of a 4x4, 3x4 or 3x3 matrix. Raise UserError if it is no pinhole camera's."""
    return pinhole(read_matrix(path, ((4, 4), (3, 4), (3, 3))), path)


def pinhole(matrix: np.ndarray, source) -> np.ndarray:
    """Return the intrinsics (3, 3) in a 4x4, 3x4 or 3x3 matrix. Raise UserError, which names `source`, if it is not
    that of a pinhole camera."""
    K = matrix[:3, :3]
    skewed = not np.allclose([K[0, 1], K[1, 0], *K[2]], [0, 0, 0, 0, 1], atol=1e-6)
    if not np.isfinite(K).all() or skewed or min(K[0, 0], K[1, 1]) <= 0:
        raise UserError(f"{source}: should hold fx 0 cx, 0 fy cy, 0 0 1 (no skew, fx and fy positive)")
    return K


def refuse_distortion(folder: Path) -> None:
    """Raise UserError where a file beside the intrinsics says that images are distorted: coefficients that are not all
    zero."""
    for path in sorted([*folder.glob("*distort*"), *folder.glob("intrinsic*/*distort*")]):
        words = re.findall(r"[^\s,;:=\[\]]+", read_text(path)) if path.is_file() else []
        if not all(_is_zero(word) for word in words if not word.isidentifier()):
            raise UserError(
                f"{path}: lens distortion is not read in ScanNet's layout; undistort the images and remove the file, or give them "
                "as a capture (transforms.json with k1, k2, p1, p2)"
            )


def _is_zero(word: str) -> bool:
    try:
        return float(word) == 0
    except ValueError:
        return False


def read_rig(folder: Path) -> dict[str, np.ndarray]:
    """Return the poses (4, 4) of the colour and the depth camera relative to those in the pose files: `extrinsic_color`
    and `extrinsic_depth`, the identity without such a file. Raise UserError for a matrix that is not rigid."""
    rig = {}
    for sensor in ("color", "depth"):
        path = folder / "intrinsic" / f"extrinsic_{sensor}.txt"
        rig[sensor] = rigid(read_matrix(path), path) if path.is_file() else np.eye(4)
    return rig


def rigid(matrix: np.ndarray, source) -> np.ndarray:
    """Return a matrix (4, 4). Raise UserError, which names `source`, if it is not a rotation and translation."""
    moved = to_pose(matrix, source, "the matrix")
    if not np.isfinite(moved).all():
        raise UserError(f"{source}: should hold a rotation and shift")
    return moved


def read_depth_camera(
    intrinsics: Path, rig: dict[str, np.ndarray], K: np.ndarray, size: tuple[int, int], maps: dict[int, Path]
) -> DepthCamera | None:
    """Return the camera of the depth maps; None where they are aligned with colour images of K (3, 3) and `size` (h,
    w).

    intrinsics: the colour camera's file, which the depth camera's lies beside.
    """
    path = intrinsics.with_name(intrinsics.name.replace("color", "depth"))
    depth_size = first_size(maps)
    if depth_size is None:
        return None
    depth_K = read_intrinsics(path) if path.is_file() else scale_intrinsics(K, size, depth_size)
    try:
        require_same_size(depth_K, depth_size, str(path))
    except UserError as error:  # the maps were resized
        warn(f"{error} Depth is taken to be aligned with colour")
        return None
    camera = DepthCamera(depth_K, depth_size, np.linalg.inv(rig["color"]) @ rig["depth"])
    return camera.unless_same(K, size, ALIGNED * depth_size[1])


def first_size(maps: dict[int, Path]) -> tuple[int, int] | None:
    """Return the (h, w) of the first readable map; None if there is none. Unreadable maps are reported when they are
    read."""
    for number in sorted(maps):
        with contextlib.suppress(UserError):
            return image_size(maps[number])
    return None


def _pose(path: Path | None) -> np.ndarray | None:
    return None if path is None else to_pose(read_matrix(path, ((4, 4), (3, 4))), path.parent, path.name)
