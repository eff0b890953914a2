"""Weights from files of all kinds, and training without a depth sensor."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file

from dataset.database import open_scene
from dataset.render_dataset import Needs, read_references
from dataset.synthetic.generate import Size, generate
from dataset.synthetic.raycast import Light
from network.convert import inspect, main
from network.front_ends.cost_volume import load_mvsnet
from network.front_ends.learned_depth import GROUPS, PlaneSweep, log_planes
from network.front_ends.mvsnet import MVSNet, plane_depths, warp_to_planes
from network.geometry import nearest_views, scaled_cameras
from network.ops.sweep import agreement
from network.renderer import Renderer
from network.weights import infer_config, load_checkpoint, read_mvsnet
from train.checkpoint import checkpoint_content, load_network, save_checkpoint
from train.commands import evaluate_model
from train.run import build_network
from train.schedule import build_optimizer
from train.trainer import Trainer
from utils.errors import UserError
from viewing.session import open_session

PUBLISHED_MVSNET = Path(__file__).parent.parent.parent / "shared" / "checkpoints" / "mvsnet_pl.ckpt"


class Evil:
    def __reduce__(self):
        return (os.system, ("echo evil > evil.txt",))


def convert(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["convert", *map(str, arguments)])
    main()


@pytest.fixture
def lightning(tmp_path):
    """A checkpoint like MVSNet's published one, and the weights in it."""
    torch.manual_seed(1)
    state = MVSNet().state_dict()
    content = {
        "state_dict": {f"model.{name}": value for name, value in state.items()},
        "epoch": 3,
        "hparams": {"n_views": 3},
        "optimizer_states": [{"state": {}}],
        "checkpoint_callback_best": 10.0,
    }
    torch.save(content, tmp_path / "mvsnet.ckpt", _use_new_zipfile_serialization=False)
    return tmp_path / "mvsnet.ckpt", state


def test_a_lightning_checkpoint_and_its_safetensors(lightning, tmp_path, monkeypatch):
    path, state = lightning
    convert(monkeypatch, "mvsnet", path, tmp_path / "out.safetensors")
    for file in (path, tmp_path / "out.safetensors"):
        mvsnet = MVSNet()
        load_mvsnet(mvsnet, file)
        assert all(torch.equal(mvsnet.state_dict()[name], value) for name, value in state.items())
        assert "MVSNet weights" in inspect(file)["file"]


@pytest.mark.skipif(not PUBLISHED_MVSNET.is_file(), reason="the published weights are not here")
def test_the_published_mvsnet():
    mvsnet = MVSNet()
    load_mvsnet(mvsnet, PUBLISHED_MVSNET)
    assert len(read_mvsnet(PUBLISHED_MVSNET)) == 89


def test_no_code_is_run_from_any_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": MVSNet().state_dict(), "hparams": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="holds code"):
        read_mvsnet(tmp_path / "evil.ckpt")
    (tmp_path / "evil.safetensors").write_bytes((tmp_path / "evil.ckpt").read_bytes())
    with pytest.raises(UserError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "evil.safetensors")
    assert not (tmp_path / "evil.txt").exists()


def test_weights_of_another_network_are_refused(lightning, tmp_path):
    _, state = lightning
    del state["feature.feature.bias"]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not weights of this MVSNet .feature.feature.bias differs"):
        load_mvsnet(MVSNet(), tmp_path / "other.safetensors")


def test_a_checkpoint_as_safetensors_is_the_same_model(config, tmp_path, monkeypatch, capsys):
    cfg = config(num_classes=7)
    network = build_network(cfg, "cpu")
    save_checkpoint(
        tmp_path / "model.pth", checkpoint_content(network, build_optimizer(network, cfg), 42, 42, 0.25, cfg)
    )
    convert(monkeypatch, "checkpoint", tmp_path / "model.pth", tmp_path / "model.safetensors")
    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    other = build_network(config(num_classes=7, seed=3), "cpu")
    load_network(other, checkpoint)
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert (checkpoint.step, checkpoint.best, checkpoint.config["num_classes"]) == (42, 0.25, 7)
    assert yaml.safe_load((tmp_path / "model.yaml").read_text())["num_classes"] == 7
    capsys.readouterr()
    convert(monkeypatch, "inspect", tmp_path / "model.safetensors")
    shown = capsys.readouterr().out
    assert (
        "S-Ray" in shown
        and "classes      7" in shown
        and "step         42" in shown
        and "0.2500" in shown
        and "front end    depth" in shown
    )


