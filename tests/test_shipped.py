"""Weights to ship: what is in the file, where it is looked for, and what it renders."""

import json

import pytest
import torch
from safetensors import safe_open

from dataset.labels import SCANNET_CLASSES
from network.convert import inspect, ship
from network.weights import load_checkpoint
from train.run import load_trained
from train.shipped import MODEL, MODEL_WITHOUT_DEPTH, choose_model, model_config, shipped_model
from utils.errors import UserError
from utils.files import REPOSITORY
from viewing.references import one
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
    changes = [f"data_root={rooms}", "cache=false", "device=cpu"]
    views = []
    for file in (stand_in / "model.pth", stand_in / MODEL):
        session = open_session(model_config(file, changes), file, ROOM)
        assert session.references == 3 and session.classes.names[:2] == ("wall", "floor")
        camera = one(session.scene.cameras(session.scene.frame_ids), 2)
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
    with pytest.raises(UserError, match="vis_encoder.out_conv.0.weight holds numbers beyond half precision"):
        ship(tmp_path / "large.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_scene_gets_the_weights_for_what_it_has(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.files.REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{MODEL}: the weights that come with the repository are not there"):
        shipped_model(True)
    (tmp_path / MODEL).parent.mkdir(parents=True)
    (tmp_path / MODEL).symlink_to(stand_in / MODEL)
    assert shipped_model(True).name == shipped_model(False).name == "model.safetensors"
    (tmp_path / MODEL_WITHOUT_DEPTH).symlink_to(stand_in / MODEL)
    assert shipped_model(True).name == "model.safetensors" and shipped_model(False).name == "model_nodepth.safetensors"


def test_config_and_model_each_have_a_default(stand_in, rooms, monkeypatch):
    monkeypatch.chdir(stand_in)
    root = f"data_root={rooms}"
    cfg, model = choose_model(None, None, ROOM, [root, "seed=5"])
    assert str(model) == MODEL and cfg.sampler == "surfaces" and cfg.name == "sray_plus"
    assert (cfg.data_root, cfg.seed) == (str(rooms), 5)
    cfg, model = choose_model(str(REPOSITORY / "configs/plus/test_plus_scannet.yaml"), None, ROOM, [root])
    assert str(model) == MODEL and cfg.name == "test_plus_scannet"
    cfg, model = choose_model(None, "model.pth", ROOM, [root])
    assert str(model) == "model.pth" and cfg.lr_type == "cosine"
    with pytest.raises(UserError, match="unknown key `seeed`"):
        choose_model(None, None, ROOM, ["seeed=5"])


@pytest.mark.parametrize("name", [MODEL, MODEL_WITHOUT_DEPTH])
def test_what_ships_loads(name):
    file = REPOSITORY / name
    if not file.is_file():
        pytest.skip(f"there is no {name}")
    _, checkpoint = load_trained(model_config(file), torch.device("cpu"), file)
    assert checkpoint.classes and checkpoint.step > 1000
    assert sum(path.stat().st_size for path in file.parent.glob("*.safetensors")) <= LIMIT
    assert "/" not in json.dumps(load_checkpoint(file).config)
