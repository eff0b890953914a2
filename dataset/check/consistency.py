"""Do frames agree when one is moved into another by its depth and the two poses? If not, what would make them agree?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.camera import scale_intrinsics
from dataset.check.alignment import find_misalignment
from dataset.scene import Scene
from utils.errors import UserError

TOLERANCES = (0.01, 0.02, 0.05)  # two depths agree within such a share of the larger; agreement is the mean over these
ENOUGH_AGREEMENT = 0.5  # of the pixels that land in the other frame, in an average pair of a good scene
OF_THE_BEST = 0.75  # so much of what the best pairs of the same scene reach
BEST_PAIRS = 0.9  # quantile of pairs
COLOR_OF_THE_BEST = (3.0, 0.02)  # times as much disagreement of colour as in the best pairs, and so much more
ENOUGH_DETAIL, DETAIL_OF_THE_BEST = 0.4, 0.5  # correlation of fine detail in an average pair; share of the best pairs'
DETAIL_SIZE = 60  # of an image's width: detail is what is finer than a 60th of it
CLEARLY_BETTER = (1.15, 0.08)  # times as much agreement, and so much more, names a cause
NEAREST_OF = 3  # frames that make a pair with another one, one of which is taken
PAIR_ANGLES = (5.0, 20.0)  # degrees between the views of a pair
STRIDE = 4  # pixels between those that are moved when causes are tried
FACTORS = np.geomspace(1 / 2000, 2000, 101)  # of depth, that are tried
FINE_FACTORS = np.geomspace(0.91, 1.09, 37)
FINE_TOLERANCES = (0.003, 0.005, 0.01)  # that tell near factors apart
SCALE_OFF, SCALE_SURE, SCALE_GAIN = 0.04, 3.0, 0.02  # a factor counts from 4% on, at 3 standard errors, if it gains 2%
FOCAL_FACTORS = [factor for factor in np.geomspace(0.2, 5, 33) if abs(np.log(factor)) > 0.15]
BEND_BELOW = 0.6  # agreement, from which on none is looked for
BEND_ENDS = (0.02, 0.98)  # quantiles of depth
BEND_METRES = np.geomspace(0.5, 10, 10)  # that are tried at these ends
BEND_STEPS = (1.18, 1.08, 1.04, 1.02, 1.01)  # factors of them, one after the other
BEND_TOLERANCES = (0.02, 0.05, 0.15)
PARALLAX = 0.25  # of the way to full agreement from what frames reach as if cameras did not move
NEAR_A_UNIT = 0.04  # a factor so close to a unit's names it
ROOM_DEPTH = (0.4, 5.5)  # metres: the middle of what cameras in rooms see
UNITS = {  # metres: name
    1e-6: "micrometres",
    1e-4: "tenths of millimetres",
    1 / 6553.5: "1/6553.5 m, as in NICE-SLAM's Replica",
    1 / 5000: "1/5000 m, as in TUM's files",
    1 / 4000: "1/4000 m, as of millimetres shifted by 2 bits",
    1 / 8000: "1/8000 m, as of millimetres shifted by 3 bits (SUN RGB-D, Kinect)",
    1 / 16000: "1/16000 m, as of millimetres shifted by 4 bits",
    1 / 256: "1/256 m, as in KITTI's files",
    0.01: "centimetres",
    0.0254: "inches",
    1.0: "metres",
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
    indices; depth: their z there; agreement: share of those that land on a surface at their depth, mean over TOLERANCES;
    visible: which do, at the widest tolerance."""

    rows: np.ndarray
    columns: np.ndarray
    source: np.ndarray
    depth: np.ndarray
    agreement: float
    visible: np.ndarray


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

    @property
    def looks_wrong(self) -> bool:
        return self.geometry_is_wrong or self.color_is_wrong


def _flip_axes(pose):
    return pose @ np.diag([1.0, -1, -1, 1])


def _roll(pose, quarters):
    cosine, sine = round(np.cos(quarters * np.pi / 2)), round(np.sin(quarters * np.pi / 2))
    return pose @ np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def _swap_axes(K):
    return K[[1, 0, 2]][:, [1, 0, 2]]


def _still(pose):
    return np.block([[pose[:3, :3], np.zeros((3, 1))], [np.eye(4)[3:]]])


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


