"""Loading of batches by worker processes, ahead of the device."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import cv2
from torch.utils.data import DataLoader, Dataset

from dataset.views import Batch
from utils.errors import UserError
from utils.logging import warn

MOST_DEATHS = 3  # of workers in a row, without a batch in between


class _Guarded(Dataset):
    """Returns a UserError as an item: if it were raised in a worker, torch would wrap it in a traceback."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Batch | UserError:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def load(dataset: Dataset, indices: Sequence[int], workers: int | None, device) -> Iterator[Batch]:
    """Yield batches of `dataset` at `indices`, in that order, on `device`.

    workers: number of processes; 0: decode in this one; None: by the number of cores. If a worker dies, new ones are
    started. Raise the UserError of a batch, or one if workers keep dying.
    """
    if workers is None:
        workers = min(8, max(1, (os.cpu_count() or 1) - 1))
    done, deaths = 0, 0
    while done < len(indices):
        try:
            for batch in _batches(dataset, indices[done:], workers, pinned=str(device) != "cpu"):
                if isinstance(batch, UserError):
                    raise batch
                done, deaths = done + 1, 0
                yield batch.to(device)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if not _is_a_death(error):
                raise
            deaths += 1
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if deaths > MOST_DEATHS:
                raise UserError(
                    f"worker processes keep dying ({reason}); lower worker_num, or free some memory"
                ) from None
            warn(f"a worker process died after {done} samples ({reason}); others take over")


def _is_a_death(error: Exception) -> bool:
    """Return whether an error means that a worker was killed: torch reports it, or the connection to the worker breaks.
    Exceptions in a worker, whose message starts with "Caught", are no deaths."""
    said = str(error)
    return not said.startswith("Caught ") and ("DataLoader worker" in said or not isinstance(error, RuntimeError))


def _batches(dataset: Dataset, indices: Sequence[int], workers: int, pinned: bool) -> Iterator[Batch | UserError]:
    workers = min(workers, len(indices))
    loader = DataLoader(
        _Guarded(dataset),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        pin_memory=pinned,
        collate_fn=_unchanged,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
    )
    with _no_surprise():
        batches = iter(loader)
    return batches


@contextlib.contextmanager
def _no_surprise() -> Iterator[None]:
    """Undo torch's SIGCHLD handler, which raises a worker's death at an arbitrary place; it is noticed at the next
    batch."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if in_main_thread and signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)


def _unchanged(batch):
    return batch


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
