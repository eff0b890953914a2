"""Walks through rooms of models that look at the furniture and keep clear of it."""

from __future__ import annotations

import numpy as np

from dataset.synthetic.meshes import MeshRoom
from dataset.synthetic.placing import CLEARANCE, look

STEP_ANGLE = np.radians(3.0)  # between consecutive frames of the walk around the room
MOST_STOOP = 0.3  # radians: largest constant downward tilt, as people record what lies on tables and floors
MOST_ROLL = 0.15  # radians: largest roll of a hand-held camera to either side


def walk(room: MeshRoom, frames: int, seed: int) -> np.ndarray:
    """Return a smooth walk around the room that looks across it, from one piece of furniture to the next:
    camera-to-world (frames, 4, 4), OpenCV axes."""
    rng = np.random.default_rng([seed, 8])
    phases, start = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0, 2 * np.pi)
    angle = start + rng.choice([-1, 1]) * STEP_ANGLE * np.arange(frames)
    radius = 0.23 + 0.05 * np.sin(1.7 * angle + phases[0])
    across = np.stack([np.cos(angle), np.sin(angle)], -1) * radius[:, None]
    height = rng.uniform(1.3, 1.65) + 0.1 * np.sin(2.3 * angle + phases[1])
    positions = _clear_path(room, across, height)
    towards = _sight(room, angle + np.pi + 0.3 * np.sin(1.3 * angle + phases[2])) - positions
    heading = np.arctan2(towards[:, 1], towards[:, 0])
    pitch = np.arctan2(-towards[:, 2], np.linalg.norm(towards[:, :2], axis=1)) + 0.06 * np.sin(1.9 * angle + phases[3])
    stoop, sway = rng.uniform(0, MOST_STOOP), rng.uniform(0, MOST_ROLL)
    roll = sway * np.sin(3.1 * angle + phases[0])
    return look(positions, heading, (pitch + stoop).clip(0.05, 0.6 + stoop), roll)


def _clear_path(room: MeshRoom, across: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return positions (N, 3) near the ellipse `across` (N, 2) that keep CLEARANCE from all parts.

    across: relative to the centre of the room, in fractions of its size. The ellipse is contracted if it is blocked;
    of several attempts the one with the largest clearance is returned.
    """
    bounds = np.array([part.bounds() for part in room.parts])
    low, high = bounds[:, 0], bounds[:, 1]
    best, most = None, -1.0
    for share in (1.0, 0.85, 0.7, 0.5, 0.3):
        path = np.concatenate([room.size[:2] * (0.5 + share * across), height[:, None]], -1)
        for step in range(60):
            away = path[:, None] - np.clip(path[:, None], low, high)
            far = np.linalg.norm(away, axis=-1, keepdims=True)
            away = np.where(far > 1e-6, away, path[:, None] - (low + high) / 2)  # inside a part: away from its centre
            away /= np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-6)
            push = away * np.maximum(1.2 * CLEARANCE - far, 0)
            path[:, :2] += 0.5 * push[..., :2].sum(1).clip(-0.1, 0.1)
            if step < 45:  # the last steps only push, to undo the effect of smoothing
                path[1:-1] = 0.5 * path[1:-1] + 0.25 * (path[2:] + path[:-2])
        clear = np.linalg.norm(path[:, None] - np.clip(path[:, None], low, high), axis=-1).min()
        if clear > most:
            best, most = path, clear
        if clear >= CLEARANCE:
            break
    return best


def _sight(room: MeshRoom, bearing: np.ndarray) -> np.ndarray:
    """Return points (N, 3) to look at in directions `bearing` (N,) from the centre of the room: a smooth mean of nearby
    furniture and the wall."""
    middle = room.size * [0.5, 0.5, 0]
    outward = room.sights - middle
    apart = bearing[:, None] - np.arctan2(outward[:, 1], outward[:, 0])
    weight = np.exp(4 * (np.cos(apart) - 1)) * np.minimum(np.linalg.norm(outward[:, :2], axis=1), 1)
    wall = middle + np.stack(
        [0.42 * room.size[0] * np.cos(bearing), 0.42 * room.size[1] * np.sin(bearing), 0 * bearing + 0.9], -1
    )
    total = weight.sum(1, keepdims=True) + 0.5
    return (weight @ room.sights + 0.5 * wall) / total
