"""Fixtures of a room: walls, floor, ceiling, skirting, doors, windows and curtains, pictures, mirrors, rugs.

Each function that builds a fixture returns meshes in the coordinates used for furniture: the wall is at y = 0, the room
at y > 0.
"""

from __future__ import annotations

import numpy as np

from dataset.synthetic import textures
from dataset.synthetic.meshes import QUAD, Mesh, Surface, block, turned

WALL_THICKNESS = 0.12
WHITE = (0.9, 0.9, 0.88)


def shell(rng, size, theme: str) -> list[Mesh]:
    """Return floor, ceiling, walls and skirting of a room of `size` (x, y, z) in metres."""
    x, y, z = size
    t = WALL_THICKNESS
    wet = theme == "bath"
    main = textures.tiles(rng, edge=rng.uniform(0.12, 0.3)) if wet else _wall(rng)
    walls = [main] * 4
    if not wet and rng.random() < 0.4:
        walls[rng.integers(4)] = textures.brick(rng) if rng.random() < 0.3 else _wall(rng)
    upper = textures.paint(rng)
    tiled = rng.uniform(1.2, 2.1) if wet and rng.random() < 0.6 else z  # height of tiles; walls are painted above
    boxes = [((-t, -t), (x + t, 0)), ((x, -t), (x + t, y + t)), ((-t, y), (x + t, y + t)), ((-t, -t), (0, y + t))]
    parts = [
        block("floor", _ground(rng, theme), (-t, -t, -t), (x + t, y + t, 0)),
        block(None, textures.paint(rng, WHITE), (-t, -t, z), (x + t, y + t, z + t)),
    ]
    for surface, (low, high) in zip(walls, boxes, strict=True):
        parts.append(block("wall", surface, (*low, 0), (*high, tiled)))
        if tiled < z:
            parts.append(block("wall", upper, (*low, tiled), (*high, z)))
    return parts if wet else parts + _skirting(rng, size)


def _wall(rng) -> Surface:
    kind = rng.random()
    if kind < 0.12:
        return textures.paint(rng, textures.cloth_color(rng))
    return textures.paint(rng) if kind < 0.68 else textures.wallpaper(rng)


def _ground(rng, theme: str) -> Surface:
    if theme in ("bath", "kitchen"):
        return textures.tiles(rng) if rng.random() < 0.75 else textures.parquet(rng)
    return textures.carpet(rng) if rng.random() < 0.4 else textures.parquet(rng)


def _skirting(rng, size) -> list[Mesh]:
    x, y, _ = size
    height, depth = rng.uniform(0.06, 0.12), 0.014
    surface = textures.plain(WHITE) if rng.random() < 0.7 else textures.wood(rng)
    return [
        block("wall", surface, low, (*high, height))
        for low, high in (
            ((0, 0, 0), (x, depth)),
            ((0, y - depth, 0), (x, y)),
            ((0, 0, 0), (depth, y)),
            ((x - depth, 0, 0), (x, y)),
        )
    ]


def door(rng) -> list[Mesh]:
    """Return a door: a leaf, flush or panelled, its frame and a handle."""
    width, height = rng.uniform(0.78, 0.92), rng.uniform(2.0, 2.1)
    kind = rng.random()
    leaf = (
        textures.wood(rng, upright=True)
        if kind < 0.4
        else textures.paint(rng, WHITE if kind < 0.65 else textures.any_color(rng))
    )
    frame = leaf if rng.random() < 0.5 else textures.plain(WHITE if rng.random() < 0.6 else textures.any_color(rng))
    parts = [block("door", leaf, (-width / 2, 0, 0.005), (width / 2, 0.03, height))]
    for low, high in (
        ((-width / 2 - 0.08, 0, 0), (-width / 2, 0.05, height + 0.08)),
        ((width / 2, 0, 0), (width / 2 + 0.08, 0.05, height + 0.08)),
        ((-width / 2, 0, height), (width / 2, 0.05, height + 0.08)),
    ):
        parts.append(block("door", frame, low, high))
    rows = int(rng.integers(0, 4))
    for i in range(rows):
        z0, z1 = (0.15 + (height - 0.25) * k / rows for k in (i, i + 0.9))
        for x in (-width / 4, width / 4):
            parts.append(block("door", leaf, (x - 0.15 * width, 0.03, z0), (x + 0.15 * width, 0.042, z1)))
    metal = textures.plain((0.6, 0.6, 0.58), gloss=0.2)
    parts.append(block("door", metal, (width / 2 - 0.16, 0.03, 1.0), (width / 2 - 0.05, 0.075, 1.025)))
    return parts


