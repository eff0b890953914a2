"""Users' captures in nerfstudio's format: data/transforms/<name>/transforms.json and the images that it names.

Cameras there have OpenGL axes (y up, z backward) and pixel centres at +0.5. Labels are an extension: `semantic_path` of
a frame (class numbers, 255 to be ignored) and `semantic_classes` (names) at the top; `semantic_ids` where label maps
hold other ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.camera import scale_intrinsics
from dataset.capture import CAPTURE_FILE, capture_file, read_capture
from dataset.capture_keys import KINDS
from dataset.frames import Frames, usable_frames
from dataset.labels import capture_labels
from dataset.scene import SceneFiles, SceneName
from utils.errors import UserError
from utils.logging import warn

DEPTH_RANGE = (0.1, 10.0)
EXTENT_OF_ROOMS = (0.2, 30.0)  # metres between the outermost cameras of a capture


def transforms_scene(name: SceneName, data_root: Path) -> SceneFiles:
    """Find the files of a capture. Raise UserError if it needs preparation or cannot be used."""
    folder = name.folder(data_root)
    path = capture_file(folder) or folder / CAPTURE_FILE
    capture = read_capture(path)
    bent = next((frame for frame in capture.frames if not frame.lens.is_pinhole), None)
    if bent is not None:
        raise UserError(
            f"{path}: {bent.name} is distorted; undistort the capture with `python -m dataset.prepare transforms` "
            f"(camera_model {bent.lens.model})"
        )
    files = {kind: paths for kind in KINDS if (paths := capture.files(kind))}
    labels = capture_labels(capture.classes, str(path), capture.class_ids) if capture.classes else None
    Ks = np.stack([scale_intrinsics(frame.K, frame.size, capture.size) for frame in capture.frames])

    def find_frames() -> Frames:
        found = usable_frames(name.text, files, capture.pose, Ks[0], capture.left_out)
        if "depth" not in files and capture.depth_range is None:
            hint = unit_hint(found.camera_to_world)
            if hint is not None:
                warn(f"{name.text}: {hint}")
        return found._replace(Ks=Ks[found.numbers])

    return SceneFiles(
        name=name,
        folder=folder,
        files=files,
        others=[path, *path.parent.glob("transforms_*.json")],
        raw_size=capture.size,
        depth_range=capture.depth_range or DEPTH_RANGE,
        labels=labels,
        find_frames=find_frames,
        split=capture.split,
        depth_unit=capture.depth_unit,
        depth_cameras={n: frame.depth_camera for n, frame in enumerate(capture.frames) if frame.depth_camera},
    )


def unit_hint(camera_to_world: np.ndarray) -> str | None:
    """Return a warning for a capture without depth whose lengths are implausible in metres; None if they are
    plausible."""
    extent = float(np.linalg.norm(np.ptp(camera_to_world[:, :3, 3], axis=0)))
    if len(camera_to_world) < 2 or EXTENT_OF_ROOMS[0] <= extent <= EXTENT_OF_ROOMS[1]:
        return None
    return (
        f"its cameras are spread over {extent:.3g} m: are its lengths metres? there is no depth to tell; if not, set "
        "applied_scale (units a metre) and depth_range (metres) in transforms.json"
    )