def test_a_published_file_is_understood_without_a_config(config, tmp_path):
    changes = {
        "init_net_type": "cost_volume",
        "dist_decoder_cfg": {"use_vis": False},
        "agg_net_cfg": {"use_ptrans": False},
    }
    network = Renderer(config(**changes))
    content = {
        "network_state_dict": network.state_dict(),
        "optimizer_state_dict": {},
        "step": 5,
        "best_para": np.float64(0.5),
    }
    torch.save(content, tmp_path / "model_best.pth")
    checkpoint = load_checkpoint(tmp_path / "model_best.pth")
    shown = infer_config(checkpoint.network)
    load_network(Renderer(config(**shown)), checkpoint)
    assert (
        shown["init_net_type"] == "cost_volume"
        and not shown["dist_decoder_cfg"]["use_vis"]
        and shown["fine_dist_decoder_cfg"]["use_vis"]
    )
    assert checkpoint.best == 0.5 and inspect(tmp_path / "model_best.pth")["config"].startswith("not inside")


@pytest.mark.parametrize("wrap", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}"])
def test_names_that_wrappers_put_before_parameters_are_taken_off(config, tmp_path, wrap):
    state = Renderer(config()).state_dict()
    content = {"network_state_dict": {wrap.format(name): value for name, value in state.items()}, "step": np.int64(7)}
    torch.save(content, tmp_path / "model.pth")
    checkpoint = load_checkpoint(tmp_path / "model.pth")
    assert checkpoint.network.keys() == state.keys() and checkpoint.step == 7


def test_a_checkpoint_of_another_program_is_called_that(tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="another program's, such as PyTorch Lightning"):
        load_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize("front_end", ["depth", "cost_volume", "learned_depth"])
def test_every_front_end_is_known_by_its_weights(config, front_end):
    network = Renderer(config(init_net_type=front_end))
    assert infer_config(network.state_dict())["init_net_type"] == front_end


def test_inspection_reads_the_config_and_the_names_inside(config, tmp_path, monkeypatch):
    cfg = config(num_classes=3, agg_net_cfg={"ptrans_first": True})
    network = build_network(cfg, "cpu")
    content = checkpoint_content(
        network, build_optimizer(network, cfg), 4, 4, 0.5, cfg, classes=("wall", "floor", "sofa")
    )
    save_checkpoint(tmp_path / "model.pth", content)
    convert(monkeypatch, "checkpoint", tmp_path / "model.pth", tmp_path / "model.safetensors")
    for name in ("model.pth", "model.safetensors"):
        shown = inspect(tmp_path / name)
        assert shown["classes"] == "3: wall, floor, sofa" and shown["config"] == "inside"
        assert shown["attention"] == "Cross-Reprojection Attention, views first"
    del content["config"], content["classes"]
    save_checkpoint(tmp_path / "old.pth", content)
    shown = inspect(tmp_path / "old.pth")
    assert shown["classes"] == "3, without names" and shown["attention"] == "Cross-Reprojection Attention"


def test_classes_of_other_names_are_refused_though_there_are_as_many(config, tmp_path):
    trainer = Trainer(config(total_step=1))
    trainer.run()
    names = load_checkpoint(trainer.checkpoints.latest).classes
    assert len(names) == 20 and names[0] == "wall"
    content = torch.load(trainer.checkpoints.latest, weights_only=True)
    content["classes"][0] = "hedge"
    save_checkpoint(tmp_path / "garden.pth", content)
    wrong = r"its class 0 is 'wall', but .*garden.pth was trained with 'hedge'"
    with pytest.raises(UserError, match=wrong):
        evaluate_model(config(name="garden", val_metric=["iou"]), str(tmp_path / "garden.pth"))
    with pytest.raises(UserError, match=wrong):
        open_session(config(), str(tmp_path / "garden.pth"), "scannet/val_000/black_64")
    save_checkpoint(trainer.checkpoints.latest, content)
    with pytest.raises(UserError, match="its class 0 is 'wall', but .*model.pth was trained with 'hedge'"):
        Trainer(config(total_step=2)).run()


def test_a_capture_without_labels_has_the_classes_of_the_model(config, rooms, tmp_path):
    shutil.copytree(rooms / "scannet", tmp_path / "data" / "scannet", ignore=shutil.ignore_patterns("label-filt"))
    cfg = config(data_root=str(tmp_path / "data"))
    network = build_network(cfg, "cpu")
    classes = tuple(f"thing {i}" for i in range(20))
    for name, known in (("model.pth", classes), ("old.pth", ())):
        content = checkpoint_content(network, build_optimizer(network, cfg), 4, 4, 0.5, cfg, known)
        save_checkpoint(tmp_path / name, content)
    names = [
        open_session(cfg, str(tmp_path / name), "scannet/val_000/black_64").classes.names
        for name in ("model.pth", "old.pth")
    ]
    assert names[0] == (*classes, "invalid") and names[1][0] == "wall"