CAUSES = [
    Cause("poses have OpenGL axes (y up, z backward) instead of OpenCV's", pose=_flip_axes),
    Cause("poses are world-to-camera instead of camera-to-world", pose=np.linalg.inv),
    Cause("poses are world-to-camera with OpenGL axes", pose=lambda pose: _flip_axes(np.linalg.inv(pose))),
    Cause("width and height are swapped in the intrinsics (fx with fy, cx with cy)", K=_swap_axes),
    Cause("intrinsics are of images of twice the size", K=lambda K: np.diag([0.5, 0.5, 1]) @ K),
    Cause("intrinsics are of images of half the size", K=lambda K: np.diag([2.0, 2, 1]) @ K),
    Cause("images are turned by 90 degrees against the poses", pose=lambda pose: _roll(pose, 1)),
    Cause("images are turned by 90 degrees against the poses", pose=lambda pose: _roll(pose, 3)),
    Cause("images are turned by 180 degrees against the poses", pose=lambda pose: _roll(pose, 2)),
    Cause("depth is mirrored against the poses", bent=lambda depth: depth[:, ::-1]),
    Cause("depth is upside down against the poses", bent=lambda depth: depth[::-1]),
    Cause("depth is turned by 180 degrees against the poses", bent=lambda depth: depth[::-1, ::-1]),
]
OF_OPENGL = {  # the same of files whose poses should have OpenGL axes
    CAUSES[0].text: "poses have OpenCV axes (y down, z forward) instead of OpenGL's",
    CAUSES[1].text: "poses are world-to-camera with OpenCV axes",
    CAUSES[2].text: "poses are world-to-camera instead of camera-to-world",
}
AS_IT_IS = Cause("")
ALONG_RAYS = Cause(
    "depth is the distance along the ray of each pixel, not z-depth along the optical axis", along_rays=True
)
STANDING_STILL = Cause("the positions of the cameras do not fit (frames agree as well if none moves)", pose=_still)
SWAPPED, FEWEST_OF_COLOR, COLORFUL = -0.5, 1000, 3.0  # correlation of red less blue; pixels; of 255, its spread
FEWEST_PIXELS = 100  # that show the same surface, for colours to be compared
TURNS = {  # what may have happened to colour alone: its name, and what undoes it
    "turned by 180 degrees": lambda image: image[::-1, ::-1],
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
}


def choose_pairs(scene: Scene, count: int) -> list[Pair]:
    """Choose pairs spread over the scene whose views differ by a moderate angle (whatever is wrong with the poses'
    convention, the angle between two of them is right). Frames that cannot be read are left to the inventory."""
    rotations = scene.camera_to_world[:, :3, :3]
    pairs = []
    for first in np.unique(np.linspace(0, max(0, len(scene) - 2), count).round().astype(int)):
        cosine = (np.einsum("ij,nij->n", rotations[first], rotations[first + 1 :]) - 1) / 2
        angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        fitting = np.flatnonzero((angles > PAIR_ANGLES[0]) & (angles < PAIR_ANGLES[1]))
        place = len(pairs) % NEAREST_OF  # at other distances, so that what every other frame has is seen
        second = first + 1 + (int(fitting[min(place, len(fitting) - 1)]) if len(fitting) else 0)
        if second < len(scene):
            pairs.append(_read_pair(scene, scene.frame_ids[first], scene.frame_ids[second]))
    return [pair for pair in pairs if pair is not None]


def _read_pair(scene: Scene, first: str, second: str) -> Pair | None:
    try:
        views = scene.views([first, second], depth=True)
    except UserError:
        return None
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
    return Consistency(
        len(pairs),
        float(agreements.mean()),
        float(np.quantile(agreements, BEST_PAIRS)),
        float(np.median(depth_errors)) if depth_errors else float("nan"),
        float(color),
        float(best_color),
        float(detail),
        float(best_detail),
        find_cause(pairs, opengl) or cause,
        color_cause or find_color_cause(pairs, warps, float(detail)),
    )


# What is wrong with the geometry


