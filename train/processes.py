"""The processes of a training: a single one, or those that torchrun started, with one GPU each."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from utils import logging
from utils.errors import UserError

PATIENCE = timedelta(minutes=30)  # timeout of collective operations: others may compile, validate or save meanwhile
FAILURE = "failure"  # key in the store that a failed process sets
LOOK_EVERY, GRACE = 0.5, 5.0  # seconds between two checks for a failure, and after one until this process is ended


class Processes:
    """`size` processes, of which this one has number `rank`. Only rank 0 (`leads`) writes files and prints.

    All exchanges but that of gradients use the host (gloo), so that no device waits for them.
    """

    def __init__(self):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self._control = self._failures = None
        self._ended = threading.Event()

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own GPU if the config's `device` is a GPU, else `device`."""
        if device.type == "cuda" and self.several:
            if self.local_rank >= torch.cuda.device_count():
                raise UserError(
                    f"process {self.local_rank} has no GPU of its own (there are {torch.cuda.device_count()}); "
                    "start as many processes as there are GPUs, or set device=cpu"
                )
            device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(device)
        return device

    @contextmanager
    def together(self, device: torch.device) -> Iterator[None]:
        """Connect the processes. If one of them fails in this context, by whatever cause, it reports the error and all
        others end within seconds."""
        if not self.several:
            yield
            return
        if not self.leads:
            logging.mute()
        store, rank, size = next(dist.rendezvous("env://"))
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        self._control = dist.new_group(backend="gloo", timeout=PATIENCE)
        # A connection of its own: the other one may be blocked waiting for a process that has ended.
        own = store.clone() if hasattr(store, "clone") else store
        self._failures = dist.PrefixStore("failures", own)
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            yield
        except SystemExit:
            raise
        except BaseException:
            self._failures.set(FAILURE, str(self.rank))
            raise
        else:
            self._ended.set()
            watch.join(GRACE)  # a thread inside torch at the exit of Python would abort the process
            dist.destroy_process_group()

    def _watch(self) -> None:
        """End this process shortly after another one has failed, in case it hangs in a collective operation with it."""
        while not self._failed():
            if self._ended.wait(LOOK_EVERY):
                return
        if not self._ended.wait(GRACE):
            os._exit(1)

    def _failed(self) -> bool:
        """Return whether a process has reported a failure, or the store is gone."""
        try:
            return self._failures.check([FAILURE])
        except RuntimeError:
            return True

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Guard a collective operation. Raise SystemExit if another process has reported a failure, and UserError if
        one was lost without a report."""
        try:
            yield
        except RuntimeError as error:  # a connection broke
            if self._failed():
                raise SystemExit(1) from None
            raise UserError(f"process {self.rank} lost another one ({str(error).splitlines()[0]})") from None

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if not self.several:
            return flag
        flags = torch.tensor(int(flag))
        with self._exchange():
            dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._control)
        return bool(flags)

    def average(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its mean over all processes, in place."""
        with self._exchange():
            dist.all_reduce(tensor)
        tensor.div_(self.size)

    def gather(self, value) -> list | None:
        """Return the values of all processes by rank on rank 0; None on the others."""
        if not self.several:
            return [value]
        values = [None] * self.size if self.leads else None
        with self._exchange():
            dist.gather_object(value, values, dst=0, group=self._control)
        return values
