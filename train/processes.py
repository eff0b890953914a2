"""The processes that train together: one, or those that torchrun started, a GPU each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum

import torch
import torch.distributed as dist

from utils import logging
from utils.errors import UserError

PATIENCE = timedelta(minutes=30)  # with a process that compiles, validates or saves while others wait


class Status(IntEnum):
    """What a process wants; the greatest wish of all counts."""

    GO_ON = 0
    STOP = 1
    FAILED = 2


class Processes:
    """`size` processes of which this is number `rank`; the first one, `leads`, alone writes and speaks.

    Exchanges that are not gradients go through the host, so that no device waits for them.
    """

    def __init__(self):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self._control = None

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    def device(self, device: torch.device) -> torch.device:
        """This process's own one, where a config asks for `device`."""
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
        """Connects the processes. One that ends with a UserError in here lets the others end too, in `agree`."""
        if not self.several:
            yield
            return
        if not self.leads:
            logging.mute()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        self._control = dist.new_group(backend="gloo", timeout=PATIENCE)
        try:
            yield
        except UserError:
            self.agree(Status.FAILED)
            raise
        finally:
            dist.destroy_process_group()

    def agree(self, wish: Status) -> Status:
        """The greatest wish of all processes. Raises SystemExit if another one failed: it says why itself."""
        if not self.several:
            return wish
        greatest = torch.tensor(int(wish))
        try:
            dist.all_reduce(greatest, dist.ReduceOp.MAX, group=self._control)
        except RuntimeError:  # its connection broke
            greatest = torch.tensor(int(Status.FAILED))
        if greatest == Status.FAILED and wish != Status.FAILED:
            raise SystemExit(1)
        return Status(int(greatest))

    def average(self, tensor: torch.Tensor) -> None:
        """Replaces a tensor by its mean over all processes."""
        dist.all_reduce(tensor)
        tensor.div_(self.size)

    def gather(self, value) -> list | None:
        """The value of every process, in their order, for the one that leads; None for the others."""
        if not self.several:
            return [value]
        self.agree(Status.GO_ON)  # nobody waits for a process that failed
        values = [None] * self.size if self.leads else None
        dist.gather_object(value, values, dst=0, group=self._control)
        return values
