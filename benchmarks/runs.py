"""Runs many commands of this checkout at the same time: trainings and evaluations that are to be compared."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from utils.errors import UserError

LAST_SECONDS = 60  # for a run that is told to stop


@dataclass
class Launcher:
    """Starts commands on one GPU after the other, of those that CUDA_VISIBLE_DEVICES leaves, until `minutes` are over, `at_once` of them at a time.

    at_once: None for all on a GPU, one without.
    """

    at_once: int | None
    minutes: float
    started: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        self.deadline = time.monotonic() + self.minutes * 60

    def each(self, work: Callable, jobs: Sequence) -> None:
        """Call `work` for every job, each in a thread of its own. Raises what the first one that failed raised."""
        on_gpu = torch.cuda.is_available()
        self.at_once = max(1, min(len(jobs), self.at_once or (len(jobs) if on_gpu else 1)))
        with ThreadPoolExecutor(self.at_once) as pool:
            futures = [pool.submit(work, job) for job in jobs]
        for future in futures:
            future.result()

    def run(self, command: list[str], log: Path) -> bool:
        """Run a script of this checkout with its arguments; what it says goes to `log`.

        Returns False if there was no time for it. Raises UserError if it fails.
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
        """Return what says which GPU, and how many threads, a command takes."""
        threads = str(max(1, (os.cpu_count() or 1) // (self.at_once or 1)))
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = given.split(",") if given else [str(i) for i in range(max(1, torch.cuda.device_count()))]
        with self.lock:
            gpu = gpus[self.started % len(gpus)]
            self.started += 1
        own = {"OMP_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": threads}
        return {**os.environ, **own, "CUDA_VISIBLE_DEVICES": gpu}


def stop(process: subprocess.Popen) -> None:
    """Training saves when it is told to stop."""
    process.terminate()
    try:
        process.wait(LAST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
