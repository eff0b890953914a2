"""Trains networks that differ in one thing on the same synthetic rooms, and compares them on rooms never seen.

python -m benchmarks.compare [--variants depth learned_depth …] [--steps 1000] [--mvsnet mvsnet_pl.ckpt] [key=value …]

Generates rooms, trains one network a variant (at the same time, shared among the GPUs, if there are any), scores all on
the same frames, times one frame after the other, and writes a table and training curves. What exists is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.common import median_milliseconds, provenance
from benchmarks.plot_curve import draw, read_scalars
from dataset.synthetic.generate import SIZES, Size, generate
from network.view_renderer import ViewRenderer
from train.run import choose_device, load_trained, test_sets
from train.settings import SCHEMA
from utils.config import load_config
from utils.errors import UserError
from utils.files import write_text

RAYS = 1024
VARIANTS = {  # title, and what is different from the config
    "depth": ("sensor depth", []),
    "depth_exact": ("sensor depth, trained and rendered in float32", ["precision=fp32", "renderer=exact"]),
    "depth_two_queries": (
        "sensor depth, two query views of half the rays a step",
        ["train_dataset_cfg.queries_per_step=2", f"train_dataset_cfg.train_ray_num={RAYS // 2}"],
    ),
    "cost_volume_published": ("cost volume, published MVSNet (frozen)", ["init_net_type=cost_volume"]),
    "cost_volume_scratch": ("cost volume from scratch", ["init_net_type=cost_volume", "mvsnet.frozen=false"]),
    "learned_depth": ("learned depth", ["init_net_type=learned_depth"]),
}
NEEDS_MVSNET = "cost_volume_published"
# Trained networks that are also rendered in another way: of which variant, title, and how.
FURTHER = {"depth_rendered_exactly": ("depth", "sensor depth, rendered in float32", ["renderer=exact"])}
TRAIN, TEST = "configs/cra/train_cra_synthetic.yaml", "configs/cra/test_cra_synthetic.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mvsnet", help=f"weights for {NEEDS_MVSNET}")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rooms", type=int, nargs=3, default=(20, 0, 5))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--image", type=int, nargs=2, default=(480, 640))
    parser.add_argument("--data", type=Path, default=Path("data/compare"))
    parser.add_argument("--workers", type=int, default=14, help="processes that make rooms")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[v for v in VARIANTS if v != NEEDS_MVSNET])
    parser.add_argument("--out", type=Path, help="folder for the table and the curves; else beside the data")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    if NEEDS_MVSNET in args.variants and not args.mvsnet:
        raise UserError(f"{NEEDS_MVSNET} needs --mvsnet")
    full = SIZES["full"]
    size = Size(dict(zip(full.rooms, args.rooms, strict=True)), args.frames, tuple(args.image), full.light)
    generate(args.data, "scannet", size, device="cuda" if torch.cuda.is_available() else "cpu", workers=args.workers)
    in_parallel({variant: training(args, variant) for variant in args.variants}, args.data)
    shown = {variant: (variant, *VARIANTS[variant]) for variant in args.variants}
    shown |= {name: entry for name, entry in FURTHER.items() if entry[0] in args.variants}
    in_parallel({f"test_{name}": testing(args, name, *entry) for name, entry in shown.items()}, args.data)
    out = args.out or args.data
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "compare.md", table(args, shown))
    logs = {VARIANTS[variant][0]: args.data / "model" / variant / "logs" for variant in args.variants}
    draw(logs, out / "compare.png")
    print((out / "compare.md").read_text())


def settings(args, variant: str) -> list[str]:
    weights = [f"mvsnet.weights={args.mvsnet}"] if variant == NEEDS_MVSNET else []
    return [
        f"data_root={args.data}",
        f"output_root={args.data / 'model'}",
        f"cache_root={args.data / 'cache'}",
        f"train_dataset_cfg.train_ray_num={RAYS}",
        *VARIANTS[variant][1],
        *weights,
        *args.overrides,
    ]


def training(args, variant: str) -> list[str]:
    own = [f"name={variant}", f"train_set_list={args.data / 'train.txt'}", "val_set_list=[]"]
    scale = [f"total_step={args.steps}", "worker_num=3", "save_interval=200"]
    return ["run_training.py", "--cfg", TRAIN, *settings(args, variant), *own, *scale]


def testing(args, name: str, variant: str, _title: str, changes: list[str]) -> list[str]:
    own = [f"name=test_{name}", f"val_set_list={args.data / 'test.txt'}", "baselines=false", "worker_num=3"]
    model = args.data / "model" / variant / "model.pth"
    return ["run_evaluation.py", "--cfg", TEST, "--model-path", str(model), *settings(args, variant), *changes, *own]


def in_parallel(commands: dict[str, list[str]], folder: Path) -> None:
    """Runs commands, on the GPUs in turn, or one after the other without one; what they say goes to <name>.log."""
    gpus = itertools.cycle(range(max(1, torch.cuda.device_count())))
    runs = {}
    for name, command in commands.items():
        log = open(folder / f"{name}.log", "w")  # noqa: SIM115 (as long as the process)
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(next(gpus))}
        runs[name] = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, env=environment)
        if not torch.cuda.is_available():
            runs[name].wait()
    failed = [name for name, run in runs.items() if run.wait()]
    if failed:
        raise UserError(f"{', '.join(failed)} failed: see {folder / failed[0]}.log")


def table(args, shown: dict[str, tuple[str, str, list[str]]]) -> str:
    header = ["variant", "PSNR", "SSIM", "mIoU", "accuracy", "ms a frame", "training, s"]
    lines = [f"{provenance(choose_device(load_config(TEST, SCHEMA)))}; {args.steps} steps", ""]
    lines += ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, (variant, title, changes) in shown.items():
        results = json.loads((args.data / "model" / f"test_{name}" / "results.json").read_text())
        scores = results["methods"]["S-Ray"]
        cells = [scores["psnr"], scores["ssim"], scores["per_image"]["miou"], scores["per_image"]["total_accuracy"]]
        cfg = load_config(TEST, SCHEMA, testing(args, name, variant, title, changes)[5:])
        steps = read_scalars(args.data / "model" / variant / "logs")["loss/total"]
        times = (
            f"{time_frames(cfg, args.data / 'model' / variant / 'model.pth'):.0f} | {steps[-1][2] - steps[0][2]:.0f}"
        )
        lines.append(
            f"| {title} | {cells[0]:.2f} | " + " | ".join(f"{cell:.3f}" for cell in cells[1:]) + f" | {times} |"
        )
    return "\n".join(lines) + "\n"


def time_frames(cfg, model: Path) -> float:
    """Median milliseconds of encoding the references and rendering one frame."""
    device = choose_device(cfg)
    network, _ = load_trained(cfg, device, str(model))
    renderer = ViewRenderer(network, cfg.renderer)
    test = test_sets(cfg)[0]
    batches = [test[i].to(device) for i in range(min(4, len(test)))]

    def run(i: int) -> None:
        batch = batches[i % len(batches)]
        renderer.render(renderer.encode(batch.references), batch.query.cameras)

    return median_milliseconds(run, len(test), device)


if __name__ == "__main__":
    main()
