"""Class maps that a network writes, read again by the loader; the network here shows the truth, or is random."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset.capture import read_capture
from dataset.database import open_scene
from dataset.labels import nyu40_labels, replica_labels
from network.rendering import CLASSES, RenderedView
from network.view_renderer import ViewRenderer
from train.run import build_network
from utils.errors import UserError
from utils.images import read_map
from viewing import commands
from viewing.labels import Shots, frame_shots, path_shots, write_labels
from viewing.paths import make_path, path_cameras
from viewing.references import References
from viewing.session import Classes, Session

ROOMS = {"scannet": "scannet/test_000/black_64", "replica": "replica/test_000/Sequence_1/black_64"}


class Truth:
    """In place of a session: shows each frame's own labels, sure by 0.75, and nothing in the first column."""

    def __init__(self, scene, width=None):
        self.scene, self.references, self.renderer, self.device = scene, 3, self, torch.device("cpu")
        self.classes = Classes((*scene.labels.names, "invalid"), scene.labels.colors)
        self.origin, self.backend, self.half, self.rendered = {}, self, False, []

    def render(self, camera, mix):
        frame = mix[0][1][0]
        self.rendered.append(frame)
        views = self.scene.views([frame], depth=True, labels=True).to("cpu")
        size = camera.size
        classes = (
            torch.nn.functional.interpolate(views.labels[None].float(), size=size, mode="nearest-exact")
            .long()
            .flatten()
        )
        count = self.scene.labels.ignore + 1
        logits = torch.nn.functional.one_hot(classes, count) * np.log(3 * (count - 1))
        seen = torch.ones(size, dtype=torch.bool)
        seen[:, 0] = False
        flat = torch.full((len(classes),), 1.5)
        color = torch.full((len(classes), 3), 0.5)
        return RenderedView(color, {CLASSES: logits.float()}, flat, flat, seen.flatten())


def roots(rooms, replica_rooms):
    return {"scannet": rooms, "replica": replica_rooms}


@pytest.mark.parametrize("kind", ROOMS)
def test_label_maps_lie_over_the_scene_they_are_of(rooms, replica_rooms, tmp_path, kind):
    root = roots(rooms, replica_rooms)[kind]
    scene = open_scene(ROOMS[kind], root)
    session = Truth(scene)
    out = tmp_path / "labels"
    write_labels(session, frame_shots(scene, References(scene, 3)), out)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    folder = open_scene(ROOMS[kind], copy).folder
    labels = next(path for path in out.iterdir() if path.name in ("label-filt", "semantic_class"))
    shutil.rmtree(folder / labels.name)
    shutil.copytree(labels, folder / labels.name)
    again = open_scene(ROOMS[kind], copy)
    assert again.frame_ids == scene.frame_ids
    for frame in scene.frame_ids[::7]:
        true, ours = (s.views([frame], labels=True).labels[0].numpy() for s in (scene, again))
        np.testing.assert_array_equal(ours[:, 1:], true[:, 1:])
        assert (ours[:, 0] == scene.labels.ignore).all(), "nobody sees it"
        sure = read_map(out / "confidence" / f"{frame}.png")
        assert (sure[:, 0] == 0).all() and set(np.unique(sure[:, 1:][true[:, 1:] < scene.labels.ignore])) == {191}


@pytest.mark.parametrize("kind", ROOMS)
def test_the_folder_is_a_capture_itself(rooms, replica_rooms, tmp_path, kind):
    scene = open_scene(ROOMS[kind], roots(rooms, replica_rooms)[kind])
    write_labels(Truth(scene), frame_shots(scene, References(scene, 3)), tmp_path / "labels")
    again = open_scene(f"{tmp_path}/labels/black_64", tmp_path)
    assert len(again) == len(scene) and again.labels.names == scene.labels.names
    assert [again.frame_ids.index(f) for f in again.split().tests] == [
        scene.frame_ids.index(f) for f in scene.split().tests
    ]
    np.testing.assert_allclose(again.camera_to_world, scene.camera_to_world, atol=1e-6)
    first, ours = (s.views(s.frame_ids[3:4], depth=True, labels=True) for s in (scene, again))
    assert torch.equal(first.images, ours.images) and torch.equal(first.depth, ours.depth)
    torch.testing.assert_close(first.cameras.Ks, ours.cameras.Ks)
    np.testing.assert_array_equal(ours.labels[..., 1:], first.labels[..., 1:])
    entry = json.loads((tmp_path / "labels" / "classes.json").read_text())[2]
    assert entry["name"] == scene.labels.names[2] and scene.labels.lookup[entry["id"]] == 2


def test_labels_along_a_path_come_with_images_depth_and_cameras(rooms, tmp_path):
    scene = open_scene(ROOMS["scannet"], rooms)
    cameras = path_cameras(make_path("interp", scene, 4), scene, 32)
    write_labels(Truth(scene), path_shots(cameras, References(scene, 3)), tmp_path / "flight")
    again = open_scene(f"{tmp_path}/flight/black_32", tmp_path)
    views = again.views(again.frame_ids, depth=True, labels=True)
    assert len(again) == 4 and views.images.shape == (4, 3, *cameras.size)
    torch.testing.assert_close(views.cameras.poses, cameras.poses, atol=1e-4, rtol=0)
    assert (views.depth[..., 1:].numpy() == 1500).all() and (views.labels[..., 0] == 20).all()
    assert (views.labels[..., 1:] < 20).any()


