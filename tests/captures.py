"""Helpers that change a capture and read it."""

import json

import numpy as np
import torch

from dataset.database import open_scene
from dataset.prepare.transforms import prepare_transforms

SIZE = (96, 128)
FRAMES = 24


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
    frames = frames or truth.frame_ids
    a, b = (s.views(frames, depth=True, labels=True).to("cpu") for s in (scene, truth))
    assert (a.images - b.images).abs().max() <= tolerance
    torch.testing.assert_close(a.depth, b.depth, atol=1e-3, rtol=0)
    assert (a.labels == b.labels).all()
    torch.testing.assert_close(a.cameras.poses, b.cameras.poses, atol=1e-4, rtol=0)
    torch.testing.assert_close(a.cameras.Ks, b.cameras.Ks, atol=1e-3, rtol=0)


def image(capture, number=3):
    return capture / "images" / f"{number}.jpg"


def change_poses(capture, change, every=1):
    def one(frame):
        frame["transform_matrix"] = np.asarray(change(np.array(frame["transform_matrix"]))).tolist()

    edit_frames(capture, one, every)
