"""Training on tiny rooms: the loss falls, runs resume exactly, and what can go wrong is caught."""

import math
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.plot_curve import read_scalars
from network.renderer import Renderer
from network.view_renderer import ViewRenderer
from network.weights import load_checkpoint
from train.checkpoint import checkpoint_content, load_network, save_checkpoint
from train.run import build_network
from train.schedule import build_optimizer, load_optimizer
from train.trainer import Trainer
from utils.errors import UserError


def weights(path):
    return load_checkpoint(path).network


def assert_same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def saved(config, tmp_path):
    """A small network's checkpoint and its config."""
    cfg = config()
    network = build_network(cfg, "cpu")
    save_checkpoint(tmp_path / "model.pth", checkpoint_content(network, build_optimizer(network, cfg), 7, 7, 0.5, cfg))
    return tmp_path / "model.pth", cfg, network


def test_the_loss_falls(config):
    cfg = config(total_step=60, train_log_step=60, save_interval=60, val_set_list=[], lr_cfg={"lr_init": 3e-3})
    trainer, totals = Trainer(cfg), []
    step = trainer.train_step
    trainer.train_step = lambda batch: totals.append(step(batch)) or totals[-1]
    trainer.run()
    losses = [sum(entry.losses.values()).item() for entry in totals]
    assert len(losses) == 60 and np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])


def test_the_termination_loss_brings_rays_to_the_measured_depth(config):
    def errors(steps, **changes):
        cfg = config(total_step=steps, train_log_step=50, save_interval=50, val_set_list=[], lr_cfg={"lr_init": 3e-3})
        cfg.update({"density_activation": "softplus", "density_bias": -2.0, **changes})
        trainer, entries = Trainer(cfg), []
        step = trainer.train_step
        trainer.train_step = lambda batch: entries.append(step(batch)) or entries[-1]
        trainer.run()
        assert ("termination_fine" in entries[0].losses) == ("termination_loss_scale" in changes)
        return [entry.measures["depth_median"].item() for entry in entries]

    errors(1, name="without")
    with_loss = errors(50, name="with", termination_loss_scale=0.5)
    assert np.mean(with_loss[-10:]) < 0.75 * np.mean(with_loss[:10])  # colours alone leave it where it is for long


def test_a_scene_without_depth_goes_without_the_termination_loss(config, rooms, tmp_path):
    shutil.copytree(rooms / "scannet" / "train_000", tmp_path / "data" / "scannet" / "train_000")
    shutil.rmtree(tmp_path / "data" / "scannet" / "train_000" / "depth")
    shutil.rmtree(tmp_path / "data" / "scannet" / "train_000" / "label-filt")
    changes = {"init_net_type": "learned_depth", "termination_loss_scale": 0.1, "total_step": 1, "val_set_list": []}
    names = ["scannet/train_000/black_64"]
    trainer = Trainer(config(data_root=str(tmp_path / "data"), train_set_list=names, **changes))
    trainer.start_or_resume()
    entry = trainer.train_step(trainer.training_set[0].to("cpu"))
    assert entry.losses["termination_fine"] == 0 and entry.measures["depth_median"].isnan()
    assert entry.losses["color_fine"] > 0


def test_depth_errors_are_logged_and_validated(config):
    changes = {"val_interval": 2, "val_set_list": ["scannet/val_000/black_64"]}  # smaller views have no holes
    trainer = Trainer(config(total_step=2, train_log_step=1, termination_loss_scale=0.1, **changes))
    trainer.run()
    scalars = read_scalars(trainer.folder / "logs")
    for name in ("loss/termination_coarse", "train/depth_median", "train/ended_early", "train/psnr"):
        assert [step for step, *_ in scalars[name]] == [1, 2]
    assert scalars["val/depth_median"][0][1] > 0 and {"val/psnr_edges", "val/psnr_holes"} < set(scalars)


def test_a_resumed_run_equals_an_uninterrupted_one(config):
    whole = Trainer(config(name="whole"))
    whole.run()
    Trainer(config(name="parts", total_step=3)).run()
    resumed = Trainer(config(name="parts"))
    resumed.run()
    assert resumed.step == whole.step == 6
    a, b = load_checkpoint(whole.checkpoints.latest), load_checkpoint(resumed.checkpoints.latest)
    assert_same(a.network, b.network)
    for old, new in zip(a.optimizer["state"].values(), b.optimizer["state"].values(), strict=True):
        assert torch.equal(old["exp_avg_sq"], new["exp_avg_sq"]) and old["step"] == new["step"]


