"""Do labels belong to the surfaces that they lie on? Where two frames see the same surface, its class should be the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dataset.check.alignment import color_changes
from dataset.check.color import FEWEST_PIXELS, TURNS
from dataset.check.warping import Pair, Warp, choose_pairs, warp
from dataset.scene import Scene
from utils.errors import UserError

ENOUGH = 0.65  # of the pixels where surfaces agree that have the same class, in an average pair
OF_THE_BEST, BEST_PAIRS = 0.8, 0.9  # share of what the best pairs reach; the quantile that those are
SAME_SURFACES = 0.3  # agreement of surfaces, from which on labels of a pair are compared
BETTER = 0.15  # so much more agreement names a cause
SHIFTS = (1, 2, 3, -1, -2, -3)  # frames from which labels may come
PAIRS, FEWEST_PAIRS = 24, 6  # that are compared for this
GAIN, SURE = 0.02, 3.0  # of agreement by such a shift, that counts; in standard errors
FEWEST_FRAMES, FEWEST_BORDERS, ON_COLOR = 8, 20, 2.0  # frames; pixels of borders in each; standard errors


@dataclass(frozen=True)
class Labelling:
    """Over all pairs: the mean share of pixels that have the same class where surfaces agree, what the best pairs reach, and
    what is probably wrong (None: nothing, or nobody knows)."""

    agreement: float
    best_agreement: float
    cause: str | None

    @property
    def is_wrong(self) -> bool:
        return self.cause is not None or self.agreement < max(ENOUGH, OF_THE_BEST * self.best_agreement)


def check_labels(scene: Scene, pairs: list[Pair]) -> Labelling | None:
    """Compare the labels of frames with each other; None where there are none, or no pair agrees on its surfaces."""
    compared = _with_surfaces(pairs)
    agreements = _compare(compared, scene.labels.ignore) if compared else np.zeros(0)
    if not np.isfinite(agreements).any():
        return None
    now = _mean(agreements)
    return Labelling(now, float(np.nanquantile(agreements, BEST_PAIRS)), _find_cause(scene, compared, now))


def _with_surfaces(pairs: list[Pair]) -> list[tuple[Pair, Warp]]:
    """Return the pairs with labels that see surfaces in common, and the first frame of each in the second one's view."""
    warps = [(pair, warp(pair)) for pair in pairs if pair.classes is not None]
    return [(pair, one) for pair, one in warps if one.agreement > SAME_SURFACES and one.visible.sum() >= FEWEST_PIXELS]


def _find_cause(scene: Scene, compared: list[tuple[Pair, Warp]], now: float) -> str | None:
    ignore = scene.labels.ignore
    turned = {name: _mean(_compare(compared, ignore, turn)) for name, turn in TURNS.items()}
    name = max(turned, key=turned.get)
    if turned[name] > max(ENOUGH, now + BETTER):
        return f"labels are {name} against depth"
    renamed = _mean(np.array([_same_if_renamed(*_seen(pair, one, ignore)) for pair, one in compared]))
    if renamed > max(ENOUGH, now + BETTER):
        return "a number means another class in each frame; are they numbers of instances?"
    return _find_shift(scene) or _find_strangers([pair for pair, _ in compared])


def _find_shift(scene: Scene) -> str | None:
    """Return from how many frames before or after labels are, None where they fit best as they are."""
    rows = {frame: row for row, frame in enumerate(scene.frame_ids)}
    reach = max(SHIFTS)
    inner = set(scene.frame_ids[reach : len(rows) - reach])
    compared = _with_surfaces([pair for pair in choose_pairs(scene, PAIRS) if set(pair.frames) <= inner])
    if len(compared) < FEWEST_PAIRS:
        return None

    def shifted(by: int) -> list[tuple[Pair, Warp]]:
        frames = [[scene.frame_ids[rows[frame] - by] for frame in pair.frames] for pair, _ in compared]
        labels = [list(scene.views(names, labels=True).labels.numpy()) for names in frames]
        return [(replace(pair, classes=maps), one) for (pair, one), maps in zip(compared, labels, strict=True)]

    as_it_is = _compare(compared, scene.labels.ignore)
    try:
        gains = {by: _compare(shifted(by), scene.labels.ignore) - as_it_is for by in SHIFTS}
    except UserError:  # for a map that cannot be read, which the inventory says
        return None
    best = max(gains, key=lambda by: _mean(gains[by]))
    gain = gains[best][np.isfinite(gains[best])]
    if len(gain) < FEWEST_PAIRS or gain.mean() <= max(GAIN, SURE * gain.std() / np.sqrt(len(gain))):
        return None
    which = ("frame", "second frame", "third frame")[abs(best) - 1]
    return f"each frame has the labels of the {which} {'after' if best > 0 else 'before'} it"


def _find_strangers(pairs: list[Pair]) -> str | None:
    """Return that labels are of other frames, if colour does not change more at the borders of a frame's labels than the other
    frames' colour does in the same places; None if it does, or too little is to be seen."""
    frames = {
        name: (color, classes)
        for pair in pairs
        for name, color, classes in zip(pair.frames, pair.colors, pair.classes, strict=True)
    }
    changes = np.stack([color_changes(color) for color, _ in frames.values()])
    gains = []
    for own, (_, classes) in enumerate(frames.values()):
        here = classes[:-1, :-1]
        y, x = np.nonzero((here != classes[1:, :-1]) | (here != classes[:-1, 1:]))
        if len(y) >= FEWEST_BORDERS and len(changes) >= FEWEST_FRAMES:
            found = changes[:, y, x].mean(1)
            gains.append(found[own] - np.delete(found, own).mean())
    if len(gains) < FEWEST_FRAMES or np.mean(gains) > ON_COLOR * np.std(gains) / np.sqrt(len(gains)):
        return None
    return "labels are of other frames: their borders do not lie on those of colour"


def _compare(compared: list[tuple[Pair, Warp]], ignore: int | None, turn=lambda image: image) -> np.ndarray:
    """Return the share of pixels of each pair that have the same class, (N,), nan where too few have one. turn: what is done
    to the label maps first."""
    found = [_seen(pair, one, ignore, turn) for pair, one in compared]
    return np.array([(a == b).mean() if len(a) >= FEWEST_PIXELS else np.nan for a, b in found])


def _seen(pair: Pair, one: Warp, ignore: int, turn=lambda image: image) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes (N,) that both frames give to the surfaces that both see."""
    source, rows, columns = one.source[one.visible], one.rows[one.visible], one.columns[one.visible]
    first, second = (turn(classes) for classes in pair.classes)
    classes = first.ravel()[source], second[rows, columns]
    known = (classes[0] != ignore) & (classes[1] != ignore)
    return classes[0][known], classes[1][known]


def _mean(shares: np.ndarray) -> float:
    """Return the mean of those that are known, -1 if none is."""
    known = shares[np.isfinite(shares)]
    return float(known.mean()) if len(known) else -1.0


def _same_if_renamed(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of pixels that agree if each class of the first frame is the commonest one that it meets in the
    second, no two the same one."""
    if len(first) < FEWEST_PIXELS:
        return float("nan")
    pairs, counts = np.unique(np.stack([first, second]), axis=1, return_counts=True)
    taken: tuple[set, set] = (set(), set())
    same = 0
    for place in np.argsort(-counts):
        a, b = pairs[:, place].tolist()
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
            same += int(counts[place])
    return same / len(first)
