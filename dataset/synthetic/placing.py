"""Placement of furniture along walls without overlap, and of cameras clear of everything."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dataset.synthetic.meshes import Mesh
from dataset.synthetic.parts import Box, rotation_z

Part = Box | Mesh
CLEARANCE = 0.3  # metres between a camera and any part


@dataclass
class Plan:
    """The floor plan of a room of `size` (x, y, z), updated as objects are placed.

    floor: footprints (x0, y0, x1, y1). walls: for each wall the occupied intervals as (from, to, lowest point). tall:
    height above which a standing object also occupies its wall. All in metres.
    """

    size: np.ndarray
    floor: list[np.ndarray] = field(default_factory=list)
    tall: float = np.inf
    walls: tuple[list, ...] = field(default_factory=lambda: ([], [], [], []))

    def hang(self, rng, parts: list[Part]) -> list[Part]:
        """Return parts moved to a free interval of a wall; [] if there is none."""
        low, high = extent(parts)
        for wall, interval, turn, offset in self._places_at_walls(rng, low, high):
            if not any(_cross(interval, other) for other in self.walls[wall]):
                self.walls[wall].append((*interval, low[2]))
                return [part.moved(turn, offset) for part in parts]
        return []

    def stand(self, rng, parts: list[Part]) -> list[Part]:
        """Return parts moved to a wall where the floor is free and nothing hangs that they would cover; [] if there is
        no such place."""
        low, high = extent(parts)
        for wall, interval, turn, offset in self._places_at_walls(rng, low, high):
            covers = any(_cross(interval, other) and high[2] > other[2] for other in self.walls[wall])
            if not covers and self._claim(_footprint(turn @ low + offset, turn @ high + offset)):
                if high[2] > self.tall:
                    self.walls[wall].append((*interval, low[2]))
                return [part.moved(turn, offset) for part in parts]
        return []

    def claim(self, *things: list[Part]) -> bool:
        """Return whether the footprints of several objects are all free, and if so mark them as occupied."""
        return self._claim(*(_footprint(*extent(parts)) for parts in things))

    def _claim(self, *footprints: np.ndarray) -> bool:
        if any(_overlap(a, b) for a in footprints for b in self.floor):
            return False
        self.floor += footprints
        return True

    def _places_at_walls(self, rng, low, high, tries: int = 40):
        """Yield random places with the back at a wall, for objects between two corners: (wall, (from, to) along it,
        rotation, offset)."""
        size = self.size
        corners = [(0, 0), (size[0], 0), (size[0], size[1]), (0, size[1])]
        for _ in range(tries):
            wall = int(rng.integers(4))
            free = size[wall % 2] - (high[0] - low[0]) - 0.1
            if free > 0:
                along = 0.05 - low[0] + rng.uniform(0, free)
                turn = rotation_z(wall * np.pi / 2)
                offset = np.array([*corners[wall], 0]) + turn @ np.array([along, 0.005 - low[1], 0])
                yield wall, (along + low[0] - 0.05, along + high[0] + 0.05), turn, offset


def extent(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest corner (3,) of the axis-aligned box around all parts."""
    low, high = zip(*(part.bounds() for part in parts), strict=True)
    return np.min(low, 0), np.max(high, 0)


def look(positions: np.ndarray, heading: np.ndarray, pitch: np.ndarray, roll: np.ndarray | float = 0.0) -> np.ndarray:
    """Return camera-to-world poses (N, 4, 4), OpenCV axes, of cameras at positions (N, 3).

    heading: (N,) angle about the z axis. pitch: (N,) downward angle. roll: (N,) angle about the viewing direction. All
    in radians.
    """
    forward = np.stack([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), -np.sin(pitch)], -1)
    right = np.stack([np.sin(heading), -np.cos(heading), np.zeros(len(heading))], -1)
    down = np.cross(forward, right)
    cos, sin = (np.broadcast_to(f(roll), len(heading))[:, None] for f in (np.cos, np.sin))
    poses = np.tile(np.eye(4), (len(heading), 1, 1))
    poses[:, :3] = np.stack([cos * right + sin * down, cos * down - sin * right, forward, positions], -1)
    return poses


def keep_clear(parts: list[Part], size: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return positions (N, 3) further than CLEARANCE from all parts. The whole path is raised, so that it stays smooth,
    and if that is not enough contracted towards its mean."""
    for lift in np.arange(0, 0.8, 0.05):
        raised = np.minimum(positions + [0, 0, lift], [np.inf, np.inf, size[2] - CLEARANCE])
        if min(part.distance(raised).min() for part in parts) > CLEARANCE:
            return raised
    middle = positions.mean(0)
    return keep_clear(parts, size, middle + 0.8 * (positions - middle))


def _cross(a, b) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _footprint(corner: np.ndarray, opposite: np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(corner, opposite)[:2], np.maximum(corner, opposite)[:2]])


def _overlap(a: np.ndarray, b: np.ndarray, margin: float = 0.04) -> bool:
    return bool((a[:2] - margin < b[2:]).all() and (b[:2] - margin < a[2:]).all())