def window(rng, daylight: float) -> list[Mesh]:
    """Return a window: a bright view, its frame and sill, and perhaps curtains. daylight: radiance of the view."""
    width, low, high = rng.uniform(0.9, 1.9), rng.uniform(0.75, 1.0), rng.uniform(1.9, 2.2)
    view = textures.outside(rng)
    dusk = 1.0 if daylight else 0.08
    view = Surface((view.texture * dusk).astype(np.uint8), glow=0.02 + 0.5 * daylight, gloss=0.06)
    paint = textures.plain(WHITE) if rng.random() < 0.75 else textures.wood(rng)
    parts = [block("window", view, (-width / 2, 0, low), (width / 2, 0.012, high), fit=True)]
    sashes = int(rng.integers(1, 4))
    for i in range(sashes + 1):
        x = -width / 2 + width * i / sashes
        parts.append(block("window", paint, (x - 0.035, 0, low), (x + 0.035, 0.05, high)))
    bars = [low, high - 0.06] + ([(low + high) / 2] if rng.random() < 0.3 else [])
    parts += [block("window", paint, (-width / 2, 0, z), (width / 2, 0.045, z + 0.06)) for z in bars]
    parts.append(block("window", paint, (-width / 2 - 0.06, 0, low - 0.04), (width / 2 + 0.06, 0.11, low)))
    if rng.random() < 0.75:
        cloth, top, bottom = textures.fabric(rng), high + 0.15, 0.03 if rng.random() < 0.35 else low - 0.15
        for side in (-1, 1):
            strip = rng.uniform(0.25, 0.5)
            parts.append(hanging("curtain", cloth, side * (width / 2 + 0.08), strip, bottom, top, 0.16, rng))
        rod = textures.plain((0.25, 0.22, 0.2))
        parts.append(block("curtain", rod, (-width / 2 - 0.4, 0.16, top), (width / 2 + 0.4, 0.185, top + 0.025)))
    return parts


