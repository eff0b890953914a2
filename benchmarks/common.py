"""Views of a generated room and timing on the device, shared by the benchmarks."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import time
from datetime import date
from pathlib import Path

import torch

from dataset.synthetic.generate import Size, generate
from dataset.synthetic.raycast import Light
from train.settings import SCHEMA
from train.shipped import model_config
from utils.cli import add_overrides, command_parser
from utils.config import load_config
from viewing.session import Session, open_session

ROOM = Size({"train": 1}, 40, (480, 640), Light(0.5, 6, 2), 1)
NAME = "scannet/train_000/black_320"


def make_room(root: Path) -> None:
    """Generate one room of 40 frames at 640x480, `NAME`, in ScanNet's layout."""
    generate(root, "scannet", ROOM, device="cuda" if torch.cuda.is_available() else "cpu")


def model_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a benchmark of one file of weights: --model-path, --cfg, --debug and `key=value`."""
    parser = command_parser(prog, description)
    parser.add_argument("--cfg", help="YAML file of the config (default: the config inside the model's file)")
    parser.add_argument("--model-path", required=True, help="weights")
    add_overrides(parser)
    return parser


def session_of(model: str, cfg: str | None, scene: str, overrides: list[str]) -> Session:
    """Return a scene with the network of a file of weights in front; cfg: None for the one inside the file."""
    config = load_config(cfg, SCHEMA, overrides) if cfg else model_config(model, overrides)
    return open_session(config, model, scene)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_milliseconds(run, count: int, device: torch.device, warm_up: int = 3) -> float:
    """Return the median time in milliseconds of `run(i)` over `count` calls after `warm_up` of them, each until the
    device is done."""
    times = []
    for i in range(warm_up + count):
        synchronize(device)
        begin = time.perf_counter()
        run(i)
        synchronize(device)
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[warm_up:])


def peak_gib(device: torch.device) -> float:
    """Return the most memory that tensors took since the last call, in GiB."""
    if device.type != "cuda":
        return float("nan")
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return peak


def profile(run, count: int, path: Path, title: str, device: torch.device) -> None:
    """Append a table of the time of `count` calls of `run(i)`, kernel by kernel, to a file."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=activities) as recorded:
        for i in range(count):
            run(i)
        synchronize(device)
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = recorded.key_averages().table(sort_by=order, row_limit=45, max_name_column_width=90)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"# {title}\n{table}\n")


def provenance(device: torch.device) -> str:
    """Return device, commit, versions and date, as one line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return (
        f"{name}; commit {commit or 'unknown'}; torch {torch.__version__}; Python {platform.python_version()}; "
        f"{date.today()}"
    )
