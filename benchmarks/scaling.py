"""Training throughput by the number of GPUs: python -m benchmarks.scaling [--processes 1 2] [--steps 150] [key=value …]

Each number of processes trains on the same rooms with the command that users type; what is timed are the steps after
the first ones, by the times in the run's own log. Prints a table as Markdown.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.common import NAME, make_room, provenance
from benchmarks.plot_curve import read_scalars
from train.run import choose_device
from train.settings import SCHEMA
from utils.cli import add_overrides, command_parser, run_command
from utils.config import check_config
from utils.errors import UserError
from utils.files import write_text

SKIPPED = 0.4  # of the steps: compilation, first reads


def main() -> None:
    parser = command_parser("python -m benchmarks.scaling", __doc__)
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes to time (default: 1 2)"
    )
    parser.add_argument("--steps", type=int, default=150, help="training steps of each run (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, default=Path("data/bench"), help="folder of the rooms (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="file for the table (default: only printed)")
    add_overrides(parser)
    args = parser.parse_intermixed_args()
    make_room(args.data)
    lines = ["| processes | steps/s | samples/s | times one |", "|---|---|---|---|"]
    rates = []
    for count in args.processes:
        rates.append(count * measure(args, count))
        lines.append(f"| {count} | {rates[-1] / count:.2f} | {rates[-1]:.2f} | {rates[-1] / rates[0]:.2f} |")
        print(lines[-1], flush=True)
    text = f"{provenance(choose_device(check_config({}, SCHEMA)))}\n\n" + "\n".join(lines) + "\n"
    if args.out:
        write_text(args.out, text)


def measure(args, count: int) -> float:
    """Return the steps per second of `count` processes."""
    name = f"scaling_{count}"
    command = [
        *[sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)],
        *["run_training.py", "--cfg", "configs/cra/train_cra_synthetic.yaml", f"name={name}", "val_set_list=[]"],
        *[f"data_root={args.data}", f"output_root={args.data / 'model'}", f"cache_root={args.data / 'cache'}"],
        *[f"train_set_list=[{NAME}]", f"total_step={args.steps}", "save_interval=100000", *args.overrides],
    ]
    logs = args.data / "model" / name / "logs"
    said = args.data / f"{name}.log"
    with said.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=file, env={"OMP_NUM_THREADS": "2", **os.environ})
    if done.returncode:
        raise UserError(f"{count} processes failed: see {said}")
    rows = read_scalars(logs)["loss/total"]
    rows = rows[int(SKIPPED * len(rows)) :]
    if len(rows) < 2:
        raise UserError(f"--steps {args.steps}: too few to time; give more, or a smaller train_log_step")
    return (rows[-1][0] - rows[0][0]) / (rows[-1][2] - rows[0][2])


if __name__ == "__main__":
    run_command(main)
