"""Loading time of a training sample: python -m benchmarks.loader [--out data/bench_loader]

A scene of 1,500 frames of 1296x968 colour and labels and 640x480 depth, in ScanNet's layout (a few ray-cast frames,
linked under many names). A sample is 8 references and a query at 320x240. Cold: the files' pages were dropped from the
system's cache before. Prints a table as Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from dataset.cache import Cache
from dataset.database import open_scene
from dataset.loading import load
from dataset.render_dataset import Needs, TrainingSet
from dataset.synthetic.generate import Size, generate
from dataset.synthetic.raycast import Light
from dataset.synthetic.room import furnish, walk
from train.settings import SCHEMA
from utils.cli import command_parser, run_command
from utils.config import check_config
from utils.files import write_text
from utils.images import write_image

FRAMES, RENDERED, SAMPLES = 1500, 12, 40
NAME = "scannet/train_000/black_320"


def make_scene(root: Path) -> None:
    folder = root / "scannet" / "train_000"
    if (folder / "pose" / f"{FRAMES - 1}.txt").is_file():
        return
    generate(root, "scannet", Size({"train": 1}, RENDERED, (968, 1296), Light(0.3, 8, 3), 1))
    for path in (folder / "depth").iterdir():
        write_image(
            path, cv2.resize(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (640, 480), interpolation=cv2.INTER_NEAREST)
        )
    for number in range(RENDERED, FRAMES):
        for kind, suffix in (("color", "jpg"), ("depth", "png"), ("label-filt", "png")):
            source = folder / kind / f"{number % RENDERED}.{suffix}"
            target = folder / kind / f"{number}.{suffix}"
            if not target.is_file():
                shutil.copyfile(source, target)
    for number, pose in enumerate(walk(furnish(0), FRAMES, 0)):
        write_text(
            folder / "pose" / f"{number}.txt", "\n".join(" ".join(f"{x:.9g}" for x in row) for row in pose) + "\n"
        )


def drop_pages(*roots: Path) -> None:
    """Ask the system to drop the files' pages from its cache."""
    os.sync()
    for root in roots:
        for path in root.rglob("*"):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)


def configure(root: Path, cache: bool):
    return check_config(
        {
            "data_root": str(root),
            "cache": cache,
            "cache_root": str(root / "cache"),
            "train_set_list": [NAME],
            "val_set_list": [],
        },
        SCHEMA,
    )


def milliseconds_a_sample(dataset: TrainingSet, start: int) -> float:
    times = []
    for index in range(start, start + SAMPLES):
        begin = time.perf_counter()
        dataset[index]
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times)


def worker_memory(dataset: TrainingSet) -> tuple[float, float]:
    """Return peak resident and private (anonymous) MiB of a worker process after 60 samples."""
    batches = load(dataset, range(60), 1, "cpu")
    peak = private = 0.0
    for _ in batches:
        for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
            fields = dict(
                line.split(":", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines() if ":" in line
            )
            peak = max(peak, int(fields["VmHWM"].split()[0]) / 1024)
            private = max(private, int(fields["RssAnon"].split()[0]) / 1024)
    return peak, private


def seconds_to_open(root: Path, cache: Cache | None) -> float:
    begin = time.perf_counter()
    open_scene(NAME, root, cache)
    return time.perf_counter() - begin


def times(root: Path) -> list[tuple[str, str]]:
    """Return what opening and a sample take, without and with a cache, cold and warm: rows of the table."""
    make_scene(root)
    shutil.rmtree(root / "cache", ignore_errors=True)
    cv2.setNumThreads(1)  # as in a worker
    plain, cached = configure(root, False), configure(root, True)
    rows = []
    drop_pages(root)
    rows.append(("open, no cache, cold", f"{seconds_to_open(root, None) * 1000:.0f} ms"))
    rows.append(("open, no cache, warm", f"{seconds_to_open(root, None) * 1000:.0f} ms"))
    dataset = TrainingSet(plain, 0, Needs(depth=True))
    drop_pages(root)
    rows.append(("sample, no cache, cold", f"{milliseconds_a_sample(dataset, 0):.1f} ms"))
    rows.append(("sample, no cache, warm", f"{milliseconds_a_sample(dataset, 0):.1f} ms"))
    dataset = TrainingSet(cached, 0, Needs(depth=True))
    rows.append(("sample, cache being filled", f"{milliseconds_a_sample(dataset, 0):.1f} ms"))
    scene = dataset.scenes[0]
    for start in range(0, len(scene), 50):
        scene.views(scene.frame_ids[start : start + 50], depth=True, labels=True)
    drop_pages(root)
    rows.append(("open, cache, cold", f"{seconds_to_open(root, Cache.of(cached)) * 1000:.0f} ms"))
    rows.append(("open, cache, warm", f"{seconds_to_open(root, Cache.of(cached)) * 1000:.0f} ms"))
    drop_pages(root)
    rows.append(("sample, cache, cold", f"{milliseconds_a_sample(dataset, 0):.1f} ms"))
    rows.append(("sample, cache, warm", f"{milliseconds_a_sample(dataset, 0):.1f} ms"))
    return rows


def memory(root: Path) -> tuple[str, str]:
    """Return the row of a worker's memory, measured as a training run starts."""
    command = [sys.executable, "-m", "benchmarks.loader", "--out", str(root), "--only-memory"]
    peak, private = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return "a worker's peak memory", f"{peak:.0f} MiB resident, {private:.0f} MiB of it its own"


def main() -> None:
    parser = command_parser("python -m benchmarks.loader", __doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("data/bench_loader"), help="folder of the scene (default: %(default)s)"
    )
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    root = args.out
    if args.only_memory:
        print(*worker_memory(TrainingSet(configure(root, True), 0, Needs(depth=True))))
        return
    rows = [*times(root), memory(root)]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(
        f"`python -m benchmarks.loader`, commit {commit}, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores {platform.machine()}, "
        f"numpy {np.__version__}, OpenCV {cv2.__version__}; medians of {SAMPLES} samples in one process\n"
    )
    print("| what | |\n|---|---|")
    print("\n".join(f"| {what} | {value} |" for what, value in rows))


if __name__ == "__main__":
    run_command(main)
