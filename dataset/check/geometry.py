"""What is wrong with poses, intrinsics or the unit of depth, where frames do not agree: what would make them agree?"""

from __future__ import annotations

import numpy as np

from dataset.check.color import compare_color
from dataset.check.warping import AS_IT_IS, TOLERANCES, Cause, Pair, warp

ENOUGH_AGREEMENT = 0.5  # of the pixels that land in the other frame, in an average pair of a good scene
CLEARLY_BETTER = (1.15, 0.08)  # times as much agreement, and so much more, names a cause
TIED = 0.02  # of agreement: causes that are so near each other are told apart by colour
STRIDE = 4  # pixels between those that are moved when causes are tried
FACTORS = np.geomspace(1 / 2000, 2000, 101)  # of depth, that are tried
FINE_FACTORS = np.geomspace(0.91, 1.09, 37)
FINE_TOLERANCES = (0.003, 0.005, 0.01)  # that tell near factors apart
SCALE_OFF, SCALE_SURE, SCALE_GAIN = 0.04, 3.0, 0.02  # a factor counts from 4% on, at 3 standard errors, if it gains 2%
FOCAL_FACTORS = [factor for factor in np.geomspace(0.2, 5, 33) if abs(np.log(factor)) > 0.15]
CENTRE_SHIFTS, CENTRE_STEPS = (
    (-0.1, -0.05, 0.0, 0.05, 0.1),
    (0.025, 0.0125),
)  # of the principal point, in image sizes: coarse, then finer
CENTRE_GAIN = 0.05  # of agreement at the fine tolerances, that such a shift counts from
BEND_BELOW = 0.6  # agreement, from which on none is looked for
BEND_ENDS = (0.02, 0.98)  # quantiles of depth
BEND_RATIO = 1.3  # between them at least: at one distance alone anything fits
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
LENGTH_UNITS = {0.001: "millimetres", 0.01: "centimetres", 0.0254: "inches", 0.3048: "feet"}  # of positions


def _flip_axes(pose):
    return pose @ np.diag([1.0, -1, -1, 1])


def _roll(pose, quarters):
    cosine, sine = round(np.cos(quarters * np.pi / 2)), round(np.sin(quarters * np.pi / 2))
    return pose @ np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def _transpose(pose):
    return np.block([[pose[:3, :3].T, pose[:3, 3:]], [pose[3:]]])


def _mirror(axis):
    """Return what makes right-handed coordinates of left-handed ones: their axis the other way round, of world and camera."""
    flip = np.ones(4)
    flip[axis] = -1
    return lambda pose: np.diag(flip) @ pose @ np.diag(flip)


def _swap_axes(K):
    return K[[1, 0, 2]][:, [1, 0, 2]]


def _still(pose):
    return np.block([[pose[:3, :3], np.zeros((3, 1))], [np.eye(4)[3:]]])


CAUSES = [
    Cause("poses have OpenGL axes (y up, z backward) instead of OpenCV's", pose=_flip_axes),
    Cause("poses are world-to-camera instead of camera-to-world", pose=np.linalg.inv),
    Cause("poses are world-to-camera with OpenGL axes", pose=lambda pose: _flip_axes(np.linalg.inv(pose))),
    Cause("rotations are world-to-camera (transposed), though positions are those of the cameras", pose=_transpose),
    Cause(
        "rotations are world-to-camera (transposed), though positions are those of the cameras",
        pose=lambda pose: _flip_axes(_transpose(_flip_axes(pose))),
    ),
    *(
        Cause(
            f"coordinates are left-handed (as of Unity, Unreal or DirectX): turn the sign of row and of column {name} of the poses",
            pose=_mirror(axis),
        )
        for axis, name in enumerate("xyz")
    ),
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
ALONG_RAYS = Cause(
    "depth is the distance along the ray of each pixel, not z-depth along the optical axis", along_rays=True
)
STANDING_STILL = Cause("the positions of the cameras do not fit (frames agree as well if none moves)", pose=_still)


def find_cause(pairs: list[Pair], opengl: bool = False) -> str | None:
    """Return what would make frames agree clearly better than they do; None if nothing that is known here does."""
    as_it_is = agreement_under(AS_IT_IS, pairs)
    now = as_it_is.mean()
    scores = {cause: agreement_under(cause, pairs).mean() for cause in [*CAUSES, *map(of_focal_length, FOCAL_FACTORS)]}
    best = max(scores, key=scores.__getitem__)
    times, more = CLEARLY_BETTER
    if scores[best] > now + more:
        best = _that_fits_color(scores, pairs)
    to_beat = scores[best] if scores[best] > now + more else now
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


def _that_fits_color(scores: dict[Cause, float], pairs: list[Pair]) -> Cause:
    """Return the best of the causes; of those that depth alone cannot tell apart (its mirror image, and that of the poses), the one
    under which colours fit."""
    best = max(scores, key=scores.__getitem__)
    tied = [cause for cause in scores if scores[cause] > scores[best] - TIED]
    if len(tied) == 1:
        return best

    def detail(cause: Cause) -> float:
        found = [compare_color(pair, warp(pair, cause))[1] for pair in pairs]
        return float(np.mean(np.nan_to_num(found)))

    return max(tied, key=detail)


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


def find_centre(pairs: list[Pair]) -> str | None:
    """Return where the principal point seems to be, if frames agree clearly better with it than as they are; None otherwise."""
    height, width = pairs[0].depths[0].shape

    def score(shift: tuple[float, float]) -> np.ndarray:
        by = np.array([[0, 0, shift[0] * width], [0, 0, shift[1] * height], [0, 0, 0]])
        return agreement_under(Cause("", K=lambda K: K + by), pairs, FINE_TOLERANCES)

    as_it_is = score((0, 0))
    best = max(((x, y) for x in CENTRE_SHIFTS for y in CENTRE_SHIFTS), key=lambda shift: score(shift).mean())
    for step in CENTRE_STEPS:
        around = [(best[0] + x * step, best[1] + y * step) for x in (-1, 0, 1) for y in (-1, 0, 1)]
        best = max(around, key=lambda shift: score(shift).mean())
    gains = score(best) - as_it_is
    if gains.mean() <= max(CENTRE_GAIN, SCALE_SURE * gains.std() / np.sqrt(len(gains))):
        return None
    return (
        f"the principal point does not fit: frames agree if it lies {best[0]:+.0%} of the width to the right and {best[1]:+.0%} of the "
        "height further down; were images cropped?"
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
        around = [(inverse, a * s, b * t) for s in (1 / step, 1, step) for t in (1 / step, 1, step)]
        best = max([ends for ends in around if max(ends[1:]) > BEND_RATIO * min(ends[1:])] or [best], key=score)
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
    length = min(LENGTH_UNITS, key=lambda length: abs(np.log(factor * length)))
    if plausible and abs(factor * length - 1) < NEAR_A_UNIT:
        return (
            f"depth and positions do not fit: positions are in {LENGTH_UNITS[length]} ({factor:.3g} times too large for the depth); "
            "give them in metres"
        )
    told = f"the nearest known unit of depth, {UNITS[unit]}, is {abs(distance):.0%} from that"
    larger = f"{1 / factor:.3g} times too small" if factor < 1 else f"{factor:.3g} times too large"
    return f"depth and positions do not fit: positions are {larger} for the depth, or depth is in another unit ({told})"
