"""All keys that a config may have, put together from where each belongs."""

from __future__ import annotations

from dataset import render_dataset
from network import renderer, view_renderer
from train import evaluator, schedule, step, trainer
from utils.config import Setting, no_effect

SCHEMA = {
    "name": Setting("unnamed", str),  # of the run: its folder below output_root
    "output_root": "data/model",
    "device": Setting("auto", str),  # auto: cuda where there is one
    "worker_num": Setting(None, int, minimum=0),  # decoding processes; None: by the number of cores
    "seed": Setting(0, int, minimum=0),
    "ignore_label": Setting(None, int),  # None: the class after the last, as it must be
    "semantic_color_map": Setting(None, list),  # (K+1) x RGB; None: the dataset's own colours
    **render_dataset.DEFAULTS,
    **renderer.DEFAULTS,
    **view_renderer.DEFAULTS,
    **schedule.DEFAULTS,
    **step.DEFAULTS,
    **trainer.DEFAULTS,
    **evaluator.DEFAULTS,
    **no_effect("use_depth_loss", "use_dr_loss", "use_dr_fine_loss", "multi_gpus"),
}
