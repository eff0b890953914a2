"""The whole loop in a few minutes: `python -m train.demo` makes rooms, trains on them and renders one never seen."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from dataset.synthetic.generate import SIZES, generate
from train.commands import evaluate_model
from train.settings import SCHEMA
from train.trainer import Trainer
from utils.cli import run_command
from utils.config import load_config
from utils.logging import say

ROOT = Path("data/demo")
CFG = "configs/plus/base.yaml"
# Without a GPU the same network is trained on fewer rays, samples and references, or it would take hours.
CPU_SCALE = [
    "total_step=500",
    "train_dataset_cfg.train_ray_num=256",
    "train_dataset_cfg.min_wn=5",
    "train_dataset_cfg.max_wn=6",
    "depth_sample_num=16",
    "fine_depth_sample_num=16",
    "lr_cfg.lr_init=2e-3",
    "lr_cfg.warmup_steps=20",
    "ema_decay=0.98",
]
GPU_SCALE = ["total_step=1500"]


def main() -> None:
    on_gpu = torch.cuda.is_available()
    say("1/3 generating furnished rooms")
    generate(ROOT, "scannet", SIZES["demo"], device="cuda" if on_gpu else "cpu", workers=os.cpu_count() or 1)
    common = [f"data_root={ROOT}", f"output_root={ROOT / 'model'}", *(GPU_SCALE if on_gpu else CPU_SCALE)]
    say("2/3 training on 8 of them")
    trainer = Trainer(load_config(CFG, SCHEMA, [*common, "name=train", f"train_set_list={ROOT / 'train.txt'}"]))
    trainer.run()
    say("3/3 rendering a room that the network has never seen")
    test = ["name=test", f"val_set_list={ROOT / 'test.txt'}", "baselines=true"]
    evaluate_model(load_config(CFG, SCHEMA, [*common, *test]), str(trainer.checkpoints.latest))


if __name__ == "__main__":
    run_command(main)
