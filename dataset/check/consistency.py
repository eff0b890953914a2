"""Do frames agree when one is moved into another by its depth and the two poses? If not, what would make them agree?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset.check.color import ENOUGH_DETAIL, compare_color, find_color_cause
from dataset.check.geometry import ENOUGH_AGREEMENT, find_cause, find_centre
from dataset.check.warping import Pair, warp

OF_THE_BEST = 0.75  # so much of what the best pairs of the same scene reach
BEST_PAIRS = 0.9  # quantile of pairs
COLOR_OF_THE_BEST = (3.0, 0.02)  # times as much disagreement of colour as in the best pairs, and so much more
DETAIL_OF_THE_BEST = 0.5  # share of the correlation of fine detail in the best pairs


@dataclass(frozen=True)
class Consistency:
    """Over all pairs: the mean share of agreeing pixels and what the best pairs reach; median disagreement of depth (share
    of the depth) where pixels land; where surfaces agree, of colour (0 to 1), and correlation of its fine detail (which
    exposure does not change), in the middle and in the best pairs; what is probably wrong with geometry, and with colour
    (None: nothing, or nobody knows)."""

    pairs: int
    agreement: float
    best_agreement: float
    depth_disagreement: float
    color_disagreement: float
    best_color: float
    detail: float
    best_detail: float
    cause: str | None
    color_cause: str | None

    @property
    def geometry_is_wrong(self) -> bool:
        wanted = max(ENOUGH_AGREEMENT, OF_THE_BEST * self.best_agreement)
        return self.cause is not None or self.agreement < wanted

    @property
    def color_is_wrong(self) -> bool:
        times, more = COLOR_OF_THE_BEST
        blurred = self.detail < max(ENOUGH_DETAIL, DETAIL_OF_THE_BEST * self.best_detail)
        different = blurred or self.color_disagreement > times * self.best_color + more
        return not self.geometry_is_wrong and (different or self.color_cause is not None)


def check_consistency(
    pairs: list[Pair], opengl: bool = False, cause: str | None = None, color_cause: str | None = None
) -> Consistency | None:
    """Compare frames with each other; None if there is nothing to compare. opengl: the axes that poses should have in the scene's files.
    cause, color_cause: what seems wrong with geometry, or with colour, unless poses, intrinsics or a unit explain it."""
    if not pairs:
        return None
    warps = [warp(pair) for pair in pairs]
    agreements = np.array([one.agreement for one in warps])
    depth_errors = []
    for pair, one in zip(pairs, warps, strict=True):
        there = pair.depths[1][one.rows, one.columns]
        if (there > 0).any():
            depth_errors.append(np.median((np.abs(there - one.depth) / one.depth)[there > 0]))
    colors = np.array([compare_color(pair, one) for pair, one in zip(pairs, warps, strict=True)])
    colors = colors[np.isfinite(colors).all(1)]
    nothing = np.full(2, np.nan)
    color, detail = (np.median(colors[:, 0]), colors[:, 1].mean()) if len(colors) else nothing
    best_color = np.quantile(colors[:, 0], 1 - BEST_PAIRS) if len(colors) else np.nan
    best_detail = np.quantile(colors[:, 1], BEST_PAIRS) if len(colors) else np.nan
    color_cause = color_cause or find_color_cause(pairs, warps, float(detail))
    cause = find_cause(pairs, opengl) or cause
    if cause is None and color_cause is None:  # depth that is not registered to colour has a principal point of its own
        cause = find_centre(pairs)
    return Consistency(
        len(pairs),
        float(agreements.mean()),
        float(np.quantile(agreements, BEST_PAIRS)),
        float(np.median(depth_errors)) if depth_errors else float("nan"),
        float(color),
        float(best_color),
        float(detail),
        float(best_detail),
        cause,
        color_cause,
    )
