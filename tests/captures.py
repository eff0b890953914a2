"""Helpers that change a capture and read it."""

import functools
import json
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch

from dataset.check import __main__ as command
from dataset.check.page import verdict
from dataset.database import open_scene
from dataset.labels import SCANNET_CLASSES
from dataset.prepare.transforms import prepare_transforms
from dataset.synthetic.writers import CATEGORIES, NYU40_CEILING
from utils.images import read_color, write_image

SIZE = (96, 128)
FRAMES = 24
ROOM = "scannet/train_000/black_64"  # of the fixture `room`
PAIRS = 8  # that the check compares: enough for these, and less than it takes


def edit(capture, change):
    """Let `change` alter the content of transforms.json."""
    path = capture / "transforms.json"
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


def edit_frames(capture, change, every=1):
    edit(capture, lambda content: [change(frame) for frame in content["frames"][::every]] and None)


def opened(capture):
    return open_scene(f"{capture}/black_64", "data")


def prepared(capture, name="mine"):
    out = capture.parent / "data" / "transforms"
    prepare_transforms(capture, out, name)
    return open_scene(f"transforms/{name}/black_64", out.parent)


def both(capture):
    """The capture opened directly, and after preparation."""
    return [opened(capture), prepared(capture)]


def assert_same(scene, truth, frames=None, tolerance=0):
    """Loaded values equal the truth's."""
    frames = tuple(frames or truth.frame_ids)
    a, b = scene.views(frames, depth=True, labels=True).to("cpu"), _loaded(truth, frames)
    assert (a.images - b.images).abs().max() <= tolerance
    torch.testing.assert_close(a.depth, b.depth, atol=1e-3, rtol=0)
    assert (a.labels == b.labels).all()
    torch.testing.assert_close(a.cameras.poses, b.cameras.poses, atol=1e-4, rtol=0)
    torch.testing.assert_close(a.cameras.Ks, b.cameras.Ks, atol=1e-3, rtol=0)


@functools.lru_cache(maxsize=4)
def _loaded(truth, frames):
    return truth.views(frames, depth=True, labels=True).to("cpu")


def image(capture, number=3):
    return capture / "images" / f"{number}.jpg"


def rewrite(capture, kind, suffix, write):
    """Write each file of a kind anew, by `write` with its new path and its values."""
    for path in (capture / kind).iterdir():
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        write(path.with_suffix(suffix), values)
    key = {"images": "file_path", "depth": "depth_file_path", "labels": "semantic_path"}[kind]
    edit_frames(capture, lambda frame: frame.update({key: str(Path(frame[key]).with_suffix(suffix))}))


def change_poses(capture, change, every=1):
    def one(frame):
        frame["transform_matrix"] = np.asarray(change(np.array(frame["transform_matrix"]))).tolist()

    edit_frames(capture, one, every)


def resize_images(capture, size, numbers=range(FRAMES)):
    for number in numbers:
        picture = cv2.resize(read_color(image(capture, number)), size[::-1], interpolation=cv2.INTER_AREA)
        write_image(image(capture, number), picture, quality=98)


def to_nyu40(room, folder="label-filt"):
    lookup = np.zeros(2000, np.uint8)
    for raw, (_, name) in CATEGORIES.items():
        lookup[raw] = SCANNET_CLASSES[name][0] if name else NYU40_CEILING
    scene = room / "scannet" / "train_000"
    for path in (scene / "label-filt").iterdir():
        write_image(path, lookup[cv2.imread(str(path), cv2.IMREAD_UNCHANGED)])
    if folder != "label-filt":
        (scene / "label-filt").rename(scene / folder)


def check(name, data_root=Path("data"), sample=8, label_ids="auto"):
    """The check's report at the images' own width and by fewer pairs: in a quarter of the time."""
    with patch.object(command, "WIDTH", SIZE[1]), patch.object(command, "PAIRS", PAIRS):
        return command.check_scene(name, data_root, sample, label_ids)


def checked(capture, sample=8):
    """What the check finds wrong with a capture."""
    return "; ".join(verdict(check(f"{capture}/black_64", sample=sample)))
