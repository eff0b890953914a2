"""Weights to ship: what is in the file, where it is looked for, and what it renders."""

import json
import os
import shutil
import time
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

import semray
from dataset.labels import SCANNET_CLASSES
from dataset.synthetic.generate import SIZES, generate
from network.convert import inspect, portable, ship
from network.weights import load_checkpoint
from train.checkpoint import load_pretrained
from train.run import build_network, load_trained
from train.settings import SCHEMA
from train.shipped import MODEL, MODEL_WITHOUT_DEPTH, model_config, shipped_model
from utils.config import load_config, plain
from utils.errors import UserError
from utils.files import REPOSITORY
from viewing import commands
from viewing.session import open_session

ROOM = "scannet/test_000/black_64"
LIMIT = 13_000_000  # bytes, of all weights that ship


def test_the_file_holds_half_precision_the_network_and_no_path(stand_in):
    file = stand_in / MODEL
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
        kinds = {opened.get_tensor(name).dtype for name in opened.keys() if opened.get_tensor(name).is_floating_point()}  # noqa: SIM118
    assert kinds == {torch.float16} and file.stat().st_size < LIMIT
    assert str(stand_in) not in about["config"] and not {"data_root", "lr_cfg", "name"} & set(
        json.loads(about["config"])
    )
    assert tuple(json.loads(about["classes"])) == tuple(SCANNET_CLASSES)
    shown = inspect(file)
    assert shown["config"] == "inside" and shown["step"] == "7" and shown["classes"].startswith("20: wall, floor")


def test_it_renders_what_the_checkpoint_renders(stand_in, rooms):
    changes = [f"data_root={rooms}", "cache=false", "device=cpu", "floor_class=null"]
    views = []
    for file in (stand_in / "model.pth", stand_in / MODEL):
        session = open_session(model_config(file, changes), file, ROOM)
        assert session.references == 3 and session.classes.names[:2] == ("wall", "floor")
        camera = session.scene.cameras(session.scene.frame_ids).one(2)
        views.append(session.render(camera, [(1.0, tuple(session.scene.frame_ids[3:6]))]))
    full, half = views
    assert (full.color - half.color).abs().max() < 0.02 and not torch.equal(full.color, half.color)
    assert (full.logits - half.logits).abs().max() < 0.1


def test_what_cannot_be_shipped_is_refused(stand_in, tmp_path):
    content = torch.load(stand_in / "model.pth", weights_only=True)
    torch.save({**content, "config": None}, tmp_path / "bare.pth")
    with pytest.raises(UserError, match="bare.pth: has no config inside"):
        ship(tmp_path / "bare.pth", tmp_path / "out.safetensors")
    with pytest.raises(UserError, match="bare.pth: has no config inside; name the one"):
        model_config(tmp_path / "bare.pth")
    content["network_state_dict"]["vis_encoder.out_conv.0.weight"].fill_(1e6)
    torch.save(content, tmp_path / "large.pth")
    with pytest.raises(
        UserError, match="vis_encoder.out_conv.0.weight has values that are not finite in half precision"
    ):
        ship(tmp_path / "large.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_scene_gets_the_weights_for_what_it_has(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.files.REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{MODEL}: the weights that come with the repository are not there"):
        shipped_model(True)
    (tmp_path / MODEL).parent.mkdir(parents=True)
    (tmp_path / MODEL).symlink_to(stand_in / "nodepth.safetensors")
    assert shipped_model(True).name == shipped_model(False).name == "model.safetensors", "it does both"
    (tmp_path / MODEL).unlink()
    (tmp_path / MODEL).symlink_to(stand_in / MODEL)
    (tmp_path / MODEL_WITHOUT_DEPTH).symlink_to(stand_in / "nodepth.safetensors")
    assert shipped_model(True).name == "model.safetensors" and shipped_model(False).name == "model_nodepth.safetensors"


def test_weights_that_ship_know_which_class_floors_have(stand_in):
    assert model_config(stand_in / MODEL).floor_class == tuple(SCANNET_CLASSES).index("floor")
    assert model_config(stand_in / MODEL, ["floor_class=null"]).floor_class is None
    assert model_config(stand_in / "model.pth").floor_class is None, "its own config says so"


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A folder as a phone's app exports it: a transforms.json and images, here with depth."""
    root = tmp_path_factory.mktemp("capture")
    generate(root, "transforms", replace(SIZES["tiny"], rooms={"train": 1}, frames=12))
    return root / "transforms/train_000"


def render(monkeypatch, *words):
    """Run run_rendering.py; what it says of the film is what matters."""
    monkeypatch.setattr("sys.argv", ["run_rendering.py", *map(str, words)])
    commands.rendering()


FILM = ["--seconds", "0.1", "--fps", "20", "--out", "film.webp", "device=cpu", "cache=false"]


