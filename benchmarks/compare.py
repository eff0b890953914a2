"""Trains networks that differ in one thing on the same synthetic rooms, and compares them on rooms never seen.

python -m benchmarks.compare [--variants depth learned_depth …] [--seeds 0 1 2] [--steps 1000] [--mvsnet mvsnet_pl.ckpt]
    [key=value …]

Generates rooms, trains a network for each variant and seed (in parallel, distributed over the GPUs, if there are any),
scores all on the same frames, times the rendering of single frames, and writes a table and training curves. Existing
rooms and runs are reused. Scores are means over the seeds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

import torch

from benchmarks.common import median_milliseconds, provenance
from benchmarks.plot_curve import draw, read_scalars
from benchmarks.runs import Launcher, with_range
from dataset.synthetic.generate import SIZES, Size, generate
from network.backend import Backend
from network.view_renderer import ViewRenderer
from train.run import choose_device, load_trained, test_sets
from train.settings import SCHEMA
from utils.cli import add_overrides, command_parser, run_command
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
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    make_rooms(args)
    in_parallel({run_name(v, seed): training(args, v, seed) for v in args.variants for seed in args.seeds}, args.data)
    shown = {variant: (variant, *VARIANTS[variant]) for variant in args.variants}
    shown |= {name: entry for name, entry in FURTHER.items() if entry[0] in args.variants}
    tests = {
        f"test_{run_name(name, seed)}": testing(args, name, seed, variant, changes)
        for name, (variant, _title, changes) in shown.items()
        for seed in args.seeds
    }
    in_parallel(tests, args.data)
    write_text(args.out / "compare.md", table(args, shown))
    draw(curves(args), args.out / "compare.png")
    print((args.out / "compare.md").read_text())


def parse() -> argparse.Namespace:
    parser = command_parser("python -m benchmarks.compare", __doc__)
    parser.add_argument("--mvsnet", help=f"weights for {NEEDS_MVSNET}, as published (default: none)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run each (default: 0)")
    parser.add_argument(
        "--rooms",
        type=int,
        nargs=3,
        default=(20, 0, 5),
        metavar=("TRAIN", "VAL", "TEST"),
        help="number of rooms (default: 20 0 5)",
    )
    parser.add_argument("--frames", type=int, default=60, help="frames of each room (default: %(default)s)")
    parser.add_argument(
        "--image",
        type=int,
        nargs=2,
        default=(480, 640),
        metavar=("HEIGHT", "WIDTH"),
        help="size in pixels (default: 480 640)",
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/compare"), help="folder of the rooms (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=14, help="processes that make rooms (default: %(default)s)")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=[v for v in VARIANTS if v != NEEDS_MVSNET],
        help=f"networks to compare (default: all but {NEEDS_MVSNET})",
    )
    parser.add_argument("--out", type=Path, help="folder for the table and the curves (default: beside the rooms)")
    add_overrides(parser)
    args = parser.parse_intermixed_args()
    if NEEDS_MVSNET in args.variants and not args.mvsnet:
        raise UserError(f"{NEEDS_MVSNET} needs --mvsnet")
    args.out = args.out or args.data
    return args


def make_rooms(args) -> None:
    full = SIZES["full"]
    size = Size(dict(zip(full.rooms, args.rooms, strict=True)), args.frames, tuple(args.image), full.light)
    generate(args.data, "scannet", size, device="cuda" if torch.cuda.is_available() else "cpu", workers=args.workers)


def in_parallel(commands: dict[str, list[str]], folder: Path) -> None:
    """Run commands, all at once on GPUs, one after the other without one; what they say goes to <name>.log."""
    launcher = Launcher(at_once=None, minutes=math.inf)
    launcher.each(lambda name: launcher.run(commands[name], folder / f"{name}.log"), list(commands))


def run_name(variant: str, seed: int) -> str:
    return f"{variant}_{seed}"


def log_folder(args, variant: str, seed: int) -> Path:
    return args.data / "model" / run_name(variant, seed) / "logs"


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


def training(args, variant: str, seed: int) -> list[str]:
    own = [f"name={run_name(variant, seed)}", f"seed={seed}", f"train_set_list={args.data / 'train.txt'}"]
    scale = ["val_set_list=[]", f"total_step={args.steps}", "worker_num=3", "save_interval=200"]
    return ["run_training.py", "--cfg", TRAIN, *settings(args, variant), *own, *scale]


def testing(args, name: str, seed: int, variant: str, changes: list[str]) -> list[str]:
    own = [
        f"name=test_{run_name(name, seed)}",
        f"val_set_list={args.data / 'test.txt'}",
        "baselines=false",
        "worker_num=3",
    ]
    model = args.data / "model" / run_name(variant, seed) / "model.pth"
    return ["run_evaluation.py", "--cfg", TEST, "--model-path", str(model), *settings(args, variant), *changes, *own]


def curves(args) -> dict[str, Path]:
    """Return the logs to draw: title -> folder."""
    return {
        VARIANTS[v][0] + (f", seed {seed}" if len(args.seeds) > 1 else ""): log_folder(args, v, seed)
        for v in args.variants
        for seed in args.seeds
    }


def table(args, shown: dict[str, tuple[str, str, list[str]]]) -> str:
    header = ["variant", "PSNR", "SSIM", "mIoU", "accuracy", "ms a frame", "training, s"]
    device = choose_device(load_config(TEST, SCHEMA))
    lines = [f"{provenance(device)}; {args.steps} steps; seeds {', '.join(map(str, args.seeds))}", ""]
    lines += ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, (variant, title, changes) in shown.items():
        scores = zip(*[scores_of(args, name, seed) for seed in args.seeds], strict=True)
        cells = [with_range(values, places) for values, places in zip(scores, (2, 3, 3, 3), strict=True)]
        command = testing(args, name, args.seeds[0], variant, changes)
        cfg = load_config(TEST, SCHEMA, command[5:])
        steps = [read_scalars(log_folder(args, variant, seed))["loss/total"] for seed in args.seeds]
        seconds = statistics.mean(rows[-1][2] - rows[0][2] for rows in steps)
        lines.append(f"| {title} | {' | '.join(cells)} | {time_frames(cfg, Path(command[4])):.0f} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def scores_of(args, name: str, seed: int) -> list[float]:
    results = json.loads((args.data / "model" / f"test_{run_name(name, seed)}" / "results.json").read_text())
    scores = results["methods"][results["network"]]
    return [scores["psnr"], scores["ssim"], scores["per_image"]["miou"], scores["per_image"]["total_accuracy"]]


def time_frames(cfg, model: Path) -> float:
    """Return the median milliseconds of encoding the references and rendering one frame."""
    device = choose_device(cfg)
    network, _ = load_trained(cfg, device, str(model))
    renderer = ViewRenderer(network, Backend.for_rendering(cfg.renderer, device))
    test = test_sets(cfg)[0]
    batches = [test[i].to(device) for i in range(min(4, len(test)))]

    def run(i: int) -> None:
        batch = batches[i % len(batches)]
        renderer.render(renderer.encode(batch.references), batch.query.cameras)

    return median_milliseconds(run, len(test), device)


if __name__ == "__main__":
    run_command(main)