def find_cause(pairs: list[Pair], opengl: bool = False) -> str | None:
    """Return what would make frames agree clearly better than they do; None if nothing that is known here does."""
    as_it_is = agreement_under(AS_IT_IS, pairs)
    now = as_it_is.mean()
    scores = {cause: agreement_under(cause, pairs).mean() for cause in [*CAUSES, *map(of_focal_length, FOCAL_FACTORS)]}
    best = max(scores, key=scores.__getitem__)
    times, more = CLEARLY_BETTER
    to_beat = max(now, scores[best]) if scores[best] > now + more else now
    if now < BEND_BELOW and (bend := find_bend(pairs)):
        scores[bend] = agreement_under(bend, pairs).mean()
        best = max(best, bend, key=scores.__getitem__)
        to_beat = max(to_beat, scores[bend] - more)  # a unit is the simpler reason
    scale = find_scale(pairs, as_it_is, to_beat)
    if scale is not None:
        return scale
    if scores[best] > max(times * now, now + more, ENOUGH_AGREEMENT):
        return OF_OPENGL.get(best.text, best.text) if opengl else best.text
    fine = [agreement_under(cause, pairs, FINE_TOLERANCES) for cause in (AS_IT_IS, ALONG_RAYS)]
    gains = fine[1] - fine[0]
    if gains.mean() > max(SCALE_GAIN, SCALE_SURE * gains.std() / np.sqrt(len(gains))):
        return ALONG_RAYS.text
    still = agreement_under(STANDING_STILL, pairs).mean()
    return STANDING_STILL.text if _cameras_move(pairs) and still > max(times * now, now + more) else None


def agreement_under(cause: Cause, pairs: list[Pair], tolerances: tuple[float, ...] = TOLERANCES) -> np.ndarray:
    """Return the agreement of each pair, (N,)."""
    return np.array([warp(pair, cause, STRIDE, tolerances).agreement for pair in pairs])


def _cameras_move(pairs: list[Pair]) -> bool:
    return any(np.linalg.norm(pair.poses[0][:3, 3] - pair.poses[1][:3, 3]) > 0.01 for pair in pairs)


