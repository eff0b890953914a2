"""Feeds batches: worker processes decode ahead while the device computes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import cv2
from torch.utils.data import DataLoader, Dataset

from dataset.views import Batch
from utils.errors import UserError


class _Guarded(Dataset):
    """Hands a UserError over as an item: raised in a worker it would arrive wrapped in a traceback."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Batch | UserError:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def load(dataset: Dataset, indices: Iterable[int], workers: int | None, device) -> Iterator[Batch]:
    """Batches of `dataset` at `indices`, in that order, on `device`.

    workers: processes; 0 decodes in this one, None chooses by the number of cores.
    Raises the UserError that a batch ran into.
    """
    indices = list(indices) if not isinstance(indices, range) else indices
    if workers is None:
        workers = min(8, max(1, (os.cpu_count() or 1) - 1))
    workers = min(workers, len(indices))
    on_gpu = str(device) != "cpu"
    loader = DataLoader(
        _Guarded(dataset),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        pin_memory=on_gpu,
        collate_fn=_unchanged,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch.to(device)


def _unchanged(batch):
    return batch


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