def test_averaged_weights_are_what_is_kept_and_validated_and_a_resumed_run_keeps_averaging(config, monkeypatch):
    keys = {"ema_decay": 0.5, "lr_type": "cosine", "lr_cfg": {"lr_init": 1e-2, "warmup_steps": 2}, "val_interval": 6}
    whole, steps, rendered = Trainer(config(name="whole", **keys)), [], []
    step = whole.train_step

    def remembering(batch):
        log = step(batch)
        steps.append({name: value.clone() for name, value in whole.network.state_dict().items()})
        return log

    whole.train_step = remembering
    monkeypatch.setattr(
        "train.trainer.ViewRenderer", lambda network, *rest: rendered.append(network) or ViewRenderer(network, *rest)
    )
    started = {name: value.clone() for name, value in build_network(whole.cfg, "cpu").state_dict().items()}
    whole.run()
    expected = started
    for number, weights_then in enumerate(steps):
        decay = min(0.5, (1 + number) / (10 + number))
        expected = {name: decay * expected[name] + (1 - decay) * weights_then[name] for name in expected}
    kept = load_checkpoint(whole.checkpoints.latest)
    for name, value in expected.items():
        torch.testing.assert_close(kept.network[name], value, atol=1e-6, rtol=1e-4)
    assert_same(kept.trained, steps[-1])
    assert_same(kept.network, rendered[-1].state_dict())
    assert_same(load_checkpoint(whole.checkpoints.best).network, kept.network)

    stopped = Trainer(config(name="parts", **keys))
    step_of_stopped = stopped.train_step

    def stopping(batch):
        if stopped.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_of_stopped(batch)

    stopped.train_step = stopping
    stopped.run()
    resumed = Trainer(config(name="parts", **keys))
    resumed.run()
    again = load_checkpoint(resumed.checkpoints.latest)
    assert_same(again.network, kept.network)
    assert_same(again.trained, kept.trained)


def test_averaging_may_start_and_end_between_runs(config):
    Trainer(config(name="run", total_step=2)).run()
    plain = weights(Trainer(config(name="run")).checkpoints.latest)
    trainer = Trainer(config(name="run", total_step=2, ema_decay=0.9))
    trainer.start_or_resume()
    assert_same(trainer.model.state_dict(), plain)
    Trainer(config(name="run", total_step=4, ema_decay=0.9)).run()
    averaged = load_checkpoint(trainer.checkpoints.latest)
    without = Trainer(config(name="run", total_step=4))
    without.start_or_resume()
    assert without.model is without.network
    assert_same(without.network.state_dict(), averaged.trained)
    assert not torch.equal(
        averaged.trained["vis_encoder.out_conv.0.weight"], averaged.network["vis_encoder.out_conv.0.weight"]
    )


def test_worker_processes_give_the_same_run(config):
    here, there = Trainer(config(name="here", total_step=3)), Trainer(config(name="there", total_step=3, worker_num=2))
    here.run(), there.run()
    assert_same(weights(here.checkpoints.latest), weights(there.checkpoints.latest))


def test_a_signal_saves_and_the_next_run_goes_on(config, capsys):
    whole = Trainer(config(name="whole"))
    whole.run()
    stopped = Trainer(config(name="stopped", save_interval=100))
    step = stopped.train_step

    def interrupted(batch):
        if stopped.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batch)

    stopped.train_step = interrupted
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stopped.run()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert load_checkpoint(stopped.checkpoints.latest).step == 4
    assert "SIGTERM: saved step 4" in capsys.readouterr().out
    resumed = Trainer(config(name="stopped"))
    resumed.run()
    assert_same(weights(whole.checkpoints.latest), weights(resumed.checkpoints.latest))


def test_validation_keeps_the_best_model_and_the_best_metric_is_resumed(config):
    trainer = Trainer(config(total_step=4, val_interval=2))
    trainer.run()
    best = load_checkpoint(trainer.checkpoints.best)
    assert best.step in (2, 4) and best.best == trainer.best > 0 and math.isfinite(best.best)
    assert best.config["train_dataset_cfg"]["train_ray_num"] == 32
    assert list((trainer.folder / "val").rglob("*.jpg")) and list((trainer.folder / "logs").iterdir())
    again = Trainer(config(total_step=4))
    again.run()
    assert again.best == trainer.best


def test_fine_tuning_starts_from_a_model_and_says_what_was_loaded(config, saved, capsys):
    path, _, network = saved
    name = "scannet/val_000/black_64"
    trainer = Trainer(config(load_pretrain=str(path), train_set_list=[name], val_set_list=[name]))
    trainer.start_or_resume()
    assert_same(trainer.network.state_dict(), network.state_dict())
    assert trainer.step == 0 and "loaded 338, missing 0, left over 0" in capsys.readouterr().out
    assert not set(trainer.test_sets[0].split.tests) & set(trainer.training_set.frames[0])


