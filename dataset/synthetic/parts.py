"""Boxes with a material and a class, and rooms of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

PATTERNS = (
    "plain",
    "stripes",
    "tiles",
    "planks",
    "fabric",
    "books",
    "painting",
    "brick",
    "speckle",
    "weave",
    "motif",
    "checks",
)


@dataclass(frozen=True)
class Material:
    """A pattern of PATTERNS in two linear RGB colours in [0, 1], with a period of `scale` metres."""

    color: tuple[float, float, float]
    second: tuple[float, float, float]
    pattern: str = "plain"
    scale: float = 0.1
    glow: float = 0.0  # emitted light, in the units of incoming light

    @classmethod
    def of(
        cls, color, pattern: str = "plain", scale: float = 0.1, contrast: float = 0.35, glow: float = 0.0
    ) -> Material:
        """Return a material whose second colour is a darker shade of the first."""
        color = tuple(float(c) for c in color)
        return cls(color, tuple(c * (1 - contrast) for c in color), pattern, scale, glow)


@dataclass(frozen=True)
class Box:
    """An oriented box. centre: (3,) metres. half: (3,) half sizes. rotation: (3, 3) from its axes to the world."""

    centre: np.ndarray
    half: np.ndarray
    rotation: np.ndarray
    label: str
    material: Material

    def moved(self, rotation: np.ndarray, offset: np.ndarray) -> Box:
        return replace(self, centre=rotation @ self.centre + offset, rotation=rotation @ self.rotation)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest corner (3,)."""
        reach = np.abs(self.rotation) @ self.half
        return self.centre - reach, self.centre + reach

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distances (N,) in metres from points (N, 3); 0 inside."""
        local = np.abs((points - self.centre) @ self.rotation) - self.half
        return np.linalg.norm(np.maximum(local, 0), axis=-1)


def box(label: str, material: Material, low, high, tilt: np.ndarray | None = None) -> Box:
    """Return the box between two corners, rotated about its centre by `tilt` (3, 3)."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    return Box(
        (low + high) / 2, np.maximum((high - low) / 2, 1e-3), np.eye(3) if tilt is None else tilt, label, material
    )


def rotation_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def rotation_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def pillar(label: str, material: Material, x: float, y: float, radius: float, low: float, high: float) -> list[Box]:
    """Return a nearly round vertical column of three boxes, rotated by 60 degrees from each other."""
    side = radius * np.cos(np.pi / 12)
    return [
        box(
            label,
            material,
            (x - side, y - side * 0.7, low),
            (x + side, y + side * 0.7, high),
            rotation_z(k * np.pi / 3),
        )
        for k in range(3)
    ]


@dataclass(frozen=True)
class Room:
    """A furnished room of boxes.

    parts: all boxes, including walls. size: (x, y, z) of the interior in metres, with the origin in a corner of the
    floor. lamps: (L, 3) positions. brightness: (L, 3) linear RGB of the lamps. ambient: (3,) linear RGB.
    """

    parts: list[Box]
    size: np.ndarray
    lamps: np.ndarray
    brightness: np.ndarray
    ambient: np.ndarray
