"""Duration of a training step, plain and fast side by side:

python -m benchmarks.train_step [--rays 1024 4096] [--modes plain exact fast] [key=value …]

The config is that of the synthetic rooms, changed by what is given. A step is everything from a batch on the device to
updated weights: losses, gradients, clipping, Adam. Batches change from step to step. `plain` is the modules in torch
alone, in float32, kernel by kernel; `exact` has our kernels and is compiled (on a GPU), float32; `fast` is the same in
bfloat16. First step: with compilation, from an empty cache if TORCHINDUCTOR_CACHE_DIR is empty. Prints a table as
Markdown; --profile adds where the time of the last one goes.
"""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path

import torch

from benchmarks.common import NAME, make_room, median_milliseconds, peak_gib, profile, provenance, synchronize
from dataset.render_dataset import TrainingSet
from network.backend import Backend
from network.init_net import needs
from train.run import build_network, choose_device
from train.settings import SCHEMA
from train.step import TrainingStep
from utils.cli import add_overrides, command_parser, run_command
from utils.config import check_config, load_config
from utils.devices import has_bf16
from utils.files import write_text

TRAIN = "configs/cra/train_cra_synthetic.yaml"
BATCHES = 4


def main() -> None:
    parser = command_parser("python -m benchmarks.train_step", __doc__)
    parser.add_argument("--rays", type=int, nargs="+", default=[1024, 4096], help="rays of a step (default: 1024 4096)")
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=("plain", "exact", "fast"),
        default=["plain", "exact", "fast"],
        help="backends to time (default: all)",
    )
    parser.add_argument("--steps", type=int, default=20, help="steps whose median is taken (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, default=Path("data/bench"), help="folder of the room (default: %(default)s)"
    )
    parser.add_argument("--profile", type=Path, help="file for the times of the kernels (default: none)")
    parser.add_argument("--out", type=Path, help="file for the table (default: only printed)")
    add_overrides(parser)
    args = parser.parse_intermixed_args()
    make_room(args.data)
    device = choose_device(check_config({}, SCHEMA))
    modes = [mode for mode in args.modes if mode != "fast" or has_bf16(device)]
    lines = ["| rays | mode | ms a step | rays/s | memory, GiB | first step, s |", "|---|---|---|---|---|---|"]
    for rays, mode in product(args.rays, modes):
        lines.append(measure(args, device, rays, mode))
        print(lines[-1], flush=True)
    table = f"{provenance(device)}\n\n" + "\n".join(lines) + "\n"
    print("\n" + table)
    if args.out:
        write_text(args.out, table)


def settings(args, device: torch.device, rays: int, mode: str) -> list[str]:
    return [
        f"data_root={args.data}",
        f"train_set_list=[{NAME}]",
        "cache=false",
        f"train_dataset_cfg.train_ray_num={rays}",
        f"precision={'bf16' if mode == 'fast' else 'fp32'}",
        f"compile={str(device.type == 'cuda' and mode != 'plain').lower()}",
    ]


def measure(args, device: torch.device, rays: int, mode: str) -> str:
    cfg = load_config(TRAIN, SCHEMA, [*settings(args, device, rays, mode), *args.overrides])
    data = TrainingSet(cfg, 0, needs(cfg))
    batches = [data[i].to(device) for i in range(BATCHES)]
    network = build_network(cfg, device)
    backend = Backend(device) if mode == "plain" else Backend.for_training(cfg, device)
    step = TrainingStep(network, cfg, backend)
    peak_gib(device)
    begin = time.perf_counter()
    step(batches[0], 0, 0)
    synchronize(device)
    first = time.perf_counter() - begin

    def run(i: int) -> None:
        step(batches[i % BATCHES], i, i)

    milliseconds = median_milliseconds(run, args.steps, device)
    if args.profile:
        profile(run, 3, args.profile, f"{rays} rays, {mode}: three steps", device)
    return (
        f"| {rays} | {mode} | {milliseconds:.1f} | {rays / milliseconds * 1000:,.0f} | {peak_gib(device):.2f} | "
        f"{first:.1f} |"
    )


if __name__ == "__main__":
    run_command(main)
