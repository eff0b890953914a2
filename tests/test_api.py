"""The Python API, on untrained weights that lie where the shipped ones do."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

import semray
from dataset.database import open_scene
from dataset.synthetic.generate import SIZES, generate
from utils.errors import UserError

ROOM = "scannet/test_000"


@pytest.fixture
def field(stand_in, monkeypatch):
    monkeypatch.chdir(stand_in)
    return semray.load(device="cpu")


@pytest.fixture
def scene(field, rooms):
    return field.scene(ROOM, width=64, data_root=rooms)


def between(poses, first, second):
    """The pose of `first`, halfway to `second`."""
    pose = poses[first].copy()
    pose[:3, 3] = (poses[first, :3, 3] + poses[second, :3, 3]) / 2
    return pose


@pytest.fixture(scope="module")
def arrays(rooms):
    """Twelve frames of a room in memory: images, poses, K, depth in metres."""
    room = open_scene("scannet/test_000/black_64", rooms)
    frames = room.frame_ids[:12]
    views = room.views(frames, depth=True)
    images = views.images.permute(0, 2, 3, 1).numpy()
    return images, room.camera_to_world[:12], views.cameras.Ks[0].numpy(), views.depth[:, 0].numpy() / np.float32(1000)


def test_a_view_has_what_is_promised(scene):
    assert scene.size == (48, 64) and scene.poses.shape[1:] == (4, 4) and scene.K.shape == (3, 3)
    assert len(scene.class_names) == 21 and scene.class_names[-1] == "invalid" and scene.class_colors.shape == (21, 3)
    view = scene.render(between(scene.poses, 10, 11))
    assert view.color.shape == (48, 64, 3) and view.color.dtype == np.uint8
    assert view.depth.shape == (48, 64) and view.depth.dtype == np.float32 and 0.3 < np.median(view.depth) < 6
    assert view.seen.shape == (48, 64) and view.seen.dtype == bool and view.seen.mean() > 0.9
    assert view.probabilities.shape == (48, 64, 21)
    np.testing.assert_allclose(view.probabilities.sum(-1), 1, atol=1e-5)
    assert (view.classes == view.probabilities.argmax(-1)).all() and view.class_names == scene.class_names


def test_it_renders_the_room(scene, rooms):
    room = open_scene(f"{ROOM}/black_64", rooms)
    truth = room.views(room.frame_ids[10:11], depth=True)
    view = scene.render(scene.poses[10])
    error = np.abs(view.color.astype(float) - truth.images[0].permute(1, 2, 0).numpy())
    assert error.mean() < 12, "untrained, but the depth of the references says where things are"
    off = np.abs(view.depth / (truth.depth[0, 0].numpy() / 1000) - 1)
    assert np.median(off) < 0.05


def test_references_are_encoded_once(scene, monkeypatch):
    network = scene._session.renderer.network
    counted, encode = [], type(network).encode
    monkeypatch.setattr(type(network), "encode", lambda *args: counted.append(1) or encode(*args))
    first = scene.render(scene.poses[4])
    again = scene.render(torch.from_numpy(scene.poses[4]))
    assert len(counted) == 1 and (first.color == again.color).all()


def test_another_size_and_other_intrinsics(scene):
    pose = scene.poses[6]
    usual = scene.render(pose)
    larger = scene.render(pose, size=(96, 128))
    assert larger.color.shape == (96, 128, 3) and larger.probabilities.shape == (96, 128, 21)
    assert np.abs(larger.depth[::2, ::2] / usual.depth - 1).mean() < 0.05, "it is the same view"
    K = scene.K.copy()
    K[:2, 2] = 15.5, 11.5  # the middle of the picture, at the same scale
    part = scene.render(pose, torch.from_numpy(K), size=(24, 32))
    top, left = round(scene.K[1, 2] - 11.5), round(scene.K[0, 2] - 15.5)
    middle = usual.depth[top : top + 24, left : left + 32]
    assert np.median(np.abs(part.depth / middle - 1)) < 0.02


def test_what_no_reference_shows_is_not_seen(scene):
    away = scene.poses[0].copy()
    away[:3, 3] += 100.0
    assert not scene.render(away).seen.any()


@pytest.mark.parametrize("kind", ["arrays", "tensors", "floats", "lists"])
def test_images_in_memory_are_as_good_as_files(field, arrays, kind):
    images, poses, K, depth = arrays
    given = {
        "arrays": (images, poses, K, depth),
        "tensors": tuple(torch.from_numpy(np.array(values)) for values in (images, poses, K, depth)),
        "floats": (images / 255, poses, K, (depth * 1000).round().astype(np.uint16)),
        "lists": ([*map(torch.from_numpy, images)], [*poses], K.tolist(), [*depth]),
    }[kind]
    scene = field.scene_of_images(*given)
    assert scene.size == (48, 64) and scene.class_names[0] == "wall"
    kept = scene._session.scene.views(["3"], depth=True)
    assert (kept.images[0].permute(1, 2, 0).numpy() == images[3]).all()
    np.testing.assert_allclose(kept.depth[0, 0].numpy(), depth[3] * 1000, atol=1)
    view = scene.render(between(poses, 5, 6))
    reference = np.abs(view.color.astype(float) - images[5]).mean()
    assert reference < 25 and view.seen.mean() > 0.9
    small = field.scene_of_images(*given, width=48)
    assert small.size == (36, 48) and small.render(poses[5]).color.shape == (36, 48, 3)


def test_masked_and_few_images(field, arrays, capsys):
    images, poses, K, depth = (values[:2] if len(values) == 12 else values for values in arrays)
    masks = np.ones((2, 48, 64), bool)
    masks[:, :, :32] = False
    scene = field.scene_of_images(images, poses, K, depth, masks)
    assert "has 2 usable frames, so that 3 references cannot be used" in capsys.readouterr().err
    seen = scene.render(poses[0]).seen
    assert seen[:, 40:].mean() > 0.9 and seen[:, :24].mean() < 0.3


def test_a_folder_is_a_scene(field, tmp_path):
    generate(tmp_path, "transforms", replace(SIZES["tiny"], rooms={"train": 1}, frames=12))
    folder = tmp_path / "transforms/train_000"
    scene = field.scene(folder, width=48)
    assert scene.size == (36, 48) and len(scene.poses) >= 10
    assert field.scene(f"{folder}/black_64").size == (48, 64)
    assert scene.render(scene.poses[3]).color.shape == (36, 48, 3)
    assert not (tmp_path / "data").exists() and not list(tmp_path.rglob("*cache*"))


def test_a_checkpoint_is_a_model_too(stand_in, rooms):
    scene = semray.load(stand_in / "model.pth", device="cpu").scene(ROOM, 64, rooms)
    assert scene.render(scene.poses[0]).classes.shape == (48, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((12, 48, 64))}, r"images: should be \(N, h, w, 3\)"),
        ({"images": np.full((12, 48, 64, 3), 200.0)}, "floats should be from 0 to 1"),
        ({"images": np.zeros((12, 48, 64, 3), np.int64)}, "should be uint8"),
        ({"poses": np.tile(np.eye(4), (11, 1, 1))}, "12 images, but 11 poses"),
        ({"poses": np.full((12, 4, 4), np.nan)}, "pose 0 is not finite"),
        ({"K": np.eye(4)}, r"K should be \(3, 3\)"),
        ({"depth": np.ones((12, 40, 64), np.float32)}, r"depth is \(12, 40, 64\)"),
        ({"depth": None}, "model_nodepth.safetensors: the weights for scenes without depth are not there"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(field, arrays, change, message):
    given = dict(zip(("images", "poses", "K", "depth"), arrays, strict=True))
    with pytest.raises(semray.UserError, match=message):
        field.scene_of_images(**{**given, **change})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"camera_to_world": np.eye(3)}, "camera_to_world should be 4x4 numbers"),
        ({"camera_to_world": np.full((4, 4), np.nan)}, "camera_to_world is not finite"),
        ({"K": np.zeros((3, 3))}, "positive focal lengths"),
        ({"size": (0, 64)}, "size should be"),
    ],
)
def test_cameras_that_are_none_are_refused(scene, arguments, message):
    with pytest.raises(UserError, match=message):
        scene.render(**{"camera_to_world": scene.poses[0], **arguments})


def test_missing_files_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.files.REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="weights that come with the repository are not there"):
        semray.load()
    with pytest.raises(UserError, match=r"other.safetensors: there is no such checkpoint"):
        semray.load("other.safetensors")


def test_everything_public_is_typed_and_documented():
    for thing in (
        semray.load,
        semray.Field,
        semray.Scene,
        semray.View,
        *vars(semray.Field).values(),
        *vars(semray.Scene).values(),
    ):
        if not callable(thing) or getattr(thing, "__name__", "_").startswith("_"):
            continue
        assert thing.__doc__, thing
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            assert signature.return_annotation is not inspect.Signature.empty, thing
            names = [name for name, p in signature.parameters.items() if p.annotation is inspect.Parameter.empty]
            assert names in ([], ["self"]), thing