def test_a_plane_sweep_finds_what_lies_on_the_plane():
    """Two cameras side by side see a pattern on a wall at 2 m: moved by the plane at 2 m, the images agree."""
    planes = plane_depths(torch.tensor([[1.0, 4.0]]))[0]
    assert planes[0] == 1 and planes[-1] == pytest.approx(4)
    np.testing.assert_allclose(np.diff(1 / planes.numpy()), -0.75 / 63, rtol=1e-3)
    baseline, focal = 0.3, 40.0

    def image(shift):
        x = torch.arange(32.0)[None, :].expand(24, 32) + shift
        return torch.stack([torch.sin(x * 0.5), torch.cos(x * 0.3)])

    transform = torch.diag(torch.tensor([1.0, 1, 1, 1]))
    transform[0, 3] = -baseline * focal
    source = image(baseline * focal / 2.0)  # what the camera 0.3 m to the right sees
    warped = warp_to_planes(source, transform, torch.tensor([1.0, 2.0, 4.0]))
    error = (warped[..., 4:-8] - image(0)[:, None, :, 4:-8])[..., 8:].abs().mean((0, 2, 3))
    assert error[1] < 0.02 < 0.1 < min(error[0], error[2])


@pytest.mark.parametrize("pool", [2, 20])
def test_sources_are_the_nearest_other_frames_of_the_pool(rooms, pool):
    scene = open_scene("scannet/train_000/black_64", rooms)
    frames = scene.frame_ids[:pool]
    views = read_references(scene, frames[:2], frames, Needs(sources=3))
    expected = min(3, pool - 1)
    assert views.depth is None and views.sources.index.shape == (2, expected)
    together = sorted({*views.sources.index.flatten().tolist()})
    assert together == list(range(len(views.sources.views)))
    for row, frame in zip(views.sources.index, frames[:2], strict=True):
        centres = views.sources.views.cameras.centres()[row]
        distance = np.linalg.norm(centres.numpy() - scene.centres([frame]), axis=1)
        others = np.sort(
            np.linalg.norm(scene.centres([f for f in frames if f != frame]) - scene.centres([frame]), axis=1)
        )
        np.testing.assert_allclose(np.sort(distance), others[:expected], atol=1e-4)


def test_without_a_sensor_only_the_depth_that_tests_are_scored_by_is_opened(config, rooms, tmp_path, lightning):
    shutil.copytree(rooms / "scannet", tmp_path / "data" / "scannet")
    tests = open_scene("scannet/val_000/black_64", rooms).split().tests
    for path in (tmp_path / "data" / "scannet").glob("*/depth/*.png"):
        if path.parts[-3] != "val_000" or path.stem not in tests:
            path.write_bytes(b"")
    cfg = config(
        data_root=str(tmp_path / "data"),
        init_net_type="cost_volume",
        mvsnet={"weights": str(lightning[0])},
        total_step=2,
        val_interval=2,
        val_metric=["iou"],
    )
    trainer = Trainer(cfg)
    assert [test.needs for test in trainer.test_sets] == [Needs(sources=3)]
    trainer.run()
    assert trainer.unreadable == 0
    before = lightning[1]["feature.conv0.conv.weight"]
    after = load_checkpoint(trainer.checkpoints.latest).network
    assert torch.equal(after["init_net.mvsnet.feature.conv0.conv.weight"], before)
    assert torch.equal(
        after["init_net.mvsnet.feature.conv0.bn.running_mean"], lightning[1]["feature.conv0.bn.running_mean"]
    )


def test_mvsnet_trains_from_scratch_or_says_that_it_lacks_weights(config):
    with pytest.raises(UserError, match="mvsnet.frozen.*no mvsnet.weights"):
        Trainer(config(init_net_type="cost_volume")).start_or_resume()
    with pytest.raises(UserError, match="`mvsnet.weights`: there is no file nowhere.ckpt"):
        Trainer(config(init_net_type="cost_volume", mvsnet={"weights": "nowhere.ckpt"})).start_or_resume()
    trainer = Trainer(config(init_net_type="cost_volume", mvsnet={"frozen": False}, total_step=1))
    before = trainer.network.init_net.mvsnet.feature.conv0.conv.weight.clone()
    trainer.run()
    assert not torch.equal(before, trainer.network.init_net.mvsnet.feature.conv0.conv.weight)


def test_sizes_that_the_cost_volume_cannot_halve_are_padded_and_cropped(config, rooms):
    network = Renderer(config(init_net_type="cost_volume")).eval()
    scene = open_scene("scannet/train_000/black_48", rooms)  # 48x36: padded to 48x48, then to 64x64 for the volume
    views = read_references(scene, scene.frame_ids[:2], scene.frame_ids[:6], Needs(sources=3)).to("cpu")
    encoding = network.encode(views)
    assert encoding.features.shape == (2, 12, 12, 64) and encoding.features.isfinite().all()
    assert replace(views, sources=None).sources is None