def test_a_folder_needs_no_config_and_no_model(stand_in, capture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utils.files.REPOSITORY", stand_in)
    render(monkeypatch, "video", "--scene", f"{capture}/black_64", *FILM)
    note = json.loads((tmp_path / "film/settings.json").read_text())
    assert MODEL in note["model"] and note["config"]["sampler"] == "surfaces" and note["size"] == [48, 64]
    render(monkeypatch, "mesh", "--scene", f"{capture}/black_64", "--views", 12, "--voxel", 0.1, "device=cpu")
    meshes = list((tmp_path / "data/model/sray_plus/renderings").rglob("mesh.ply"))
    assert len(meshes) == 1 and meshes[0].parent.name.startswith("transforms_train_000-")


def test_a_capture_without_depth_asks_for_weights_that_need_none(stand_in, capture, tmp_path, monkeypatch):
    content = json.loads((capture / "transforms.json").read_text())
    for frame in content["frames"]:
        del frame["depth_file_path"], frame["semantic_path"]
    shutil.copytree(capture, tmp_path / "phone")
    (tmp_path / "phone/transforms.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utils.files.REPOSITORY", stand_in)
    with pytest.raises(UserError, match=f"{MODEL_WITHOUT_DEPTH}: the weights for scenes without depth are not there"):
        render(monkeypatch, "video", "--scene", "phone/black_64", *FILM)
    (tmp_path / MODEL_WITHOUT_DEPTH).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / MODEL_WITHOUT_DEPTH).symlink_to(stand_in / "nodepth.safetensors")
    render(monkeypatch, "video", "--scene", "phone/black_64", *FILM)
    note = json.loads((tmp_path / "film/settings.json").read_text())
    assert note["config"]["init_net_type"] == "learned_depth" and "nodepth" in note["model"]


def test_a_distorted_capture_is_undistorted_once(stand_in, capture, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "bent"
    shutil.copytree(capture, folder)
    content = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").write_text(json.dumps({**content, "camera_model": "OPENCV", "k1": 0.05, "k2": 0.0}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utils.files.REPOSITORY", stand_in)
    render(monkeypatch, "video", "--scene", "bent/black_64", *FILM)
    assert "bent is distorted; an undistorted copy is written to" in capsys.readouterr().out
    (copy,) = (tmp_path / "data/transforms").iterdir()
    assert json.loads((copy / "transforms.json").read_text())["camera_model"] == "PINHOLE"
    scene = semray.load(device="cpu").scene("bent", width=64)
    assert scene.size == (48, 64) and "is distorted" not in capsys.readouterr().out
    later = time.time() + 10
    os.utime(folder / "transforms.json", (later, later))
    semray.load(device="cpu").scene("bent", width=64)
    assert "is distorted" in capsys.readouterr().out, "it has changed"


def test_config_and_model_each_have_a_default(stand_in, rooms, tmp_path, monkeypatch):
    opened = []

    class Noted(Exception):
        """Raised once the choice is known."""

    def note(cfg, model, scene):
        opened[:] = [cfg, str(model)]
        raise Noted

    monkeypatch.setattr(commands, "open_session", note)
    monkeypatch.chdir(stand_in)
    scene = ["video", "--scene", ROOM, f"data_root={rooms}"]
    for words, name, model in (
        ([], "sray_plus", MODEL),
        (["--cfg", REPOSITORY / "configs/plus/test_plus_scannet.yaml"], "test_plus_scannet", MODEL),
        (["--model-path", "model.pth"], "sray_plus", "model.pth"),
    ):
        with pytest.raises(Noted):
            render(monkeypatch, *scene, *words, "seed=5")
        cfg = opened[0]
        assert (opened[1], cfg.name, cfg.data_root, cfg.seed) == (model, name, str(rooms), 5)
        assert cfg.sampler == "surfaces"
    with pytest.raises(UserError, match="unknown key `seeed`"):
        render(monkeypatch, *scene, "seeed=5")


@pytest.mark.parametrize("name", [MODEL, MODEL_WITHOUT_DEPTH])
def test_what_ships_loads(name):
    file = REPOSITORY / name
    if not file.is_file():
        pytest.skip(f"there is no {name}")
    _, checkpoint = load_trained(model_config(file), torch.device("cpu"), file)
    assert checkpoint.classes and checkpoint.step > 1000
    assert sum(path.stat().st_size for path in file.parent.glob("*.safetensors")) <= LIMIT
    assert "/" not in json.dumps(load_checkpoint(file).config)


@pytest.mark.skipif(not (REPOSITORY / MODEL).is_file(), reason="there are no weights that ship")
@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs/plus").glob("ft_*.yaml")), ids=lambda path: path.stem)
def test_fine_tuning_starts_from_what_ships(path):
    cfg = load_config(path, SCHEMA)
    assert cfg.load_pretrain == MODEL
    shipped = load_checkpoint(REPOSITORY / MODEL)
    own = portable(plain(cfg))
    assert {key for key, value in shipped.config.items() if own[key] != value} <= {"num_classes"}
    report = load_pretrained(build_network(cfg, "cpu"), shipped)
    assert report.missing == [] or cfg.num_classes != len(shipped.classes)