def hanging(label, cloth: Surface, x: float, width: float, bottom: float, top: float, y: float, rng) -> Mesh:
    """Return cloth that hangs in folds, centred at `x` and `y`."""
    columns = 40
    along = np.linspace(0, 1, columns + 1)
    folds = rng.uniform(3, 6)
    depth = 0.035 * np.sin(2 * np.pi * folds * along + 0.6 * np.sin(5 * along + rng.uniform(0, 6)))
    line = np.stack([x + (along - 0.5) * width, y + depth], -1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    slope = np.gradient(line, axis=0)
    normal = np.stack([-slope[:, 1], slope[:, 0], np.zeros(columns + 1)], -1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)

    def quads(lower, upper):
        return np.stack([lower[:-1], lower[1:], upper[1:], upper[:-1]], 1)

    def at(z):
        return np.concatenate([line, np.full((columns + 1, 1), z)], 1)

    fields = (
        quads(at(bottom), at(top)),
        quads(*(np.stack([length, np.full_like(length, z)], 1) for z in (bottom, top))) / cloth.period,
        quads(normal, normal),
    )
    triangles, uv, normals = (np.concatenate([field[:, list(corners)] for corners in QUAD]) for field in fields)
    return Mesh(triangles, uv, normals, cloth, label)


def shower_curtain(rng) -> list[Mesh]:
    """Return a shower curtain on a rod in front of a wall."""
    width = rng.uniform(0.9, 1.4)
    rod = textures.plain((0.7, 0.7, 0.7), gloss=0.2)
    return [
        hanging("shower curtain", textures.fabric(rng), 0, width, 0.12, 1.95, 0.3, rng),
        block("otherfurniture", rod, (-width / 2 - 0.1, 0.29, 1.95), (width / 2 + 0.1, 0.315, 1.975)),
    ]


def picture(rng) -> list[Mesh]:
    """Return a painting or photograph in a frame."""
    width, height = rng.uniform(0.3, 1.1), rng.uniform(0.3, 0.8)
    low = rng.uniform(1.55, 1.7) - height / 2
    frame = textures.wood(rng) if rng.random() < 0.5 else textures.plain(np.full(3, rng.choice([0.08, 0.85])))
    edge = rng.uniform(0.015, 0.05)
    inner = ((-width / 2 + edge, 0.02, low + edge), (width / 2 - edge, 0.024, low + height - edge))
    return [
        block("picture", frame, (-width / 2, 0, low), (width / 2, 0.022, low + height)),
        block("picture", textures.painting(rng), *inner, fit=True),
    ]


def mirror(rng) -> list[Mesh]:
    """Return a mirror at head height, which has no class."""
    width, height = rng.uniform(0.45, 0.9), rng.uniform(0.6, 0.9)
    glass = textures.plain((0.04, 0.045, 0.045), gloss=0.8)
    frame = textures.plain(np.full(3, rng.choice([0.3, 0.7, 0.9])))
    return [
        block(None, frame, (-width / 2, 0, 1.15), (width / 2, 0.02, 1.15 + height)),
        block(None, glass, (-width / 2 + 0.02, 0.02, 1.17), (width / 2 - 0.02, 0.023, 1.13 + height)),
    ]


def rug(rng, centre, size) -> list[Mesh]:
    """Return a rug of `size` (x, y) centred at `centre` (x, y)."""
    half = np.asarray(size) / 2
    return [block("floor", textures.rug(rng), (*(centre - half), 0.0), (*(centre + half), 0.009), fit=True)]


def mug(rng) -> list[Mesh]:
    """Return a mug, a glass or a bowl."""
    radius, height = rng.uniform(0.03, 0.05), rng.uniform(0.07, 0.11)
    profile = np.array([[0.001, 0], [0.8, 0], [1, 0.2], [1, 1], [0.92, 1], [0.9, 0.15], [0.001, 0.12]])
    color = rng.choice([(0.9, 0.9, 0.88), (0.2, 0.3, 0.5), (0.6, 0.15, 0.12), (0.15, 0.15, 0.15), (0.75, 0.65, 0.4)])
    return [turned(profile * [radius, height], None, textures.plain(color, gloss=0.05))]


def book(rng) -> list[Mesh]:
    """Return a book or a sheet of paper, lying flat."""
    width, length, height = rng.uniform(0.13, 0.22), rng.uniform(0.19, 0.3), rng.uniform(0.003, 0.035)
    cover = textures.fabric(rng) if rng.random() < 0.5 else textures.plain(textures.cloth_color(rng))
    return [block(None, cover, (-width / 2, -length / 2, 0), (width / 2, length / 2, height))]


def lamp_shade(rng) -> list[Mesh]:
    """Return a lamp hanging from the ceiling at z = 0: a cord and a glowing shade."""
    drop, radius, height = rng.uniform(0.08, 0.25), rng.uniform(0.15, 0.28), rng.uniform(0.12, 0.2)
    narrow = radius * rng.uniform(0.35, 1.0)
    shade = textures.plain(rng.uniform((0.75, 0.7, 0.6), (0.97, 0.95, 0.9)), glow=rng.uniform(0.6, 1.4))
    profile = np.array([[radius, -drop - height], [narrow, -drop]])
    cord = textures.plain((0.15, 0.15, 0.15))
    return [
        turned(profile, "otherfurniture", shade),
        block("otherfurniture", cord, (-0.006, -0.006, -drop), (0.006, 0.006, 0)),
    ]
