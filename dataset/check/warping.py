"""Two frames of a scene, and the first one moved into the second one's view by its depth and the two poses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataset.camera import scale_intrinsics
from dataset.scene import Scene
from utils.errors import UserError

TOLERANCES = (0.01, 0.02, 0.05)  # two depths agree within such a share of the larger; agreement is the mean over these
NEAREST_OF = 3  # frames that make a pair with another one, one of which is taken
NEAREST_SHARE = 0.25  # of all frames, by distance, which the second of a pair is among
PAIR_ANGLES = (5.0, 20.0)  # degrees between the views of a pair


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
    indices; depth: their z there; agreement: share of those that land on a surface at their depth, mean over TOLERANCES;
    visible: which do, at the widest tolerance."""

    rows: np.ndarray
    columns: np.ndarray
    source: np.ndarray
    depth: np.ndarray
    agreement: float
    visible: np.ndarray


@dataclass(frozen=True)
class Cause:
    """Something that people get wrong, and what undoes it: a change of poses, intrinsics, or depth. along_rays: depth is the distance
    along each pixel's ray. bent: what makes metres of the depth (h, w) where it is another function of them."""

    text: str
    pose: Callable[[np.ndarray], np.ndarray] = lambda pose: pose
    K: Callable[[np.ndarray], np.ndarray] = lambda K: K
    depth: float = 1.0
    along_rays: bool = False
    bent: Callable[[np.ndarray], np.ndarray] = lambda depth: depth


AS_IT_IS = Cause("")


def choose_pairs(scene: Scene, count: int, poses: np.ndarray | None = None) -> list[Pair]:
    """Choose pairs spread over the scene that see the same: views differ by a moderate angle, and cameras are near each other.
    Frames that cannot be read are left to the inventory. poses: (N, 4, 4) in place of the scene's own."""
    pairs: list[Pair | None] = []
    poses = scene.camera_to_world if poses is None else poses
    for first in np.unique(np.linspace(0, max(0, len(scene) - 2), count).round().astype(int)):
        fitting = first + 1 + np.flatnonzero(_see_the_same(poses, first)[first + 1 :])
        place = len(pairs) % NEAREST_OF  # at other distances, so that what every other frame has is seen
        second = fitting[min(place, len(fitting) - 1)] if len(fitting) else first + 1
        if second < len(scene):
            pairs.append(pair_of(*(read_frame(scene, row, poses[row]) for row in (first, second))))
    return [pair for pair in pairs if pair is not None]


def _see_the_same(poses: np.ndarray, first: int) -> np.ndarray:
    """Return which of the poses (N, 4, 4) are turned by a moderate angle against one of them, and among those that are nearest to
    it, (N,) bool. Both hold in whatever unit and convention poses are, since cameras move steadily."""
    cosine = (np.einsum("ij,nij->n", poses[first, :3, :3], poses[:, :3, :3]) - 1) / 2
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    moved = np.linalg.norm(poses[:, :3, 3] - poses[first, :3, 3], axis=1)
    turned = (angles > PAIR_ANGLES[0]) & (angles < PAIR_ANGLES[1])
    return turned & (moved <= np.quantile(moved, NEAREST_SHARE))


def choose_partners(poses: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return the `count` nearest of the poses (N, 4, 4) that should see the same as one of them, nearest first."""
    fitting = np.flatnonzero(_see_the_same(poses, first))
    moved = np.linalg.norm(poses[fitting, :3, 3] - poses[first, :3, 3], axis=1)
    return fitting[np.argsort(moved, kind="stable")][:count]


@dataclass(frozen=True)
class Frame:
    """One frame of a pair: color (h, w, 3) uint8, depth (h, w) metres, classes (h, w) or None, camera-to-world (4, 4), K."""

    name: str
    color: np.ndarray
    depth: np.ndarray
    classes: np.ndarray | None
    pose: np.ndarray
    K: np.ndarray


def read_frame(scene: Scene, row: int, pose: np.ndarray | None = None) -> Frame | None:
    """Read the frame of a row; None if it cannot be read. pose: (4, 4) in place of its own."""
    name = scene.frame_ids[row]
    try:
        views = scene.views([name], depth=True)
    except UserError:
        return None
    return Frame(
        name,
        views.images[0].permute(1, 2, 0).numpy(),
        views.depth[0, 0].numpy() / 1000,
        _classes(scene, name),
        scene.camera_to_world[row] if pose is None else pose,
        scale_intrinsics(scene.Ks[[row]], scene.raw_size, scene.size)[0],
    )


def pair_of(first: Frame | None, second: Frame | None) -> Pair | None:
    """Make a pair of two frames; None unless both could be read."""
    if first is None or second is None:
        return None
    both = (first, second)
    classes = None if first.classes is None or second.classes is None else [frame.classes for frame in both]
    return Pair(
        (first.name, second.name),
        [frame.color for frame in both],
        [frame.depth for frame in both],
        classes,
        [frame.pose for frame in both],
        [frame.K for frame in both],
    )


def _classes(scene: Scene, frame: str) -> np.ndarray | None:
    try:
        labels = scene.views([frame], labels=True).labels
    except UserError:  # ids that the table does not know, which the inventory says
        return None
    return None if labels is None else labels[0].numpy()


def warp(pair: Pair, cause: Cause = AS_IT_IS, stride: int = 1, tolerances: tuple[float, ...] = TOLERANCES) -> Warp:
    """Move the first frame into the second one's view, with what `cause` says undone."""
    K1, K2 = (cause.K(K) for K in pair.Ks)
    depths = [cause.bent(depth) * cause.depth for depth in pair.depths]
    if cause.along_rays:
        depths = [depth / ray_lengths(K, depth.shape) for depth, K in zip(depths, (K1, K2), strict=True)]
    pose1, pose2 = (cause.pose(pose) for pose in pair.poses)
    height, width = depths[0].shape
    rows, columns = (grid.ravel() for grid in np.mgrid[0:height:stride, 0:width:stride])
    known = depths[0][rows, columns] > 0
    rows, columns = rows[known], columns[known]
    pixels = np.stack([columns, rows, np.ones(len(rows))], -1)
    camera = (pixels @ np.linalg.inv(K1).T) * depths[0][rows, columns, None]
    between = np.linalg.inv(pose2) @ pose1
    moved = camera @ between[:3, :3].T + between[:3, 3]
    ahead = moved[:, 2] > 1e-3
    projected = moved[ahead] @ K2.T
    x, y = np.round(projected[:, :2] / projected[:, 2:]).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x[inside].astype(int), y[inside].astype(int)
    z = moved[ahead][inside][:, 2]
    there = depths[1][y, x]
    error = np.where(there > 0, np.abs(there - z) / np.maximum(np.maximum(there, z), 1e-9), np.inf)
    agreement = np.mean([(error < tolerance).sum() for tolerance in tolerances]) / max(int((there > 0).sum()), 1)
    source = (rows * width + columns)[ahead][inside]
    landed_share = len(z) / max(len(rows), 1)  # frames that show nothing of each other do not agree
    return Warp(y, x, source, z / cause.depth, float(agreement * min(1, 4 * landed_share)), error < tolerances[-1])


def ray_lengths(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the distance along its ray at which each pixel of an image of `size` (h, w) is at depth 1, (h, w)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.sqrt(1 + ((columns - K[0, 2]) / K[0, 0]) ** 2 + ((rows - K[1, 2]) / K[1, 1]) ** 2)