def test_the_sweep_compares_what_lies_on_each_plane(rooms):
    """With colours as features, the plane nearest to the true depth agrees best."""
    scene = open_scene("scannet/train_000/black_64", rooms)
    views = scene.views(scene.frame_ids[:4], depth=True).to("cpu")
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(32, 3, generator=rng)
    features = torch.einsum("fc,vchw->vfhw", mixing, views.images - 0.5)
    matched = F.normalize(features.unflatten(1, (GROUPS, -1)), dim=2)
    planes = log_planes(views.cameras.depth_range)
    volumes = agreement(matched.flatten(1, 2), GROUPS, views.cameras, planes.exp(), nearest_views(views.cameras))
    volume = volumes[1].mean(0)
    true = views.depth[1, 0].log()
    index = (planes[1][:, None, None] - true).abs().argmin(0)
    at_truth = volume.gather(0, index[None])[0]
    seen = at_truth != 0
    far_off = volume.gather(0, (index - 12)[None])[0]
    assert (
        seen.float().mean() > 0.7
        and at_truth[seen].median() > 0.95
        and at_truth[seen].mean() > far_off[seen].mean() + 0.1
    )


@pytest.mark.parametrize(("training", "reached"), [(True, 4), (False, 7)])
def test_the_sweep_matches_more_views_when_it_renders(rooms, training, reached):
    scene = open_scene("scannet/train_000/black_64", rooms)
    cameras = scaled_cameras(scene.views(scene.frame_ids[:9]).to("cpu").cameras, (12, 16))
    sweep = PlaneSweep(8).train(training)
    features = torch.randn(9, 8, 12, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sweep(features, cameras)[0].sum().backward()
    read = features.grad.abs().amax((1, 2, 3)) > 0
    assert read.nonzero().flatten().tolist() == list(range(reached + 1)), "the walk visits its frames in order"


def test_learned_depth_trains_by_the_sensor_or_by_reprojection_and_tests_without_depth(config, rooms, tmp_path):
    trainer = Trainer(
        config(name="sensor", init_net_type="learned_depth", total_step=2, val_interval=2, val_metric=["iou"])
    )
    assert trainer.training_set[0].references.depth is not None and trainer.test_sets[0][0].references.depth is None
    before = trainer.network.init_net.sweep_new.match.weight.clone()
    trainer.run()
    assert not torch.equal(before, trainer.network.init_net.sweep_new.match.weight)
    shutil.copytree(rooms / "scannet", tmp_path / "data" / "scannet", ignore=shutil.ignore_patterns("depth"))
    trainer = Trainer(
        config(name="colour", data_root=str(tmp_path / "data"), init_net_type="learned_depth", total_step=1)
    )
    trainer.start_or_resume()
    entry = trainer.train_step(trainer.training_set[0].to("cpu"))
    assert entry.losses["depth"] > 0 and entry.losses["depth"].isfinite()


def test_scenes_without_labels_train_colour_alone(config, rooms, tmp_path):
    shutil.copytree(rooms / "scannet", tmp_path / "data" / "scannet", ignore=shutil.ignore_patterns("label-filt"))
    trainer = Trainer(config(data_root=str(tmp_path / "data"), total_step=2, val_interval=2))
    before = trainer.network.agg_net.agg_impl.semantic_fc2_new.weight.clone()
    trainer.run()
    assert torch.equal(before, trainer.network.agg_net.agg_impl.semantic_fc2_new.weight)  # not even by weight decay
    assert load_checkpoint(trainer.checkpoints.latest).step == 2
    assert set(trainer.train_step(trainer.training_set[0].to("cpu")).losses) == {"color_coarse", "color_fine"}


def test_two_label_sets_in_one_run_are_refused(config, rooms, tmp_path):
    generate(tmp_path / "data", "transforms", Size({"train": 1}, 16, (48, 64), Light(1.0, 2, 1), 1))
    shutil.copytree(rooms / "scannet", tmp_path / "data" / "scannet")
    path = tmp_path / "data" / "transforms" / "train_000" / "transforms.json"
    both = ["scannet/train_000/black_64", "transforms/train_000/black_64"]
    Trainer(config(data_root=str(tmp_path / "data"), train_set_list=both))  # the same names in the same order
    path.write_text(path.read_text().replace('"sofa"', '"couch"'))
    with pytest.raises(
        UserError, match=r"transforms/train_000/black_64: its class 5 is 'couch', but 'sofa' in scannet/train_000"
    ):
        Trainer(config(data_root=str(tmp_path / "data"), train_set_list=both))
