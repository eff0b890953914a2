"""Estimation of near and far of a scene from depth maps, or from feature matches between its images.

A tight range places samples near surfaces. The estimates are robust to a few wrong depths, matches or frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np

from dataset.view_selection import evenly

DEPTH_FRAMES = 32  # frames whose depth is read
DEPTH_MARGIN = 1.25  # factor by which near and far are extended beyond the depth in these frames
MATCHED_FRAMES = 16  # frames that are each matched with one other frame
MATCH_MARGINS = 1.8, 1.5  # like DEPTH_MARGIN, of near and far; larger, since untextured surfaces have no matches
FEWEST_MATCHES = 30  # with fewer matches there is no estimate
# A frame is matched with the farthest of its so many nearest frames whose viewing direction has at least this cosine.
NEIGHBOURHOOD, SIMILAR_VIEW = 10, np.cos(np.radians(25))
MOST_PIXELS_OFF = 1.0  # largest reprojection error of a triangulated point
LEAST_PARALLAX = np.radians(1.0)
DEPTH_ENDS, MATCH_ENDS = (1, 99), (5, 95)  # percentiles


def range_of_depth(maps: Iterable[np.ndarray]) -> tuple[float, float] | None:
    """Return near and far in metres of depth maps (h, w) uint16 in millimetres, 0 where unknown; None if all is
    unknown.

    The ends of each map leave out its most extreme hundredth, those of the scene the most extreme twentieth of maps.
    """
    ends = [np.percentile(depth[depth > 0], DEPTH_ENDS) / 1000 for depth in maps if (depth > 0).any()]
    if not ends:
        return None
    near, far = np.array(ends).T
    return float(np.percentile(near, 5) / DEPTH_MARGIN), float(np.percentile(far, 95) * DEPTH_MARGIN)


def range_of_matches(
    images: Mapping[int, np.ndarray], camera_to_world: np.ndarray, Ks: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> tuple[float, float] | None:
    """Return near and far in metres of points that are triangulated from pairs of images; None if there are too few.

    images: index -> (h, w, 3) uint8, of those in `pairs`. camera_to_world (N, 4, 4), Ks (N, 3, 3): of all images. SIFT
    matches are triangulated with the known poses; points behind a camera, with a large reprojection error or a small
    parallax are dropped.
    """
    detector, matcher = cv2.SIFT_create(1000), cv2.BFMatcher(crossCheck=True)
    found = {i: _features(detector, images[i]) for pair in pairs for i in pair}
    depths = []
    for first, second in pairs:
        (points, descriptors), (other_points, other_descriptors) = found[first], found[second]
        if len(points) and len(other_points):
            matches = [(match.queryIdx, match.trainIdx) for match in matcher.match(descriptors, other_descriptors)]
            here, there = np.array(matches, int).reshape(-1, 2).T
            views = [(camera_to_world[i], Ks[i]) for i in (first, second)]
            depths.append(triangulate(points[here], other_points[there], *views))
    depths = np.concatenate([*depths, np.empty((0, 2))])
    if len(depths) < FEWEST_MATCHES:
        return None
    near, far = np.percentile(depths, MATCH_ENDS)
    return float(near / MATCH_MARGINS[0]), float(far * MATCH_MARGINS[1])


def matching_pairs(camera_to_world: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of cameras (N, 4, 4) with similar viewing directions and a wide baseline."""
    centres, axes = camera_to_world[:, :3, 3], camera_to_world[:, :3, 2]
    pairs = []
    for first in evenly(range(len(centres)), MATCHED_FRAMES):
        distances = np.linalg.norm(centres - centres[first], axis=1)
        similar = np.flatnonzero((axes @ axes[first] > SIMILAR_VIEW) & (distances > 1e-6))
        if len(similar):
            pairs.append((first, int(similar[np.argsort(distances[similar])][:NEIGHBOURHOOD][-1])))
    return pairs


def _features(detector: cv2.SIFT, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints (n, 2) in pixels and their descriptors (n, 128)."""
    keypoints, descriptors = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    return np.array([point.pt for point in keypoints]).reshape(-1, 2), descriptors


def triangulate(points: np.ndarray, others: np.ndarray, view: tuple, other: tuple) -> np.ndarray:
    """Return the z-depths in both views, (n, 2), of the matches (N, 2) each that fit the poses.

    A view is its camera-to-world (4, 4) and K (3, 3).
    """
    projections = [K @ np.linalg.inv(pose)[:3] for pose, K in (view, other)]
    homogeneous = cv2.triangulatePoints(*projections, points.T.copy(), others.T.copy())
    with np.errstate(divide="ignore", invalid="ignore"):
        world = np.concatenate([homogeneous[:3] / homogeneous[3], np.ones((1, len(points)))])
        landed = [projection @ world for projection in projections]
        off = [np.linalg.norm(p[:2] / p[2] - seen.T, axis=0) for p, seen in zip(landed, (points, others), strict=True)]
        rays = [world[:3] - pose[:3, 3:] for pose, _ in (view, other)]
        cosine = (rays[0] * rays[1]).sum(0) / np.prod(np.linalg.norm(rays, axis=1), axis=0)
        depths = np.stack([p[2] for p in landed], -1)
        good = (np.max(off, 0) < MOST_PIXELS_OFF) & (depths > 0).all(1) & (cosine < np.cos(LEAST_PARALLAX))
    return depths[good]
