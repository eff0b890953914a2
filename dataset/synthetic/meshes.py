"""Triangle meshes with a surface and a class, and rooms of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

# corners of the faces of a unit cube, counter-clockwise from outside; the first edge is along u, the last along v
_FACES = np.array(
    [
        [[1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]],  # y = 0
        [[0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]],
        [[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]],  # x = 0
        [[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1]],
        [[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]],  # z = 0
        [[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]],
    ],
    float,
)
QUAD = ((0, 1, 2), (0, 2, 3))


@dataclass(frozen=True)
class Surface:
    """Appearance of a mesh.

    texture: (h, w, 3 or 4) uint8 sRGB, row 0 at v = 0, repeated; the fourth channel is opacity. period: size of the
    texture in metres (or in units of the model's uv). glow: emitted light, in the units of incoming light. gloss:
    reflectance at normal incidence.
    """

    texture: np.ndarray
    period: tuple[float, float] = (1.0, 1.0)
    glow: float = 0.0
    gloss: float = 0.0


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with one surface and one class.

    triangles: (T, 3, 3) metres. uv: (T, 3, 2) in units of the surface's period. normals: (T, 3, 3) of the corners.
    label: class name, or None if ignored.
    """

    triangles: np.ndarray
    uv: np.ndarray
    normals: np.ndarray
    surface: Surface
    label: str | None

    def moved(self, rotation: np.ndarray, offset: np.ndarray) -> Mesh:
        return replace(self, triangles=self.triangles @ rotation.T + offset, normals=self.normals @ rotation.T)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest corner (3,)."""
        points = self.triangles.reshape(-1, 3)
        return points.min(0), points.max(0)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distances (N,) in metres from points (N, 3) to the bounding box; 0 inside."""
        low, high = self.bounds()
        return np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=-1)


def block(
    label: str | None, surface: Surface, low, high, rotation: np.ndarray | None = None, fit: bool = False
) -> Mesh:
    """Return the box between two corners, rotated about its centre by `rotation` (3, 3). The texture has its true scale
    and is upright on vertical faces; with `fit` it covers each face exactly once."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    quads = low + _FACES * (high - low)
    edges = np.linalg.norm(quads[:, [1, 3]] - quads[:, [0, 0]], axis=-1)  # (6, 2): along u, along v
    sizes = np.ones((6, 2)) if fit else edges / surface.period
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * sizes[:, None]
    if not fit:
        uv = uv + (quads[:, :1].sum(-1, keepdims=True) % 1)  # textures of neighbouring blocks start at different places
    normals = np.cross(quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    mesh = Mesh(
        np.concatenate([quads[:, corners] for corners in QUAD]),
        np.concatenate([uv[:, corners] for corners in QUAD]),
        np.tile(normals[:, None], (2, 3, 1)),
        surface,
        label,
    )
    if rotation is None:
        return mesh
    centre = (low + high) / 2
    return mesh.moved(np.eye(3), -centre).moved(rotation, centre)


def turned(corners: np.ndarray, label: str | None, surface: Surface) -> Mesh:
    """Return a surface of revolution about the z axis. corners: (P, 2) of (radius, height) in metres, from bottom to
    top."""
    sides = 20
    angles = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angles), np.sin(angles)], -1)
    points = np.concatenate(
        [corners[:, None, :1] * ring, np.broadcast_to(corners[:, None, 1:], (len(corners), sides + 1, 1))], -1
    )
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    along = np.linspace(0, 2 * np.pi * corners[:, 0].max(), sides + 1)
    uv = np.stack(np.broadcast_arrays(along[None], lengths[:, None]), -1) / surface.period
    slope = np.gradient(corners, axis=0)
    outward = np.concatenate(
        [slope[:, None, 1:] * ring, np.broadcast_to(-slope[:, None, :1], (len(corners), sides + 1, 1))], -1
    )
    outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-9)
    quads = [
        np.stack([field[:-1, :-1], field[:-1, 1:], field[1:, 1:], field[1:, :-1]], 2).reshape(-1, 4, field.shape[-1])
        for field in (points, uv, outward)
    ]
    triangles, uv, normals = (np.concatenate([quad[:, list(corners)] for corners in QUAD]) for quad in quads)
    return Mesh(triangles, uv, normals, surface, label)


def subdivided(mesh: Mesh, longest: float) -> Mesh:
    """Return the mesh with triangles split at their longest edges until no edge exceeds `longest` metres."""
    fields = [mesh.triangles, mesh.uv, mesh.normals]
    done = []
    while len(fields[0]):
        edges = np.linalg.norm(fields[0] - np.roll(fields[0], -1, 1), axis=-1)  # edge i joins corners i and i + 1
        long = edges.max(1) > longest
        done.append([field[~long] for field in fields])
        first = edges[long].argmax(1)
        order = (first[:, None] + np.arange(3)) % 3
        split = []
        for field in fields:
            a, b, c = np.moveaxis(np.take_along_axis(field[long], order[..., None], 1), 1, 0)
            middle = (a + b) / 2
            split.append(np.concatenate([np.stack([a, middle, c], 1), np.stack([middle, b, c], 1)]))
        fields = split
    triangles, uv, normals = (np.concatenate(parts) for parts in zip(*done, strict=True))
    return replace(mesh, triangles=triangles, uv=uv, normals=normals)


@dataclass(frozen=True)
class Lamp:
    """A spherical light: place (3,) and radius in metres, and linear RGB (3,) received by a facing surface at 1 m."""

    place: np.ndarray
    radius: float
    color: np.ndarray


@dataclass(frozen=True)
class Pane:
    """A rectangular area light, as of a window: a corner and two edges u and v (3,), where cross(u, v) points into the
    room, and the linear radiance (3,)."""

    corner: np.ndarray
    u: np.ndarray
    v: np.ndarray
    color: np.ndarray


@dataclass(frozen=True)
class MeshRoom:
    """A furnished room of meshes.

    parts: all meshes, including walls. size: (x, y, z) of the interior in metres, with the origin in a corner of the
    floor. ambient: linear RGB (3,) of light from all directions. key: median brightness of images, in [0, 1]. sights:
    places (N, 3) that a walk looks at.
    """

    parts: list[Mesh]
    size: np.ndarray
    lamps: list[Lamp]
    panes: list[Pane]
    ambient: np.ndarray
    key: float
    sights: np.ndarray
