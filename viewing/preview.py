"""Preview pictures of geometry from above. Back faces are left out, so that one looks into rooms."""

from __future__ import annotations

import cv2
import numpy as np

from utils.panels import BACKGROUND, legend
from viewing.paths import look
from viewing.ply import Geometry
from viewing.session import Classes

WIDTH = 640  # pixels of each of the two views
TILT, TURN = np.radians(55), np.radians(35)  # viewing direction: below the horizon, and about the vertical
CEILING = 0.12  # share of the height at the top that is left out of point clouds, which have no back faces
LIGHT = 0.7  # brightness of a face that is turned away from the light


def preview(geometry: Geometry, classes: Classes | None, up: np.ndarray) -> np.ndarray:
    """Return a picture of colour and, if there are any, classes beside it with a legend: (h, w, 3) uint8. up: (3,)."""
    positions, normals, owner = _surface(geometry)
    axes = look(np.zeros(3), _downward(up), up)[:3, :3]
    shown = _facing(positions, normals, axes, up)
    shade = np.ones(len(owner)) if normals is None else LIGHT + (1 - LIGHT) * (normals @ up).clip(0, 1)
    positions, owner, shade = positions[shown], owner[shown], shade[shown]
    paints = [geometry.color] if geometry.classes is None else [geometry.color, classes.colors[geometry.classes]]
    pictures = _splat(positions @ axes, [paint[owner] * shade[:, None] for paint in paints])
    row = np.concatenate(pictures, 1)
    if geometry.classes is None:
        return row
    present = np.flatnonzero(np.bincount(geometry.classes[owner]))
    below = legend([classes.names[i] for i in present], classes.colors[present], row.shape[1])
    return np.concatenate([row, below])


def _downward(up: np.ndarray) -> np.ndarray:
    """Return the viewing direction: down at an angle."""
    flat = look(np.zeros(3), np.eye(3)[int(np.argmin(np.abs(up)))], up)[:3]
    ahead = flat[:, 2] - (flat[:, 2] @ up) * up
    side = np.cross(up, ahead)
    around = np.cos(TURN) * ahead + np.sin(TURN) * side
    return np.cos(TILT) * around / np.linalg.norm(around) - np.sin(TILT) * up


def _surface(geometry: Geometry) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return points to draw, their normals (None for a point cloud), and the index of the vertex with the colour of
    each."""
    if geometry.faces is None:
        return geometry.positions, None, np.arange(len(geometry))
    corners = geometry.positions[geometry.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    middles = corners.mean(1)
    points = np.concatenate([middles, *[(corners[:, i] + middles) / 2 for i in range(3)]])
    return points, np.tile(normals, (4, 1)), np.concatenate([geometry.faces[:, 0], *geometry.faces.T])


def _facing(positions, normals, axes, up) -> np.ndarray:
    if normals is not None:
        return normals @ axes[:, 2] < 0
    height = positions @ up
    low, high = np.quantile(height, [0.01, 0.99])
    return height < high - CEILING * (high - low)


def _splat(seen: np.ndarray, paints: list[np.ndarray]) -> list[np.ndarray]:
    """Render orthographic pictures of points (N, 3) in the camera's axes, with occlusion."""
    low, high = np.quantile(seen[:, :2], [0.002, 0.998], axis=0)
    scale = (WIDTH - 20) / max(high[0] - low[0], 1e-6)
    height = int(min((high[1] - low[1]) * scale, 2 * WIDTH)) + 20
    x, y = ((seen[:, :2] - low) * scale + 10).round().astype(int).T
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < height)
    order = np.flatnonzero(inside)[np.argsort(-seen[inside, 2], kind="stable")]
    pictures = []
    for paint in paints:
        canvas = np.full((height, WIDTH, 3), BACKGROUND, np.uint8)
        canvas[y[order], x[order]] = paint[order].clip(0, 255).astype(np.uint8)
        covered = np.zeros((height, WIDTH), np.uint8)
        covered[y[order], x[order]] = 1
        pictures.append(_fill(canvas, covered))
    return pictures


def _fill(canvas: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Fill small gaps between points with the mean colour around them."""
    closed = cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    blurred = cv2.blur(canvas * covered[..., None].astype(np.float32), (5, 5))
    share = cv2.blur(covered.astype(np.float32), (5, 5))
    between = (closed > 0) & (covered == 0) & (share > 0)
    canvas = canvas.copy()
    canvas[between] = (blurred[between] / share[between][:, None]).astype(np.uint8)
    return canvas
