"""Writers of synthetic rooms in the layouts of ScanNet, its release, Replica and captures."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from dataset.intrinsics import camera_keys
from dataset.labels import REPLICA_CLASSES, SCANNET_CLASSES, SCANNET_TABLE
from dataset.poses import OPENGL_TO_OPENCV
from dataset.synthetic.raycast import CLASS_NAMES
from utils.files import atomic_write, write_text
from utils.images import write_image

# Raw ids like ScanNet's: several categories for a class, gaps, and a category without a class.
CATEGORIES = {  # raw id: (category, class)
    1: ("wall", "wall"),
    3: ("floor", "floor"),
    2: ("chair", "chair"),
    23: ("office chair", "chair"),
    4: ("table", "table"),
    18: ("coffee table", "table"),
    5: ("door", "door"),
    7: ("cabinet", "cabinet"),
    13: ("couch", "sofa"),
    11: ("bed", "bed"),
    9: ("window", "window"),
    22: ("bookshelf", "bookshelf"),
    15: ("picture", "picture"),
    35: ("counter", "counter"),
    14: ("desk", "desk"),
    16: ("curtain", "curtain"),
    27: ("refrigerator", "refrigerator"),
    55: ("shower curtain", "shower curtain"),
    17: ("toilet", "toilet"),
    24: ("sink", "sink"),
    71: ("bathtub", "bathtub"),
    40: ("lamp", "otherfurniture"),
    1163: ("object", "otherfurniture"),
    41: ("ceiling", None),
}
NYU40_CEILING = 22
COLUMNS = (
    "id",
    "raw_category",
    "category",
    "count",
    "nyu40id",
    "eigen13id",
    "nyuClass",
    "nyu40class",
    "eigen13class",
    "ModelNet40",
    "ModelNet10",
    "ShapeNetCore55",
    "synsetoffset",
    "wnsynsetid",
    "wnsynsetkey",
    "mpcat40",
    "mpcat40index",
)
RAW_IDS = np.array(
    [next(raw for raw, (_, name) in CATEGORIES.items() if name == wanted) for wanted in CLASS_NAMES]
    + [next(raw for raw, (_, name) in CATEGORIES.items() if name is None)],
    np.uint16,
)
REPLICA_RAW_IDS = np.array([*REPLICA_CLASSES[: len(CLASS_NAMES)], 0], np.uint8)  # any 20 of Replica's classes
LOST_POSE = np.full((4, 4), -np.inf)


def write_label_table(folder: Path) -> None:
    """Write the tab-separated table of raw ids, with the real file's columns."""
    rows = ["\t".join(COLUMNS)]
    for raw, (category, name) in sorted(CATEGORIES.items()):
        nyu40 = SCANNET_CLASSES[name][0] if name else NYU40_CEILING
        values = {
            "id": raw,
            "raw_category": category,
            "category": category,
            "count": 1,
            "nyu40id": nyu40,
            "nyu40class": name or "ceiling",
        }
        rows.append("\t".join(str(values.get(column, "")) for column in COLUMNS))
    write_text(folder / SCANNET_TABLE, "\n".join(rows) + "\n")


class Writer:
    """Writer of the frames of one room. kind: database type of the files, or of what preparation makes of them."""

    kind: str

    def files(self, frame: int) -> list[Path]:
        """Return the image files of a frame. The frame is complete if all of them exist."""
        raise NotImplementedError

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        """Return the intrinsics (3, 3) of images of `size` (h, w): about ScanNet's field of view, with the principal
        point slightly off the centre."""
        height, width = size
        focal = 0.89 * width
        return np.array([[focal, 0, width * 0.497], [0, focal, height * 0.503], [0, 0, 1]])

    def write_scene(self, K: np.ndarray, poses: np.ndarray, size: tuple[int, int]) -> None:
        """Write the files of the whole scene, from camera-to-world poses (N, 4, 4)."""
        raise NotImplementedError

    def write_frame(self, frame: int, color, depth, classes, pose, lost: bool) -> None:
        """Write a frame: color (h, w, 3) uint8, depth (h, w) in metres, classes (h, w) with 20 for ignored pixels, and
        its camera-to-world pose (4, 4). lost: write an invalid pose, if the layout has any."""
        raise NotImplementedError

    def finish(self) -> None:
        """Complete the scene after its last frame."""


class ScanNetWriter(Writer):
    """scannet/<room>/{color,depth,label-filt,pose,intrinsic}."""

    kind = "scannet"

    def __init__(self, root: Path, room: str):
        self.folder = root / "scannet" / room

    def files(self, frame: int) -> list[Path]:
        return [
            self.folder / "color" / f"{frame}.jpg",
            self.folder / "depth" / f"{frame}.png",
            self.folder / "label-filt" / f"{frame}.png",
            self.folder / "pose" / f"{frame}.txt",
        ]

    def write_scene(self, K: np.ndarray, poses: np.ndarray, size: tuple[int, int]) -> None:
        full = np.eye(4)
        full[:3, :3] = K
        for sensor in ("color", "depth"):
            write_text(self.folder / "intrinsic" / f"intrinsic_{sensor}.txt", _matrix(full))
            write_text(self.folder / "intrinsic" / f"extrinsic_{sensor}.txt", _matrix(np.eye(4)))

    def write_frame(self, frame: int, color, depth, classes, pose, lost: bool) -> None:
        paths = self.files(frame)
        write_image(paths[0], color)
        write_image(paths[1], _millimetres(depth))
        write_image(paths[2], RAW_IDS[classes])
        write_text(paths[3], _matrix(LOST_POSE if lost else pose))


