"""Configs: what loads, and what is said of what does not."""

from pathlib import Path

import pytest

from train.settings import SCHEMA
from utils import logging
from utils.config import check_config, load_config
from utils.errors import UserError

CONFIGS = sorted(Path("configs/cra").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def write(text, name="test.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_is_named_like_its_file(path):
    assert load_config(path, SCHEMA).name == path.stem


def test_the_settings_that_build_on_base_change_nothing_of_the_faithful_ones():
    plus, base = (load_config(path, SCHEMA) for path in ("configs/plus/base.yaml", "configs/base.yaml"))
    assert (plus.depth_range, plus.sample_spacing, plus.lr_type) == ("auto", "log", "cosine")
    assert (base.depth_range, base.sample_spacing, base.lr_type) == (None, "inverse", "exp_decay")
    assert base.density_activation == "relu" and not base.termination_loss_scale and not base.ema_decay


def test_a_published_file_loads_and_its_idle_keys_are_named_once(write, capsys):
    logging.forget()
    path = write("""
name: old
init_net_type: depth
use_depth_loss: false
agg_net_cfg: {label_hidden: [16], num_classes: 20, use_ptrans: true, ptrans_first: false, sem_only: true}
use_dr_loss: false
use_dr_fine_loss: false
use_nr_fine_loss: true
lr_cfg: {scale_new: 1.0, lr_init: 1.0e-3, decay_step: 5000, lr_min: 5.0e-5, optim_args: {weight_decay: 1.0e-5}}
train_dataset_cfg:
  resolution_type: lr
  type2sample_weights: {scannet_single: 1}
  train_database_types: ['scannet_single']
  aug_pixel_center_sample: true
  train_ray_num: 2048
val_set_list:
  -
    name: scene0376_02
    type: gen
    cfg:
      val_database_name: scannet/scene0376_02/black_320
""")
    cfg = load_config(path, SCHEMA)
    load_config(path, SCHEMA)
    warnings = capsys.readouterr().err.strip().splitlines()
    assert len(warnings) == 1
    for key in ("use_depth_loss", "use_dr_loss", "agg_net_cfg.sem_only", "train_dataset_cfg.aug_pixel_center_sample"):
        assert key in warnings[0]
    assert "use_nr_fine_loss" not in warnings[0]
    assert cfg.train_dataset_cfg.train_ray_num == 2048 and cfg.train_dataset_cfg.min_wn == 8
    assert "sem_only" not in cfg.agg_net_cfg


def test_a_file_changes_the_one_it_is_based_on(write):
    write("total_step: 7\nlr_cfg: {lr_init: 0.5, decay_step: 3}\n", "base.yaml")
    cfg = load_config(write("base: base.yaml\nlr_cfg: {decay_step: 4}\n"), SCHEMA)
    assert (cfg.total_step, cfg.lr_cfg.lr_init, cfg.lr_cfg.decay_step) == (7, 0.5, 4)


def test_base_yaml_says_what_the_code_does_without_it():
    cfg = load_config("configs/base.yaml", SCHEMA)
    defaults = check_config({}, SCHEMA)
    differing = {key for key in SCHEMA if cfg.get(key) != defaults.get(key)}
    assert differing == {"max_grad_norm", "init_net_cfg"}


def test_overrides_are_dotted_and_typed(write):
    path = write("name: x\n")
    cfg = load_config(
        path,
        SCHEMA,
        [
            "train_dataset_cfg.train_ray_num=64",
            "lr_cfg.lr_init=1e-4",
            "val_set_list=[]",
            "load_pretrain=null",
            "lr_cfg.decay_rate=1",
            "output_root=/tmp/a b",
            "train_set_list=[scannet/a/black_320]",
            "total_step=1e4",
        ],
    )
    assert cfg.train_dataset_cfg.train_ray_num == 64 and cfg.lr_cfg.lr_init == 1e-4 and cfg.val_set_list == []
    assert cfg.load_pretrain is None and cfg.lr_cfg.decay_rate == 1.0 and cfg.output_root == "/tmp/a b"
    assert cfg.train_set_list == ["scannet/a/black_320"] and cfg.total_step == 10000


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("train_ray_num: 3", [], r"test.yaml: unknown key `train_ray_num`"),
        ("total_steps: 3", [], r"test.yaml: unknown key `total_steps`; did you mean `total_step`\?"),
        ("lr_cfg: {lr_int: 3}", [], r"test.yaml: unknown key `lr_cfg.lr_int`; did you mean `lr_cfg.lr_init`\?"),
        ("total_step: many", [], r"test.yaml: `total_step` should be a whole number, but is text \('many'\)"),
        ("total_step: 1.5", [], r"`total_step` should be a whole number, but is a number \(1.5\)"),
        ("total_step: true", [], r"`total_step` should be a whole number, but is true or false"),
        ("total_step: -1", [], r"`total_step` should be at least 1, but is -1"),
        ("render_label: 1", [], r"`render_label` should be true or false, but is a whole number"),
        ("lr_cfg: 3", [], r"`lr_cfg` should be a section of keys, not a whole number"),
        ("lr_cfg: {lr_init: .nan}", [], r"`lr_cfg.lr_init` should be a finite number"),
        ("optimizer_type: lion", [], r"`optimizer_type` should be one of adam, adamw, sgd, but is 'lion'"),
        ("name: [a", [], r"test.yaml, line \d+: is not valid YAML"),
        ("- a\n- b", [], r"test.yaml: should hold `key: value` lines, but holds a list"),
        ("base: test.yaml", [], r"leads back to this file"),
        ("base: nowhere.yaml", [], r"nowhere.yaml: there is no such config file"),
        ("name: x", ["total_step"], r"'total_step' is not an override: write key=value"),
        ("name: x", ["total_step=lots"], r"the command line: `total_step` should be a whole number"),
        ("name: x", ["lr_cfg.nothing=3"], r"the command line: unknown key `lr_cfg.nothing`"),
        ("name: x", ["a=[1"], r"a=\[1: the value is not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(text, overrides, message, write):
    with pytest.raises(UserError, match=message) as caught:
        load_config(write(text), SCHEMA, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("overrides", [[], ["lr_cfg.decay_step=5"]])
def test_a_typo_is_blamed_on_the_file_that_has_it(write, overrides):
    """Whoever else changes the same section."""
    write("lr_cfg: {lr_int: 3, optim_args: {weight_decay: 0}}\n", "base.yaml")
    path = write("base: base.yaml\nlr_cfg: {decay_step: 4, lr_min: x}\n")
    with pytest.raises(UserError, match=r"base.yaml: unknown key `lr_cfg.lr_int`"):
        load_config(path, SCHEMA, overrides)
    write("lr_cfg: {lr_init: 3, optim_args: {weight_decay: 0}}\n", "base.yaml")
    with pytest.raises(UserError, match=r"test.yaml: `lr_cfg.lr_min` should be a number"):
        load_config(path, SCHEMA, overrides)


@pytest.mark.parametrize("value", ["false", "0", "''", "[]"])
def test_a_section_is_no_value(write, value):
    with pytest.raises(UserError, match=r"test.yaml: `lr_cfg` should be a section of keys, not "):
        load_config(write(f"lr_cfg: {value}\n"), SCHEMA)


def test_a_section_whose_lines_are_comments_is_empty(write):
    assert load_config(write("lr_cfg:\n  # lr_init: 3\n"), SCHEMA) == check_config({}, SCHEMA)


def test_a_missing_config(tmp_path):
    with pytest.raises(UserError, match="there is no such config file"):
        load_config(tmp_path / "no.yaml", SCHEMA)