def test_pretraining_without_the_new_layers_and_with_neuray_extras(saved, config):
    path, _, network = saved
    content = torch.load(path, weights_only=True)
    content["network_state_dict"] = {
        f"module.{name}": value for name, value in content["network_state_dict"].items() if "_new" not in name
    }
    content["network_state_dict"]["module.sph_fitter.weight"] = torch.zeros(3)
    content["best_para"] = np.float64(0.25)  # as the published files have it
    torch.save(content, path)
    other = build_network(config(seed=5), "cpu")
    checkpoint = load_checkpoint(path)
    report = load_network(other, checkpoint, allow_new_layers=True)
    assert checkpoint.best == 0.25 and report.left_over == ["sph_fitter.weight"]
    assert report.missing and all("_new" in name for name in report.missing)
    assert torch.equal(other.dist_decoder.mean_decoder[0].weight, network.dist_decoder.mean_decoder[0].weight)
    with pytest.raises(UserError, match="_new.* is missing"):
        load_network(other, checkpoint)


def test_differences_beyond_the_new_layers_are_errors_and_change_nothing(saved, config):
    path, _, _ = saved
    content = torch.load(path, weights_only=True)
    del content["network_state_dict"]["image_encoder.conv1.weight"]
    torch.save(content, path)
    other = build_network(config(seed=5), "cpu")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UserError, match="image_encoder.conv1.weight is missing"):
        load_network(other, load_checkpoint(path), allow_new_layers=True)
    assert_same(before, other.state_dict())


def test_another_number_of_classes(saved, config):
    path, _, _ = saved
    with pytest.raises(UserError, match=r"was trained for 20 classes, but the config asks for 51 \(num_classes\)"):
        load_network(Renderer(config(num_classes=51)), load_checkpoint(path))


class Evil:
    def __reduce__(self):
        return (os.system, ("echo evil > evil.txt",))


