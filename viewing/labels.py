"""Label maps of a whole scene, or along a path, as files that other programs and this loader can read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataset.camera import scale_intrinsics
from dataset.database import open_scene
from dataset.intrinsics import camera_keys
from dataset.labels import SCANNET_CLASSES, LabelSet, capture_labels, nyu40_labels
from dataset.maps import MILLIMETRES
from dataset.poses import OPENGL_TO_OPENCV
from dataset.scene import Scene, SceneName, to_cameras, view_size
from dataset.views import Cameras
from network.rendering import RenderedView
from train.metrics import class_scores, confusion
from train.pictures import to_picture
from utils.errors import UserError
from utils.files import write_text
from utils.images import write_image
from utils.logging import say
from viewing.frame_files import FrameFiles, settings_of, stored_depth
from viewing.references import Mix, References, mixes
from viewing.session import Session
from viewing.video import require_overlap

PLACES = {  # database type -> file names of its label maps
    "scannet": "label-filt/{}.png",
    "replica": "semantic_class/semantic_class_{}.png",
    "transforms": "labels/{:05d}.png",
}
NYU40_PLACE = "label/{}.png"  # of ScanNet scenes without labels of their own
CAPTURE = "transforms.json"


@dataclass(frozen=True)
class Shots:
    """Views to render: cameras, the references of each, their numbers in file names, and the frames of the scene that
    they show (None for a path)."""

    cameras: Cameras
    mixes: list[Mix]
    numbers: list[int]
    frames: list[str] | None = None


def frame_shots(scene: Scene, references: References, width: int | None = None) -> Shots:
    """Return all usable frames of a scene, each rendered from itself and the references that show most of it. width: of
    the maps in pixels, None for the scene's."""
    size = scene.size if width is None else view_size(width, scene.raw_size)
    Ks = scale_intrinsics(scene.Ks, scene.raw_size, size)
    cameras = to_cameras(scene.camera_to_world, Ks, scene.depth_range, size)
    chosen = []
    for number, frame in enumerate(scene.frame_ids):
        others = [other for other in references.choose(cameras.one(number)) if other != frame]
        chosen.append([(1.0, (frame, *others[: references.count - 1]))])
    return Shots(cameras, chosen, [int(frame) for frame in scene.frame_ids], scene.frame_ids)


def path_shots(cameras: Cameras, references: References) -> Shots:
    """Return the views along a path. Raise UserError if no reference shows anything along it."""
    require_overlap(references, cameras)
    return Shots(cameras, mixes(references, cameras), list(range(len(cameras))))


def write_labels(session: Session, shots: Shots, out: Path, score: bool = False) -> None:
    """Write label maps in the scene's own ids, the confidence of each pixel, and a transforms.json that makes `out` a
    capture.

    For a camera path colour and depth are written too. Frames that an earlier run has written are kept. score: compare
    with the scene's own labels. Raise UserError for a network without classes, and for a folder with other content.
    """
    scene = session.scene
    if session.classes is None:
        raise UserError("labels: this network has no classes (render_label: false)")
    if score and (scene.labels is None or shots.frames is None):
        raise UserError("--score: compares frames with labels of their own; this is a path, or the scene has none")
    labels, place = target_labels(session)
    names = {"labels": place, "confidence": "confidence/{}.png"}
    if shots.frames is None:
        names |= {"color": "color/{}.png", "depth": "depth/{}.png"}
    files = FrameFiles(out, names)
    files.claim(settings_of(session, shots.cameras))
    ids = labels.ids()
    for index in tqdm(range(len(shots.numbers)), desc="labels", unit="frame"):
        number = shots.numbers[index]
        if not files.has(number):
            view = session.render(shots.cameras.one(index), shots.mixes[index])
            for kind, image in images_of(view, shots.cameras.size, ids).items():
                if kind in names:
                    write_image(files.path(kind, number), image)
    write_text(out / "classes.json", json.dumps(_classes(session, ids), indent=1) + "\n")
    write_text(out / CAPTURE, json.dumps(_capture(scene, shots, files, labels, ids), indent=1) + "\n")
    say(
        f"labels: {files.path('labels', 0).parent}\nhow sure: {out / 'confidence'} (255: certain)\nclasses: {out / 'classes.json'}"
    )
    if score:
        say(_score(scene, shots, out))


