"""Bodies of the commands for training and evaluation: parse, load the config, call."""

from __future__ import annotations

import argparse

import torch

from network.backend import Backend
from network.view_renderer import ViewRenderer
from train.evaluator import evaluate, labels_of
from train.pictures import PanelWriter
from train.report import report, summary_table, write_report
from train.run import choose_device, class_colors, load_trained, require_classes_of, run_folder, test_sets
from train.settings import SCHEMA
from train.trainer import Trainer
from utils.cli import add_overrides, command_parser
from utils.config import load_config
from utils.errors import UserError
from utils.logging import say


def _parser(prog: str, description: str, *examples: str) -> argparse.ArgumentParser:
    parser = command_parser(prog, description, *examples)
    parser.add_argument("--cfg", required=True, help="YAML file of the config; docs/configuration.md explains its keys")
    add_overrides(parser)
    return parser


def training() -> None:
    parser = _parser(
        "run_training.py",
        "Train a network on many scenes, or fine-tune one on a single scene.\n\n"
        "Checkpoints, logs and pictures go to <output_root>/<name>, data/model/<name> by\n"
        "default. The same command goes on from the latest checkpoint there.",
        "python run_training.py --cfg configs/cra/train_cra_scannet.yaml total_step=100000",
    )
    args = parser.parse_intermixed_args()
    Trainer(load_config(args.cfg, SCHEMA, args.overrides)).run()


def evaluation() -> None:
    parser = _parser(
        "run_evaluation.py",
        "Render the test frames of the scenes in val_set_list and score them: PSNR (dB),\n"
        "SSIM, mIoU, accuracy, and the error of depth.\n\n"
        "Tables (results.md, results.json) and pictures go to <output_root>/<name>.",
        "python run_evaluation.py --cfg configs/cra/test_cra_scannet.yaml --model-path data/model/<name>/model_best.pth",
    )
    parser.add_argument("--model-path", required=True, help="weights to score: a .pth or .safetensors file")
    args = parser.parse_intermixed_args()
    evaluate_model(load_config(args.cfg, SCHEMA, args.overrides), args.model_path)


def evaluate_model(cfg, model_path: str) -> None:
    """Score a checkpoint on `val_set_list`: write panels and tables to the run's folder, and print the summary
    table."""
    device, folder = choose_device(cfg), run_folder(cfg)
    network, checkpoint = load_trained(cfg, device, model_path)
    sets = test_sets(cfg)
    if not sets:
        raise UserError("`val_set_list` names no scenes to evaluate on")
    scenes = [test.scene for test in sets]
    require_classes_of(checkpoint, scenes)
    colors = class_colors(cfg, scenes)
    with PanelWriter(folder / "panels", colors, labels_of(sets)) as write_panel:
        renderer = ViewRenderer(network, Backend.for_rendering(cfg.renderer, device), cfg.ray_batch_num)
        result = evaluate(renderer, sets, device, cfg.worker_num, cfg.baselines, write_panel)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    content = report(result, {"name": cfg.name, "model": str(model_path), "step": checkpoint.step, "device": name})
    write_report(content, folder)
    say(summary_table(content))
    say(f"\nnumbers:  {folder / 'results.md'} and results.json\npictures: {folder / 'panels'}")