def of_focal_length(factor: float) -> Cause:
    lengths = np.array([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    return Cause(
        f"the focal length does not fit: frames agree if it is {factor:.2g} times as long", K=lambda K: K * lengths
    )


def find_bend(pairs: list[Pair]) -> Cause | None:
    """Return the best of the causes that depth is a linear function of distance, or of its inverse, with unknown ends: a disparity, a
    depth buffer, values stretched to those of a file. None where none makes frames agree."""
    known = np.concatenate([depth[depth > 0] for pair in pairs for depth in pair.depths] or [np.zeros(0)])
    low, high = np.quantile(known, BEND_ENDS) if len(known) else (0, 0)
    if not low < high:
        return None

    def cause(inverse: bool, first: float, last: float) -> Cause:
        """first, last: metres at the ends."""
        a, b = (1 / first, 1 / last) if inverse else (first, last)

        def bend(depth: np.ndarray) -> np.ndarray:
            value = np.maximum(a + (depth - low) / (high - low) * (b - a), 1e-3)
            return np.where(depth > 0, 1 / value if inverse else value, 0)

        return Cause(_bend_text(inverse, first, last), bent=bend)

    def score(candidate: tuple[bool, float, float]) -> float:
        return float(agreement_under(cause(*candidate), some, BEND_TOLERANCES).mean())

    some = pairs[::2]
    tried = [(inverse, a, b) for inverse in (True, False) for a in BEND_METRES for b in BEND_METRES if a != b]
    best = max(tried, key=score)
    for step in BEND_STEPS:
        inverse, a, b = best
        best = max(((inverse, a * s, b * t) for s in (1 / step, 1, step) for t in (1 / step, 1, step)), key=score)
    still = agreement_under(STANDING_STILL, pairs).mean()
    found = agreement_under(cause(*best), pairs).mean()
    return cause(*best) if found > max(ENOUGH_AGREEMENT, still + PARALLAX * (1 - still)) else None


def _bend_text(inverse: bool, first: float, last: float) -> str:
    ends = f"its smallest values stand for about {first:.1g} m and its largest for {last:.1g} m"
    if not inverse:
        return f"depth is stretched to the numbers of its files, not in a unit: {ends}"
    return f"depth is {'inverse depth, or disparity' if first > last else 'that of a depth buffer, 1/z'}: {ends}"


def find_scale(pairs: list[Pair], as_it_is: np.ndarray, to_beat: float) -> str | None:
    """Return what a factor of depth that makes frames agree better says of units; None if there is none."""

    def score(factor: float, tolerances: tuple[float, ...] = TOLERANCES) -> np.ndarray:
        return agreement_under(Cause("", depth=float(factor)), pairs, tolerances)

    coarse = max(FACTORS, key=lambda factor: score(factor).mean())
    factor = float(max(coarse * FINE_FACTORS, key=lambda factor: score(factor, FINE_TOLERANCES).mean()))
    found = score(factor)
    gains = found - as_it_is
    sure = gains.mean() > max(SCALE_GAIN, SCALE_SURE * gains.std() / np.sqrt(len(gains)))
    still = agreement_under(STANDING_STILL, pairs).mean()
    moves = found.mean() > still + PARALLAX * (1 - still)  # else any large factor does: it makes positions vanish
    if abs(np.log(factor)) < SCALE_OFF or not sure or not moves or found.mean() <= to_beat:
        return None
    middle = np.median(np.concatenate([depth[depth > 0] for pair in pairs for depth in pair.depths]))
    return describe_scale(factor, float(middle))


def describe_scale(factor: float, middle: float) -> str:
    """Return what it means that depth, read as millimetres and `middle` metres in the middle, fits the poses times `factor`."""
    unit = min(UNITS, key=lambda unit: abs(np.log(factor * 0.001 / unit)))
    distance = factor * 0.001 / unit - 1
    near, far = ROOM_DEPTH
    plausible = near <= middle <= far
    if abs(distance) < NEAR_A_UNIT and not plausible:
        return (
            f"depth is not in millimetres but in {UNITS[unit]} (the factor {factor:.4g} is {abs(distance):.1%} from it)"
        )
    told = f"the nearest known unit of depth, {UNITS[unit]}, is {abs(distance):.0%} from that"
    larger = f"{1 / factor:.3g} times too small" if factor < 1 else f"{factor:.3g} times too large"
    return f"depth and positions do not fit: positions are {larger} for the depth, or depth is in another unit ({told})"


# What is wrong with the colour


def compare_color(pair: Pair, one: Warp, turn=lambda image: image) -> tuple[float, float]:
    """Return, where surfaces agree, the median difference of colour, 0 to 1, and the correlation of fine detail. turn:
    what is done to the colour images first."""
    source, rows, columns = one.source[one.visible], one.rows[one.visible], one.columns[one.visible]
    if len(source) < FEWEST_PIXELS:
        return float("nan"), float("nan")
    first, second = (np.ascontiguousarray(turn(image)).astype(np.float32) for image in pair.colors)
    difference = np.abs(first.reshape(-1, 3)[source] - second[rows, columns]).mean(-1)
    first_detail, second_detail = _detail(first).ravel()[source], _detail(second)[rows, columns]
    spread = first_detail.std() * second_detail.std()
    covariance = ((first_detail - first_detail.mean()) * (second_detail - second_detail.mean())).mean()
    return float(np.median(difference)) / 255, float(covariance / spread) if spread > 1e-3 else float("nan")


def is_swapped(pair: Pair, one: Warp) -> bool:
    """Return whether red and blue are the other way round in one of two frames: where surfaces agree, what is red in one is blue in the
    other."""
    source, rows, columns = one.source[one.visible], one.rows[one.visible], one.columns[one.visible]
    colors = pair.colors[0].reshape(-1, 3)[source], pair.colors[1][rows, columns]
    redness = np.stack([color[:, 0].astype(float) - color[:, 2] for color in colors])
    if len(source) < FEWEST_OF_COLOR or redness.std(1).min() < COLORFUL:
        return False
    return bool(np.corrcoef(redness)[0, 1] < SWAPPED)


def _detail(image: np.ndarray) -> np.ndarray:
    """Return what is finer than a 60th of the width, (h, w)."""
    grey = image.mean(-1)
    return grey - cv2.GaussianBlur(grey, (0, 0), grey.shape[1] / DETAIL_SIZE)


def find_color_cause(pairs: list[Pair], warps: list[Warp], now: float) -> str | None:
    """Return what is wrong with colour: red and blue, or how it lies against depth and poses, where another way fits much better; None
    otherwise."""
    if swapped := [pair.frames for pair, one in zip(pairs, warps, strict=True) if is_swapped(pair, one)]:
        some = ", ".join(f"one of {first} and {second}" for first, second in swapped[:3])
        return f"red and blue are swapped in some frames, and not in others ({some})"
    found = {}
    for name, turn in TURNS.items():
        details = [compare_color(pair, one, turn)[1] for pair, one in zip(pairs, warps, strict=True)]
        found[name] = np.median([detail for detail in details if np.isfinite(detail)] or [-1.0])
    name = max(found, key=found.get)
    if found[name] > max(ENOUGH_DETAIL, now + 0.3):
        return f"colour is {name} against depth"
    frames = {
        name: (color, depth)
        for pair in pairs
        for name, color, depth in zip(pair.frames, pair.colors, pair.depths, strict=True)
    }
    misalignment = find_misalignment(*map(list, zip(*frames.values(), strict=True)))
    return None if misalignment is None else str(misalignment)
