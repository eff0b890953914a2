"""Demo of training in a few minutes: `python -m train.demo` generates rooms, trains on them and renders an unseen
room."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from dataset.synthetic.generate import SIZES, generate
from train.commands import evaluate_model
from train.settings import SCHEMA
from train.trainer import Trainer
from utils.cli import run_command
from utils.config import load_config
from utils.logging import say

ROOT = Path("data/demo_train")
CFG = "configs/plus/surfaces.yaml"
# Without a GPU the same network is trained on smaller and fewer rooms, smaller patches and fewer references, or it
# would take hours. It starts near what the references' depth shows, so that few steps are enough to see it learn.
CPU_ROOMS = replace(SIZES["demo"], rooms={"train": 4, "val": 0, "test": 1}, frames=40, image=(120, 160))
CPU_SCALE = [
    "total_step=60",
    "train_dataset_cfg.patch=[48, 64]",
    "train_dataset_cfg.min_wn=5",
    "train_dataset_cfg.max_wn=6",
    "lr_cfg.warmup_steps=10",
    "ema_decay=0.95",
]
GPU_SCALE = ["total_step=1500"]


def main() -> None:
    on_gpu = torch.cuda.is_available()
    say("1/3 generating furnished rooms")
    size = SIZES["demo"] if on_gpu else CPU_ROOMS
    generate(ROOT, "scannet", size, size.image[1], "cuda" if on_gpu else "cpu", workers=os.cpu_count() or 1)
    common = [f"data_root={ROOT}", f"output_root={ROOT / 'model'}", *(GPU_SCALE if on_gpu else CPU_SCALE)]
    say("2/3 training on all but one of them")
    trainer = Trainer(load_config(CFG, SCHEMA, [*common, "name=train", f"train_set_list={ROOT / 'train.txt'}"]))
    trainer.run()
    say("3/3 rendering a room that the network has never seen")
    test = ["name=test", f"val_set_list={ROOT / 'test.txt'}", "baselines=true"]
    evaluate_model(load_config(CFG, SCHEMA, [*common, *test]), str(trainer.checkpoints.latest))


if __name__ == "__main__":
    run_command(main)