def target_labels(session: Session) -> tuple[LabelSet, str]:
    """Return the label set to write, and the names of its files: the scene's own; for a scene without labels NYU40 ids
    if it is ScanNet's, else class numbers."""
    scene, names = session.scene, session.classes.names[:-1]
    kind = SceneName.parse(scene.name).kind
    if scene.labels is not None:
        return scene.labels, PLACES[kind]
    if kind == "scannet" and names == tuple(SCANNET_CLASSES):
        return nyu40_labels(), NYU40_PLACE
    return capture_labels(names, "the model"), PLACES[kind]


def images_of(view: RenderedView, size: tuple[int, int], ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return the images to write of a view of `size` (h, w). ids: (K+1,) of the classes, last the ignored id. Pixels
    that no reference sees are ignored, with a confidence and depth of 0."""
    picture = to_picture(view, size)
    sure = view.logits.softmax(-1).amax(-1).reshape(size).cpu().numpy()
    found = picture.seen & (picture.classes < len(ids) - 1)
    maps = ids[np.where(found, picture.classes, len(ids) - 1)]
    return {
        "labels": maps.astype(np.uint8 if ids.max() < 256 else np.uint16),
        "confidence": np.where(found, (sure * 255).round(), 0).astype(np.uint8),
        "color": picture.color,
        "depth": stored_depth(picture),
    }


def _classes(session: Session, ids: np.ndarray) -> list[dict]:
    named = zip(ids, session.classes.names, session.classes.colors, strict=True)
    return [{"id": int(number), "name": name, "color": color.tolist()} for number, name, color in named]


def _capture(scene: Scene, shots: Shots, files: FrameFiles, labels: LabelSet, ids: np.ndarray) -> dict:
    """Return the content of a transforms.json with the label maps: of the scene's own images, or of those of a path."""
    frames = [_entry(scene, shots, files, index) for index in range(len(shots.numbers))]
    content = {
        "camera_model": "PINHOLE",
        "depth_range": [float(end) for end in scene.depth_range],
        "semantic_classes": list(labels.names),
        "semantic_ids": ids.tolist(),
    }
    unit = scene.depth_unit
    if shots.frames is not None:
        content |= {} if unit == MILLIMETRES else {"depth_unit_scale_factor": unit.whole}
        content |= {"test_filenames": [frames[shots.frames.index(test)]["file_path"] for test in scene.split().tests]}
    return content | {"frames": frames}


def _entry(scene: Scene, shots: Shots, files: FrameFiles, index: int) -> dict:
    number, keys = shots.numbers[index], {"color": "file_path", "depth": "depth_file_path", "mask": "mask_path"}
    if shots.frames is None:
        pose, K = _camera_to_world(shots.cameras, index), shots.cameras.Ks[index].numpy()
        height, width = shots.cameras.size
        paths = {kind: files.path(kind, number) for kind in ("color", "depth")}
    else:
        pose, K = scene.camera_to_world[index], scene.Ks[index]
        height, width = scene.raw_size
        paths = {kind: scene.path(shots.frames[index], kind) for kind in scene.kinds if kind in keys}
    named = {keys[kind]: os.path.relpath(path, files.folder) for kind, path in paths.items() if path is not None}
    return {
        **{key: Path(path).as_posix() for key, path in named.items()},
        "semantic_path": files.path("labels", number).relative_to(files.folder).as_posix(),
        "transform_matrix": (pose @ OPENGL_TO_OPENCV).tolist(),
        **camera_keys(K),
        "w": width,
        "h": height,
    }


def _camera_to_world(cameras: Cameras, index: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3] = cameras.poses[index].double().numpy()
    return np.linalg.inv(pose)


def _score(scene: Scene, shots: Shots, out: Path) -> str:
    """Score the written maps against the scene's own labels, per image as published, over all its frames and its test
    frames."""
    written, tests = open_scene(f"{out}/black_{shots.cameras.size[1]}", out), set(scene.split().tests)
    rows = {}
    for index, frame in enumerate(shots.frames):
        own, ours = scene.views([frame], labels=True).labels[0], written.views([str(index)], labels=True).labels[0]
        own = torch.nn.functional.interpolate(own[None, None], size=ours.shape, mode="nearest-exact")[0, 0]
        rows[frame] = class_scores(confusion(ours.numpy(), own.numpy(), scene.labels.ignore))["miou"]
    means = {"all frames": list(rows.values()), "test frames": [rows[frame] for frame in rows if frame in tests]}
    return ", ".join(f"mIoU of {name}: {np.mean(values):.3f}" for name, values in means.items() if values)
