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
# Without a GPU the same network is trained on fewer rays, samples and references, or it would take hours.
CPU_SCALE = [
    "total_step=500",
    "train_dataset_cfg.train_ray_num=192",
    "train_dataset_cfg.min_wn=5",
    "train_dataset_cfg.max_wn=6",
    "depth_sample_num=24",
    "fine_depth_sample_num=24",
    "lr_cfg.lr_init=2e-3",
    "lr_cfg.decay_step=350",  # a quieter end: what is rendered depends less on the last few samples
]
GPU_SCALE = ["total_step=1500"]


def main() -> None:
    on_gpu = torch.cuda.is_available()
    say("1/3 generating furnished rooms")
    generate(ROOT, "scannet", SIZES["demo"], device="cuda" if on_gpu else "cpu", workers=os.cpu_count() or 1)
    common = [f"data_root={ROOT}", f"output_root={ROOT / 'model'}", *(GPU_SCALE if on_gpu else CPU_SCALE)]
    say("2/3 training on 8 of them")
    trainer = Trainer(
        load_config(
            "configs/cra/train_cra_synthetic.yaml",
            SCHEMA,
            [*common, f"train_set_list={ROOT / 'train.txt'}", "val_set_list=[]"],
        )
    )
    trainer.run()
    say("3/3 rendering a room that the network has never seen")
    evaluate_model(
        load_config("configs/cra/test_cra_synthetic.yaml", SCHEMA, [*common, f"val_set_list={ROOT / 'test.txt'}"]),
        str(trainer.checkpoints.latest),
    )


if __name__ == "__main__":
    run_command(main)