def test_files_that_are_no_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"network_state_dict": Evil()}, tmp_path / "code.pth")
    (tmp_path / "plain_code.pth").write_bytes(pickle.dumps(Evil()))
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"network_state_dict": {"a": torch.zeros(1000)}}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-900])
    for name, message in {
        "text": "not a checkpoint",
        "empty": "not a checkpoint",
        "code": "holds code",
        "list": "there is none",
        "plain_code": "holds code",
        "cut": "cut short",
        "missing": "no such checkpoint",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            load_checkpoint(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil.txt").exists()


def _save_with_little_disk(path, cfg):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    network = build_network(cfg, "cpu")
    try:
        save_checkpoint(path, checkpoint_content(network, build_optimizer(network, cfg), 8, 8, 0.6, cfg))
    except (UserError, OSError):
        os._exit(3)
    os._exit(0)


def _save_and_die(path, cfg):
    network = build_network(cfg, "cpu")
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    save_checkpoint(path, checkpoint_content(network, build_optimizer(network, cfg), 8, 8, 0.6, cfg))


@pytest.mark.parametrize(("target", "code"), [(_save_with_little_disk, 3), (_save_and_die, -9)])
def test_a_full_disk_or_a_kill_while_saving_leaves_the_old_file_good(target, code, saved):
    path, cfg, network = saved
    process = multiprocessing.get_context("spawn").Process(target=target, args=(path, cfg))
    process.start()
    process.join(120)
    assert process.exitcode == code
    checkpoint = load_checkpoint(path)
    assert checkpoint.step == 7
    assert_same(checkpoint.network, network.state_dict())


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_last_good_model(config):
    trainer = Trainer(config(total_step=6, save_interval=3, train_log_step=2))
    step = trainer.train_step

    def spoiled(batch):
        if trainer.step == 4:
            with torch.no_grad():
                next(trainer.network.parameters()).fill_(math.nan)
        return step(batch)

    trainer.train_step = spoiled
    with pytest.raises(UserError, match=r"step 5: the loss is nan \(scannet/train_00\d/black_64, frame \d+\)"):
        trainer.run()
    kept = load_checkpoint(trainer.checkpoints.latest)
    assert kept.step == 3 and all(value.isfinite().all() for value in kept.network.values())


def test_scenes_of_other_classes_are_refused(config, replica_rooms):
    with pytest.raises(UserError, match="has 51 classes, but num_classes is 20"):
        Trainer(config(data_root=str(replica_rooms), train_set_list=str(replica_rooms / "train.txt"), val_set_list=[]))
    with pytest.raises(UserError, match="agg_net_cfg.num_classes is 51 but num_classes is 20"):
        Trainer(config(agg_net_cfg={"num_classes": 51}))


def test_variants_of_the_network_train(config, replica_rooms):
    variants = [
        {"fine_depth_use_all": True},
        {"train_dataset_cfg": {"train_ray_num": 16, "min_wn": 3, "max_wn": 4, "queries_per_step": 3}},
        {"use_hierarchical_sampling": False},
        {"render_label": False, "loss": ["render"]},
        {
            "agg_net_cfg": {"use_ptrans": False},
            "fine_agg_net_cfg": {"ptrans_first": True},
            "dist_decoder_cfg": {"use_vis": False},
        },
        {
            "data_root": str(replica_rooms),
            "train_set_list": str(replica_rooms / "train.txt"),
            "val_set_list": [],
            "num_classes": 51,
        },
    ]
    for number, changes in enumerate(variants):
        trainer = Trainer(config(name=f"variant{number}", total_step=1, **changes))
        trainer.run()
        assert trainer.checkpoints.latest.is_file()


def test_several_query_views_share_their_references(config):
    data = {"train_ray_num": 16, "min_wn": 3, "max_wn": 4, "queries_per_step": 3}
    trainer = Trainer(config(train_dataset_cfg=data))
    trainer.start_or_resume()
    batch = trainer.training_set[0].to("cpu")
    assert len(batch.query) == 3 and len(batch.references) == 3 and batch.pixels.shape == (3, 16, 2)
    poses = torch.cat([batch.query.cameras.poses, batch.references.cameras.poses]).flatten(1)
    assert len(poses.unique(dim=0)) == 6  # no query is its own reference
    draws = trainer.network.sampler.draw(48, torch.Generator().manual_seed(0))
    together = trainer.network(batch.references, batch.query.cameras, batch.pixels, draws).final.color
    for i in range(3):
        camera = batch.query.cameras
        alone = replace(
            camera, poses=camera.poses[i : i + 1], Ks=camera.Ks[i : i + 1], depth_range=camera.depth_range[i : i + 1]
        )
        part = slice(16 * i, 16 * (i + 1))
        color = trainer.network(batch.references, alone, batch.pixels[i : i + 1], draws[part]).final.color
        torch.testing.assert_close(together[part], color, atol=1e-4, rtol=1e-3)


def test_precision_that_the_device_lacks_is_refused(config):
    with pytest.raises(UserError, match="bf16 needs a GPU"):
        Trainer(config(precision="bf16")).start_or_resume()


@pytest.mark.parametrize("name", ["", ".", "..", "../elsewhere", "/tmp/run"])
def test_a_run_writes_nowhere_but_below_its_output_root(config, name):
    with pytest.raises(UserError, match="`name` should be a folder name"):
        Trainer(config(name=name))


def test_colours_of_classes_from_the_config_are_a_colour_each_of_a_byte_a_channel(config):
    colors = [[number, 255 - number, 7] for number in range(21)]
    assert Trainer(config(semantic_color_map=colors)).colors.tolist() == colors
    for wrong in (colors[:20], [[300, 0, 0]] * 21, [[-1, 0, 0]] * 21, [["red"]] * 21, [[1, 2], [3]]):
        with pytest.raises(UserError, match="`semantic_color_map` should be 21 colours of 3 numbers from 0 to 255"):
            Trainer(config(semantic_color_map=wrong))


def test_a_run_does_not_go_on_with_another_optimiser(config):
    Trainer(config(total_step=1, val_set_list=[])).run()
    with pytest.raises(UserError, match=r"model.pth: its optimiser's state does not fit this config"):
        Trainer(config(total_step=2, val_set_list=[], num_classes=20, optimizer_type="sgd")).run()


def test_losses_of_the_first_pass_alone_leave_the_fine_networks_as_they_were(config):
    """Weight decay alone would ruin them."""
    trainer = Trainer(config(total_step=1, val_set_list=[], loss=["render"], use_nr_fine_loss=False))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.run()
    after = trainer.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("fine_"))
    assert not torch.equal(after["agg_net.agg_impl.rgb_fc.0.weight"], before["agg_net.agg_impl.rgb_fc.0.weight"])


def test_a_resumed_run_steps_as_its_config_says_now(config):
    """An optimiser's state brings what was learned, and not how the run that saved it computed a step."""
    network = torch.nn.Linear(3, 2)
    first = build_optimizer(network, config(optimizer_type="adam", lr_cfg={"optim_args": {"weight_decay": 0.0}}))
    network(torch.ones(1, 3)).sum().backward()
    first.step()
    second = build_optimizer(network, config(optimizer_type="adamw", lr_cfg={"optim_args": {"weight_decay": 0.3}}))
    load_optimizer(second, first.state_dict())
    assert all(group["weight_decay"] == 0.3 and group["decoupled_weight_decay"] for group in second.param_groups)
    assert torch.equal(second.state[network.weight]["exp_avg"], first.state[network.weight]["exp_avg"])
