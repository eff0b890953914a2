"""Do frames agree when one is moved into another by its depth and the two poses? If not, what would make them agree?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataset.scene import Scene, scale_intrinsics
from utils.errors import UserError

TOLERANCES = (0.01, 0.02, 0.05)  # two depths agree within such a share of the larger; agreement is the mean over these
ENOUGH_AGREEMENT = 0.3  # of the pixels that have depth, in an average pair of a good scene
CLEARLY_BETTER = (1.15, 0.08)  # times as much agreement, and so much more, names a cause
PAIR_ANGLES = (5.0, 20.0)  # degrees between the views of a pair
UNITS = {
    0.001: "micrometres",
    0.1: "tenths of millimetres",
    0.2: "1/5000 m, as in TUM's files",
    0.25: "1/4000 m",
    10.0: "centimetres",
    1000.0: "metres",
}


@dataclass(frozen=True)
class Pair:
    """Two frames of a scene: color (h, w, 3) uint8, depth (h, w) metres, classes (h, w) or None, camera-to-world (4, 4)."""

    frames: tuple[str, str]
    colors: list[np.ndarray]
    depths: list[np.ndarray]
    classes: list[np.ndarray] | None
    poses: list[np.ndarray]
    Ks: list[np.ndarray]


@dataclass(frozen=True)
class Warp:
    """The first frame of a pair in the second one's view. rows, columns: where its pixels landed; source: their
    indices; depth: their z there; agreement: share of the pixels with depth that land on a surface at their depth,
    mean over TOLERANCES."""

    rows: np.ndarray
    columns: np.ndarray
    source: np.ndarray
    depth: np.ndarray
    agreement: float


@dataclass(frozen=True)
class Consistency:
    """Over all pairs: median share of agreeing pixels, median disagreement of depth (share of the depth) and of colour
    (0 to 1) where pixels land, and what is probably wrong (None: nothing, or nobody knows)."""

    pairs: int
    agreement: float
    depth_disagreement: float
    color_disagreement: float
    cause: str | None

    @property
    def looks_wrong(self) -> bool:
        return self.agreement < ENOUGH_AGREEMENT or self.cause is not None


def _flip_axes(pose):
    return pose @ np.diag([1.0, -1, -1, 1])


def _swap_axes(K):
    return K[[1, 0, 2]][:, [1, 0, 2]]


@dataclass(frozen=True)
class Cause:
    """Something that people get wrong, and what undoes it: a change of poses, intrinsics, or depth."""

    text: str
    pose: Callable[[np.ndarray], np.ndarray] = lambda pose: pose
    K: Callable[[np.ndarray], np.ndarray] = lambda K: K
    depth: float = 1.0


CAUSES = [
    Cause("poses have OpenGL axes (y up, z backward) instead of OpenCV's", pose=_flip_axes),
    Cause("poses are world-to-camera instead of camera-to-world", pose=np.linalg.inv),
    Cause("poses are world-to-camera with OpenGL axes", pose=lambda pose: _flip_axes(np.linalg.inv(pose))),
    Cause("width and height are swapped in the intrinsics (fx with fy, cx with cy)", K=_swap_axes),
    Cause("intrinsics are of images of twice the size", K=lambda K: np.diag([0.5, 0.5, 1]) @ K),
    Cause("intrinsics are of images of half the size", K=lambda K: np.diag([2.0, 2, 1]) @ K),
    *[Cause(f"depth is not in millimetres but in {unit}", depth=factor) for factor, unit in UNITS.items()],
]
AS_IT_IS = Cause("")


def choose_pairs(scene: Scene, count: int) -> list[Pair]:
    """Pairs spread over the scene whose views differ by a moderate angle (whatever is wrong with the poses' convention,
    the angle between two of them is right)."""
    rotations = scene.camera_to_world[:, :3, :3]
    pairs = []
    for first in np.linspace(0, max(0, len(scene) - 2), count).round().astype(int):
        cosine = (np.einsum("ij,nij->n", rotations[first], rotations[first + 1 :]) - 1) / 2
        angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        fitting = np.flatnonzero((angles > PAIR_ANGLES[0]) & (angles < PAIR_ANGLES[1]))
        second = first + 1 + (int(fitting[0]) if len(fitting) else 0)
        if second < len(scene):
            pairs.append(_read_pair(scene, scene.frame_ids[first], scene.frame_ids[second]))
    return pairs


def _read_pair(scene: Scene, first: str, second: str) -> Pair:
    views = scene.views([first, second], depth=True)
    rows = [scene.frame_ids.index(frame) for frame in (first, second)]
    return Pair(
        (first, second),
        list(views.images.permute(0, 2, 3, 1).numpy()),
        list(views.depth[:, 0].numpy() / 1000),
        _classes(scene, first, second),
        list(scene.camera_to_world[rows]),
        list(scale_intrinsics(scene.Ks[rows], scene.raw_size, scene.size)),
    )


def _classes(scene: Scene, *frames: str) -> list[np.ndarray] | None:
    try:
        labels = scene.views(frames, labels=True).labels
    except UserError:  # ids that the table does not know, which the inventory says
        return None
    return None if labels is None else list(labels.numpy())


def warp(pair: Pair, cause: Cause = AS_IT_IS) -> Warp:
    """Moves the first frame into the second one's view, with what `cause` says undone."""
    depths = [depth * cause.depth for depth in pair.depths]
    K1, K2 = (cause.K(K) for K in pair.Ks)
    pose1, pose2 = (cause.pose(pose) for pose in pair.poses)
    height, width = depths[0].shape
    source = np.flatnonzero(depths[0] > 0)
    pixels = np.stack([source % width, source // width, np.ones(len(source))], -1)
    camera = (pixels @ np.linalg.inv(K1).T) * depths[0].ravel()[source, None]
    moved = camera @ (np.linalg.inv(pose2) @ pose1)[:3, :3].T + (np.linalg.inv(pose2) @ pose1)[:3, 3]
    ahead = moved[:, 2] > 1e-3
    projected = moved[ahead] @ K2.T
    columns, rows = np.round(projected[:, :2] / projected[:, 2:]).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    rows, columns = rows[inside].astype(int), columns[inside].astype(int)
    landed, z = source[ahead][inside], moved[ahead][inside][:, 2]
    there = depths[1][rows, columns]
    error = np.where(there > 0, np.abs(there - z) / np.maximum(there, z), np.inf)
    agreement = np.mean([(error < tolerance).sum() for tolerance in TOLERANCES]) / max(len(source), 1)
    return Warp(rows, columns, landed, z / cause.depth, float(agreement))


def check_consistency(pairs: list[Pair]) -> Consistency | None:
    """None if there is nothing to compare."""
    if not pairs:
        return None
    warps = [warp(pair) for pair in pairs]
    agreement = float(np.mean([one.agreement for one in warps]))
    depth_errors, color_errors = [], []
    for pair, one in zip(pairs, warps, strict=True):
        there = pair.depths[1][one.rows, one.columns]
        known = there > 0
        if known.any():
            depth_errors.append(np.median(np.abs(there - one.depth)[known] / one.depth[known]))
            moved = pair.colors[0].reshape(-1, 3)[one.source[known]].astype(float)
            color_errors.append(np.median(np.abs(moved - pair.colors[1][one.rows, one.columns][known])) / 255)
    scores = [np.mean([warp(pair, each).agreement for pair in pairs]) for each in CAUSES]
    best = int(np.argmax(scores))
    times, more = CLEARLY_BETTER
    cause = CAUSES[best].text if scores[best] > max(times * agreement, agreement + more) else None
    median = [float(np.median(errors)) if errors else float("nan") for errors in (depth_errors, color_errors)]
    return Consistency(len(pairs), agreement, *median, cause)
