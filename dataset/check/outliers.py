"""Which single frames fit no other frame, while the others fit each other?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dataset.check.color import compare_color
from dataset.check.warping import Frame, Pair, choose_partners, pair_of, read_frame, warp
from dataset.scene import Scene

PARTNERS = 3  # chosen by their poses, besides the frames before and after
STRIDE = 2  # pixels between those that are moved
FEWEST_FRAMES = 12
ENOUGH = 0.2  # of agreement times correlation of detail, that frames usually reach: else nothing is said of single ones
ALONE = 0.4  # of what is usual: a frame that reaches less with each of its partners is an outlier
SAME_SURFACES = 0.8  # of the usual agreement, from which on it is colour that does not fit
MOST = 0.2  # of all frames: where more are outliers, it is no matter of single frames
NAMED = 5
KEPT = 200  # frames in memory
OF_GEOMETRY = "depth, pose or intrinsics fit no other frame; is one of them wrong in these frames?"
OF_COLOR = "colour fits no other frame, though depth does; is it another frame's, turned or inverted?"


@dataclass(frozen=True)
class Fit:
    """How well two frames fit: agreement of surfaces, and correlation of colour's fine detail where they agree (1: not
    known)."""

    agreement: float
    detail: float

    @property
    def both(self) -> float:
        return self.agreement * max(self.detail, 0)


def find_outliers(scene: Scene, sample: int) -> list[str]:
    """Return warnings that name frames whose geometry, or colour, fits no other frame; [] where frames are few, or do not
    usually fit. sample: most frames to look at, 0 for all."""
    count = min(len(scene), sample or len(scene))
    if count < FEWEST_FRAMES:
        return []
    rows = np.unique(np.linspace(0, len(scene) - 1, count).round().astype(int))
    read = functools.lru_cache(KEPT)(functools.partial(read_frame, scene))
    fits = {scene.frame_ids[row]: fit for row in rows if (fit := _best_fit(_pairs(scene, row, read))) is not None}
    usual = np.median([fit.both for fit in fits.values()] or [0])
    alone = {frame: fit for frame, fit in fits.items() if fit.both < ALONE * usual}
    if usual < ENOUGH or len(alone) > MOST * len(fits):
        return []
    same = SAME_SURFACES * np.median([fit.agreement for fit in fits.values()])
    found = {
        OF_GEOMETRY: [frame for frame, fit in alone.items() if fit.agreement <= same],
        OF_COLOR: [frame for frame, fit in alone.items() if fit.agreement > same],
    }
    return [f"{_listed(frames)}: {text}" for text, frames in found.items() if frames]


def _pairs(scene: Scene, row: int, read: Callable[[int], Frame | None]) -> Iterator[Pair]:
    """Yield pairs of a frame with what should see the same by its pose, and with the frames before and after it."""
    partners = [*choose_partners(scene.camera_to_world, row, PARTNERS), row - 1, row + 1]
    for other in dict.fromkeys(partners):
        if 0 <= other < len(scene) and (pair := pair_of(read(row), read(other))):
            yield pair


def _best_fit(pairs: Iterator[Pair]) -> Fit | None:
    """Return the best fit of a frame's pairs; None if there are none."""
    fits = []
    for pair in pairs:
        one = warp(pair, stride=STRIDE)
        detail = compare_color(pair, one)[1]
        fits.append(Fit(one.agreement, detail if np.isfinite(detail) else 1.0))
    return max(fits, key=lambda fit: fit.both, default=None)


def _listed(frames: list[str]) -> str:
    more = f" and {len(frames) - NAMED} more" if len(frames) > NAMED else ""
    return f"{'frame' if len(frames) == 1 else 'frames'} {', '.join(frames[:NAMED])}{more}"