class ReplicaWriter(Writer):
    """Replica/<room>/Sequence_1/{rgb,depth,semantic_class} and traj_w_c.txt."""

    kind = "replica"

    def __init__(self, root: Path, room: str):
        self.folder = root / "Replica" / room / "Sequence_1"

    def files(self, frame: int) -> list[Path]:
        return [self.folder / kind / f"{kind}_{frame}.png" for kind in ("rgb", "depth", "semantic_class")]

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        return np.array([[width / 2, 0, (width - 1) / 2], [0, width / 2, (height - 1) / 2], [0, 0, 1]])

    def write_scene(self, K: np.ndarray, poses: np.ndarray, size: tuple[int, int]) -> None:
        lines = [" ".join(f"{value:.9g}" for value in pose.ravel()) for pose in poses]
        write_text(self.folder / "traj_w_c.txt", "\n".join(lines) + "\n")

    def write_frame(self, frame: int, color, depth, classes, pose, lost: bool) -> None:
        for path, image in zip(self.files(frame), (color, _millimetres(depth), REPLICA_RAW_IDS[classes]), strict=True):
            write_image(path, image)


class ReleaseWriter(Writer):
    """ScanNet's release: scans/<room>/<room>.sens and <room>_2d-label-filt.zip, to be prepared."""

    kind = "scannet"

    def __init__(self, root: Path, room: str):
        self.folder, self.room = root / "scans" / room, room
        self._frames: list[bytes] = []
        self._labels: list[bytes] = []

    def files(self, frame: int) -> list[Path]:
        return [self.folder / f"{self.room}.sens", self.folder / f"{self.room}_2d-label-filt.zip"]

    def write_scene(self, K: np.ndarray, poses: np.ndarray, size: tuple[int, int]) -> None:
        self._K = np.eye(4, dtype="<f4")
        self._K[:3, :3] = K

    def write_frame(self, frame: int, color, depth, classes, pose, lost: bool) -> None:
        self._size = color.shape[:2]
        jpeg = cv2.imencode(".jpg", color[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        packed = zlib.compress(_millimetres(depth).astype("<u2").tobytes())
        matrix = (LOST_POSE if lost else pose).astype("<f4").tobytes()
        self._frames.append(matrix + struct.pack("<4Q", frame, frame, len(jpeg), len(packed)) + jpeg + packed)
        self._labels.append(cv2.imencode(".png", RAW_IDS[classes])[1].tobytes())

    def finish(self) -> None:
        height, width = self._size
        name, identity = self.room.encode(), np.eye(4, dtype="<f4").tobytes()
        header = struct.pack("<IQ", 4, len(name)) + name + (self._K.tobytes() + identity) * 2
        header += struct.pack("<2i4IfQ", 2, 1, width, height, width, height, 1000.0, len(self._frames))
        with atomic_write(self.files(0)[0]) as temporary:
            temporary.write_bytes(header + b"".join(self._frames) + struct.pack("<Q", 0))
        with atomic_write(self.files(0)[1]) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for number, label in enumerate(self._labels):
                archive.writestr(f"label-filt/{number}.png", label)


class TransformsWriter(Writer):
    """transforms/<room>/{images,depth,labels} and transforms.json, the layout of a capture."""

    kind = "transforms"

    def __init__(self, root: Path, room: str):
        self.folder = root / "transforms" / room

    def files(self, frame: int) -> list[Path]:
        return [
            self.folder / "images" / f"{frame}.jpg",
            *(self.folder / kind / f"{frame}.png" for kind in ("depth", "labels")),
        ]

    def write_scene(self, K: np.ndarray, poses: np.ndarray, size: tuple[int, int]) -> None:
        frames = [
            {
                "file_path": f"images/{number}.jpg",
                "depth_file_path": f"depth/{number}.png",
                "semantic_path": f"labels/{number}.png",
                "transform_matrix": (pose @ OPENGL_TO_OPENCV).tolist(),
            }
            for number, pose in enumerate(poses)
        ]
        content = {
            "camera_model": "PINHOLE",
            **camera_keys(K),
            "w": size[1],
            "h": size[0],
            "semantic_classes": list(CLASS_NAMES),
            "frames": frames,
        }
        write_text(self.folder / "transforms.json", json.dumps(content, indent=1) + "\n")

    def write_frame(self, frame: int, color, depth, classes, pose, lost: bool) -> None:
        labels = np.where(classes < len(CLASS_NAMES), classes, 255).astype(np.uint8)
        for path, image in zip(self.files(frame), (color, _millimetres(depth), labels), strict=True):
            write_image(path, image)


WRITERS = {"scannet": ScanNetWriter, "replica": ReplicaWriter, "release": ReleaseWriter, "transforms": TransformsWriter}


def _millimetres(depth: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(depth), depth * 1000, 0).round().clip(0, 65534).astype(np.uint16)


def _matrix(values: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.9g}" for value in row) for row in values) + "\n"
