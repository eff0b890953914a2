"""Options, parallel runs and tables shared by the benchmarks that train and evaluate several variants."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from utils.cli import add_overrides
from utils.errors import UserError

LAST_SECONDS = 60  # that a run has to save after it was told to stop
COLUMNS = {
    "psnr": ("PSNR", 2),
    "psnr_edges": ("at edges", 2),
    "psnr_holes": ("in holes", 2),
    "ssim": ("SSIM", 3),
    "ssim_edges": ("at edges", 3),
    "ssim_holes": ("in holes", 3),
    "miou": ("mIoU", 3),
    "total_accuracy": ("accuracy", 3),
    "depth_median": ("depth error", 4),
}


def parse(parser: argparse.ArgumentParser, assignments: tuple[str, ...] = ()) -> argparse.Namespace:
    """Add the options of all comparisons and parse the command line. Defaults are those set on the parser.

    assignments: list options whose entries have an equals sign themselves, so that no override can follow them.
    """
    parser.add_argument("--data", type=Path, required=True, help="folder of the rooms")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--cfg", help="YAML file of the config (default: %(default)s)")
    parser.add_argument("--variants", nargs="+", help="NAME, or NAME:key=value,key=value (default: the config itself)")
    parser.add_argument("--seeds", type=int, nargs="+", help="a run each (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="training steps of each run (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="loader processes of each run (default: %(default)s)")
    parser.add_argument("--at-once", type=int, help="runs at the same time (default: all on a GPU, one on a CPU)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="minutes after which all runs are stopped and saved (default: no limit)",
    )
    add_overrides(parser)
    args = parser.parse_intermixed_args()
    # argparse assigns key=value after a list option, such as --variants, to that list. They are moved to the overrides;
    # a variant has a colon before any equals sign.
    for option, values in list(vars(args).items()):
        if isinstance(values, list) and option not in ("overrides", *assignments):
            changes = [entry for entry in values if re.match(r"[\w.]+=", str(entry))]
            args.overrides += changes
            setattr(args, option, [entry for entry in values if entry not in changes])
    args.variants = args.variants or parser.get_default("variants")
    return args


def parse_variant(entry: str, cfg: str) -> tuple[str, str, tuple[str, ...]]:
    """Parse `name:key=value,key=value` into a name, its config, and its changes to that config."""
    name, _, changes = entry.partition(":")
    parts = re.split(r",(?=\s*[A-Za-z_][\w.]*=)", changes) if changes else []  # not the commas inside a list
    if not re.fullmatch(r"[\w.-]+", name) or not all("=" in part for part in parts):
        raise UserError(f"--variants: '{entry}' should be a name, or name:key=value,key=value")
    own = dict(part.strip().split("=", 1) for part in parts)
    return name, own.pop("cfg", cfg), tuple(f"{key}={value}" for key, value in own.items())


def settings(args: argparse.Namespace, cfg: str, changes: Sequence[str]) -> list[str]:
    """Return the options of the config that all commands of a variant share."""
    out = args.out
    roots = [f"data_root={args.data}", f"output_root={out / 'model'}", f"cache_root={out / 'cache'}"]
    return ["--cfg", cfg, *roots, f"worker_num={args.workers}", *args.overrides, *changes]


def flat(summary: dict) -> dict[str, float]:
    """Return the numbers of a method, classes per image as published."""
    numbers = {name: value for name, value in summary.items() if isinstance(value, float)}
    return numbers | summary.get("per_image", {})


def row_of(rows: list[dict[str, float]], columns: dict[str, tuple[str, int]]) -> str:
    """Return the cells of a table's row, the mean and the range of all rows; columns: of `COLUMNS`."""
    return " | ".join(cell([row.get(name) for row in rows], places) for name, (_, places) in columns.items())


def cell(values: list[float | None], places: int) -> str:
    values = [value for value in values if value is not None]
    return with_range(tuple(values), places) if values else "–"


def with_range(values: tuple[float, ...], places: int) -> str:
    """Return the mean, and the lowest and highest of several."""
    mean = f"{statistics.mean(values):.{places}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{places}f} to {max(values):.{places}f})"


@dataclass
class Launcher:
    """Starts commands on one GPU after the other, of those that CUDA_VISIBLE_DEVICES leaves, until `minutes` are over,
    `at_once` of them at a time.

    at_once: None for all on a GPU, one without.
    """

    at_once: int | None
    minutes: float
    started: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        self.deadline = time.monotonic() + self.minutes * 60

    def each(self, work: Callable, jobs: Sequence) -> None:
        """Call `work` for every job, each in a thread of its own. Raise the first exception."""
        on_gpu = torch.cuda.is_available()
        self.at_once = max(1, min(len(jobs), self.at_once or (len(jobs) if on_gpu else 1)))
        with ThreadPoolExecutor(self.at_once) as pool:
            futures = [pool.submit(work, job) for job in jobs]
        for future in futures:
            future.result()

    def run(self, command: list[str], log: Path) -> bool:
        """Run a script of this checkout with its arguments; what it says goes to `log`.

        Return False if there was no time for it. Raise UserError if it fails.
        """
        if time.monotonic() > self.deadline:
            return False
        with open(log, "w") as file:
            file.write(shlex.join(command) + "\n")
            file.flush()
            process = subprocess.Popen([sys.executable, *command], stdout=file, stderr=file, env=self._environment())
            try:
                code = process.wait(min(self.deadline - time.monotonic(), threading.TIMEOUT_MAX))
            except subprocess.TimeoutExpired:
                stop(process)
                return False
        if code:
            raise UserError(f"{log.stem} failed: see {log}")
        return True

    def _environment(self) -> dict[str, str]:
        """Return environment variables that assign a GPU and a number of threads to a command."""
        threads = str(max(1, (os.cpu_count() or 1) // (self.at_once or 1)))
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = given.split(",") if given else [str(i) for i in range(max(1, torch.cuda.device_count()))]
        with self.lock:
            gpu = gpus[self.started % len(gpus)]
            self.started += 1
        own = {"OMP_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": threads}
        return {**os.environ, **own, "CUDA_VISIBLE_DEVICES": gpu}


def stop(process: subprocess.Popen) -> None:
    """Terminate the runs; training saves when it is told to stop."""
    process.terminate()
    try:
        process.wait(LAST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
