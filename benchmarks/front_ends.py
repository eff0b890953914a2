"""Compares the front ends on synthetic rooms, same steps and seed.

python -m benchmarks.front_ends --mvsnet data/model/mvsnet_pl.ckpt [--steps 800] [--data data/front_ends] [key=value …]

Generates rooms, trains one network a front end (at the same time, if there is a GPU to share), scores each on the same
unseen frames, times one frame after the other, and writes a table. What exists is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.common import median_milliseconds
from dataset.synthetic.generate import SIZES, Size, generate
from network.view_renderer import ViewRenderer
from network.weights import load_checkpoint
from train.checkpoint import load_network
from train.run import build_network, choose_device, test_sets
from train.settings import SCHEMA
from utils.config import load_config
from utils.files import write_text

VARIANTS = {
    "depth": ("sensor depth", []),
    "cost_volume_published": ("cost volume, published MVSNet (frozen)", ["init_net_type=cost_volume"]),
    "cost_volume_scratch": ("cost volume from scratch", ["init_net_type=cost_volume", "mvsnet.frozen=false"]),
    "learned_depth": ("learned depth", ["init_net_type=learned_depth"]),
}
TRAIN, TEST = "configs/cra/train_cra_synthetic.yaml", "configs/cra/test_cra_synthetic.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mvsnet", required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rooms", type=int, nargs=3, default=(20, 0, 5))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--image", type=int, nargs=2, default=(480, 640))
    parser.add_argument("--data", type=Path, default=Path("data/front_ends"))
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--only", choices=("train", "evaluate"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    full = SIZES["full"]
    size = Size(dict(zip(full.rooms, args.rooms, strict=True)), args.frames, tuple(args.image), full.light)
    generate(args.data, "scannet", size, device="cuda" if torch.cuda.is_available() else "cpu", workers=args.workers)
    if args.only != "evaluate":
        train(args)
    if args.only != "train":
        write_text(args.data / "front_ends.md", evaluate(args))
        print((args.data / "front_ends.md").read_text())


def common(args, variant: str) -> list[str]:
    weights = [f"mvsnet.weights={args.mvsnet}"] if variant == "cost_volume_published" else []
    return [
        f"data_root={args.data}",
        f"output_root={args.data / 'model'}",
        f"cache_root={args.data / 'cache'}",
        *VARIANTS[variant][1],
        *weights,
        *args.overrides,
    ]


def train(args) -> None:
    runs = {}
    for variant in args.variants:
        log = open(args.data / f"{variant}.log", "w")  # noqa: SIM115 (as long as the process)
        command = [
            sys.executable,
            "run_training.py",
            "--cfg",
            TRAIN,
            *common(args, variant),
            f"name={variant}",
            f"train_set_list={args.data / 'train.txt'}",
            "val_set_list=[]",
            f"total_step={args.steps}",
            "worker_num=3",
            "save_interval=200",
        ]
        runs[variant] = subprocess.Popen(command, stdout=log, stderr=log)
        if not torch.cuda.is_available():
            runs[variant].wait()
    for variant, run in runs.items():
        print(f"{variant}: exit code {run.wait()}", flush=True)


def evaluate(args) -> str:
    lines = ["| front end | PSNR | SSIM | mIoU | accuracy | ms a frame |", "|---|---|---|---|---|---|"]
    for variant in args.variants:
        title = VARIANTS[variant][0]
        model = args.data / "model" / variant / "model.pth"
        settings = [
            *common(args, variant),
            f"name=test_{variant}",
            f"val_set_list={args.data / 'test.txt'}",
            "baselines=false",
        ]
        command = [sys.executable, "run_evaluation.py", "--cfg", TEST, "--model-path", str(model), *settings]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results = json.loads((args.data / "model" / f"test_{variant}" / "results.json").read_text())
        scores = results["methods"]["S-Ray"]
        milliseconds = time_frames(load_config(TEST, SCHEMA, settings), model)
        lines.append(
            f"| {title} | {scores['psnr']:.2f} | {scores['ssim']:.3f} | {scores['per_image']['miou']:.3f} | "
            f"{scores['per_image']['total_accuracy']:.3f} | {milliseconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def time_frames(cfg, model: Path) -> float:
    """Median milliseconds of encoding the references and rendering one frame."""
    device = choose_device(cfg)
    network = build_network(cfg, device)
    load_network(network, load_checkpoint(model))
    renderer = ViewRenderer(network, cfg.renderer)
    test = test_sets(cfg)[0]
    batches = [test[i].to(device) for i in range(min(4, len(test)))]

    def run(i: int) -> None:
        batch = batches[i % len(batches)]
        renderer.render(renderer.encode(batch.references), batch.query.cameras)

    return median_milliseconds(run, len(test), device)


if __name__ == "__main__":
    main()
