"""The processes that train together: one, or those that torchrun started, a GPU each."""

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

PATIENCE = timedelta(minutes=30)  # with a process that compiles, validates or saves while others wait
FAILURE = "failure"  # where the one that failed says so
LOOK_EVERY, GRACE = 0.5, 5.0  # seconds between looks for a failure, and from then on for this process to end by itself


class Processes:
    """`size` processes of which this is number `rank`; the first one, `leads`, alone writes and speaks.

    Exchanges that are not gradients go through the host, so that no device waits for them.
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
        """Return this process's own device, where a config asks for `device`."""
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
        """Connect the processes. Where one of them fails in here, whatever by, all the others end within seconds; the one
        that failed says why."""
        if not self.several:
            yield
            return
        if not self.leads:
            logging.mute()
        store, rank, size = next(dist.rendezvous("env://"))
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        self._control = dist.new_group(backend="gloo", timeout=PATIENCE)
        # A connection of its own: the other one may be waiting for a process that is no more.
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
            watch.join(GRACE)  # a thread that is within torch when Python ends aborts the process
            dist.destroy_process_group()

    def _watch(self) -> None:
        """End this process shortly after another one has failed, in case it hangs in a collective operation with it."""
        while not self._failed():
            if self._ended.wait(LOOK_EVERY):
                return
        if not self._ended.wait(GRACE):
            os._exit(1)

    def _failed(self) -> bool:
        """Return whether a process has said that it failed, or the place where it would is gone."""
        try:
            return self._failures.check([FAILURE])
        except RuntimeError:
            return True

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Guard what all processes do together. Raise SystemExit where another one failed, which says why itself, and
        UserError where it was ended from outside."""
        try:
            yield
        except RuntimeError as error:  # a connection broke
            if self._failed():
                raise SystemExit(1) from None
            raise UserError(f"process {self.rank} lost another one ({str(error).splitlines()[0]})") from None

    def any(self, wish: bool) -> bool:
        """Return whether any process wishes so."""
        if not self.several:
            return wish
        wishes = torch.tensor(int(wish))
        with self._exchange():
            dist.all_reduce(wishes, dist.ReduceOp.MAX, group=self._control)
        return bool(wishes)

    def average(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its mean over all processes, in place."""
        with self._exchange():
            dist.all_reduce(tensor)
        tensor.div_(self.size)

    def gather(self, value) -> list | None:
        """Return the value of every process, in their order, for the one that leads; None for the others."""
        if not self.several:
            return [value]
        values = [None] * self.size if self.leads else None
        with self._exchange():
            dist.gather_object(value, values, dst=0, group=self._control)
        return values
