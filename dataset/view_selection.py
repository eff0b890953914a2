"""Selection of test frames, of reference candidates, and of the references of a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.errors import UserError

SELF_REFERENCE_PROBABILITY = 0.02  # that a training sample may have its own query among the references
LARGEST_NEIGHBOURHOOD = 12  # nearest frames from which training references are drawn, at most
# The published split: pool [:700:5], tests the first 10 of [2:700:20].
LAST_FRAME, POOL_STEP, TEST_START, TEST_STEP, MOST_TESTS = 700, 5, 2, 20, 10


class Split(NamedTuple):
    """references: the frames that may be references of test views. tests: the frames to be rendered."""

    references: list[str]
    tests: list[str]


def evenly(items: Sequence, count: int) -> list:
    """Return at most `count` of the items, evenly spaced from the first to the last."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))]


def split_frames(frames: list[str]) -> Split:
    """Return the published split of a scene's usable frames in order: pool [:700:5], the first 10 of [2:700:20] for
    tests."""
    return Split(frames[:LAST_FRAME:POOL_STEP], frames[TEST_START:LAST_FRAME:TEST_STEP][:MOST_TESTS])


def nearest(centres: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the indices of camera centres (N, 3) by their distance to `query` (3,), nearest first."""
    return np.argsort(np.linalg.norm(centres - query, axis=1), kind="stable")


def test_references(centres: np.ndarray, query: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` nearest of the pool's centres (N, 3)."""
    return nearest(centres, query)[:count]


def training_references(
    centres: np.ndarray,
    query: int,
    counts: tuple[int, int],
    rng: np.random.Generator,
    widest_stride: int = 1,
    own: bool = True,
) -> np.ndarray:
    """Return indices of references for the frame `query` of a scene whose centres are (N, 3), in random order.

    Their number is drawn from [counts[0], counts[1]); they are drawn from the once or twice as many nearest frames, at
    most 12 (but never fewer than their number). Only every k-th frame is among these, with k drawn from 1 to
    `widest_stride`, or less where the scene is too short for it. own: in a few samples `query` itself is among them.
    """
    order = nearest(centres, centres[query])
    if widest_stride > 1:
        stride = min(int(rng.integers(1, widest_stride + 1)), max(1, len(centres) // (counts[1] + 1)))
        order = order[order % stride == rng.integers(stride)]
    if rng.random() >= SELF_REFERENCE_PROBABILITY or not own:
        order = order[order != query]
    count = int(rng.integers(*counts))
    neighbourhood = min(count * int(rng.integers(1, 3)), max(LARGEST_NEIGHBOURHOOD, count))
    return rng.permutation(order[:neighbourhood])[:count]


def further_queries(
    centres: np.ndarray, query: int, references: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the indices of `count` further queries for the references of `query`, from the 2 count nearest frames that
    are neither a reference nor the query."""
    order = nearest(centres, centres[query])
    free = order[~np.isin(order, [query, *references])]
    return rng.permutation(free[: 2 * count])[:count]


def require_frames(scene: str, have: int, need: int, purpose: str) -> None:
    """Raise UserError if a scene has too few frames for `purpose`."""
    if have < need:
        raise UserError(
            f"{scene}: has {have} {purpose}, but {need} are needed; "
            "use a longer capture or lower train_dataset_cfg.min_wn and max_wn"
        )