def test_it_goes_on_and_leaves_what_is_not_its_own(rooms, tmp_path):
    scene = open_scene(ROOMS["scannet"], rooms)
    session, shots = Truth(scene), frame_shots(scene, References(scene, 3))
    assert all(
        mix[0][1][0] == frame and len(set(mix[0][1])) == 3
        for mix, frame in zip(shots.mixes, scene.frame_ids, strict=True)
    )
    few = Shots(shots.cameras[:5], shots.mixes[:5], shots.numbers[:5], shots.frames[:5])
    split = scene.split()
    scene.own_split = replace_tests(split, shots.frames[:5])
    write_labels(session, few, tmp_path)
    (tmp_path / "confidence" / f"{few.numbers[2]}.png").unlink()
    session.rendered.clear()
    write_labels(session, few, tmp_path)
    assert session.rendered == [few.frames[2]]
    session.origin = {"model": "another"}
    write_labels(session, few, tmp_path)
    assert session.rendered[1:] == few.frames
    with pytest.raises(UserError, match="was not rendered here"):
        write_labels(session, few, open_scene(ROOMS["scannet"], rooms).folder)
    assert len(list((scene.folder / "label-filt").iterdir())) >= len(scene)


def replace_tests(split, frames):
    return split._replace(tests=[frame for frame in split.tests if frame in frames])


def test_ids_of_classes(rooms, replica_rooms):
    for labels in (open_scene(ROOMS["scannet"], rooms).labels, replica_labels(None), nyu40_labels()):
        ids = labels.ids()
        np.testing.assert_array_equal(labels.lookup[ids], np.arange(labels.ignore + 1))
    assert open_scene(ROOMS["scannet"], rooms).labels.ids()[4] == 2, "a chair is ScanNet's 2, not 23, an office chair"
    lacking = replace(nyu40_labels(), lookup=nyu40_labels().lookup[:39])
    with pytest.raises(UserError, match="no id for the class 'otherfurniture'"):
        lacking.ids()


@pytest.mark.parametrize("ids", [[1, 2], [1, 2, 2], [1, 2, -3], "no"])
def test_bad_ids_of_a_capture(rooms, tmp_path, ids):
    scene = open_scene(ROOMS["scannet"], rooms)
    write_labels(Truth(scene), frame_shots(scene, References(scene, 3)), tmp_path)
    path = tmp_path / "transforms.json"
    content = json.loads(path.read_text()) | {"semantic_ids": ids}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="semantic_ids should be 21 different ids"):
        read_capture(path)


def test_the_command(rooms, tmp_path, config, monkeypatch, capsys):
    cfg = config()
    torch.save({"network_state_dict": build_network(cfg, "cpu").state_dict()}, tmp_path / "model.pth")
    common = [
        f"data_root={rooms}", "cache=false", f"output_root={tmp_path}", "device=cpu", "depth_sample_num=8",
        "fine_depth_sample_num=8", "train_dataset_cfg.min_wn=3", "train_dataset_cfg.max_wn=4", "ray_mask_point_num=2",
    ]  # fmt: skip
    out = tmp_path / "dense"
    monkeypatch.setattr(Session, "render", lambda self, camera, mix: Truth(self.scene).render(camera, mix))
    arguments = ["--cfg", "configs/cra/test_cra_synthetic.yaml", "--model-path", str(tmp_path / "model.pth")]
    arguments += ["--scene", ROOMS["scannet"], "--out", str(out), "--width", "32"]

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["run_rendering.py", "labels", *arguments, *more, *common])
        commands.rendering()

    run("--score")
    said = capsys.readouterr().out
    assert "label-filt" in said and "mIoU of all frames: 0.9" in said, said
    with pytest.raises(UserError, match="this is a path"):
        run("--score", "--path", "orbit", "--out", str(tmp_path / "orbit"))
    with pytest.raises(UserError, match="--voxel is for"):
        run("--voxel", "0.1")


def test_a_network_really_writes_them(rooms, tmp_path, config):
    scene = open_scene("scannet/test_000/black_64", rooms)
    network = build_network(config(), torch.device("cpu"))
    from dataset.render_dataset import Needs

    session = Session(
        ViewRenderer(network),
        scene,
        Needs(depth=True),
        3,
        Classes((*scene.labels.names, "invalid"), scene.labels.colors),
    )
    shots = frame_shots(scene, References(scene, 3), 32)
    few = Shots(shots.cameras[:2], shots.mixes[:2], shots.numbers[:2], shots.frames[:2])
    scene.own_split = replace_tests(scene.split(), few.frames)
    write_labels(session, few, tmp_path)
    assert read_map(tmp_path / "label-filt" / f"{few.numbers[0]}.png").shape == shots.cameras.size
