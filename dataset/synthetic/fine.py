"""Rooms with block furniture and fine textures, and a walk once around the room that looks across it.

Furniture is defined by a table of blocks. Its shapes are simple; these rooms are difficult because of their textures,
their contrast and the wide turns between frames.
"""

from __future__ import annotations

import numpy as np

from dataset.synthetic.parts import Box, Material, Room, box
from dataset.synthetic.placing import Plan, extent, keep_clear, look

WALL_THICKNESS = 0.12
TEXTURES = ("speckle", "weave", "motif", "stripes", "planks", "checks")
# A piece: ranges of (width, depth, height) in metres, then blocks as (class, index of the material, low, high) in
# fractions of that size. The back is at depth 0.
LEGS = [((x, y, 0), (x + 0.08, y + 0.1)) for x in (0.0, 0.92) for y in (0.0, 0.9)]
SHELVES = (0.02, 0.26, 0.5, 0.74)
PIECES = {
    "cabinet": (
        ((0.8, 1.4), (0.4, 0.55), (0.7, 1.9)),
        [
            ("cabinet", 0, (0, 0, 0), (1, 0.95, 1)),
            ("cabinet", 1, (0.03, 0.95, 0.05), (0.49, 1, 0.95)),
            ("cabinet", 1, (0.51, 0.95, 0.05), (0.97, 1, 0.95)),
        ],
    ),
    "bed": (
        ((1.2, 1.8), (2.0, 2.2), (0.8, 1.0)),
        [
            ("bed", 0, (0, 0, 0), (1, 0.04, 1)),
            ("bed", 0, (0, 0.04, 0), (1, 1, 0.3)),
            ("bed", 1, (0.02, 0.04, 0.3), (0.98, 0.99, 0.55)),
            ("bed", 2, (0.1, 0.08, 0.55), (0.45, 0.25, 0.68)),
            ("bed", 2, (0.55, 0.08, 0.55), (0.9, 0.25, 0.68)),
        ],
    ),
    "sofa": (
        ((1.6, 2.4), (0.8, 1.0), (0.75, 0.9)),
        [
            ("sofa", 0, (0, 0, 0.05), (1, 1, 0.48)),
            ("sofa", 0, (0, 0, 0.48), (1, 0.28, 1)),
            ("sofa", 1, (0, 0.28, 0.48), (0.12, 1, 0.75)),
            ("sofa", 1, (0.88, 0.28, 0.48), (1, 1, 0.75)),
        ],
    ),
    "chair": (
        ((0.45, 0.55), (0.45, 0.55), (0.85, 1.0)),
        [("chair", 0, (0, 0, 0.45), (1, 0.1, 1)), ("chair", 1, (0, 0, 0.45), (1, 1, 0.52))]
        + [("chair", 0, low, (*high, 0.45)) for low, high in LEGS],
    ),
    "table": (
        ((1.0, 1.7), (0.7, 1.0), (0.45, 0.78)),
        [("table", 0, (0, 0, 0.93), (1, 1, 1))] + [("table", 1, low, (*high, 0.93)) for low, high in LEGS],
    ),
    "desk": (
        ((1.2, 1.7), (0.6, 0.8), (0.72, 0.76)),
        [
            ("desk", 0, (0, 0, 0.94), (1, 1, 1)),
            ("desk", 1, (0.02, 0.03, 0), (0.3, 0.95, 0.94)),
            ("desk", 1, (0.94, 0.03, 0), (0.98, 0.95, 0.94)),
            ("otherfurniture", 2, (0.35, 0.2, 1), (0.75, 0.26, 1.5)),
        ],
    ),
    "bookshelf": (
        ((0.8, 1.3), (0.28, 0.36), (1.5, 2.1)),
        [
            ("bookshelf", 0, (0, 0, 0), (1, 0.08, 1)),
            ("bookshelf", 0, (0, 0.08, 0), (0.03, 1, 1)),
            ("bookshelf", 0, (0.97, 0.08, 0), (1, 1, 1)),
        ]
        + [("bookshelf", 0, (0.03, 0.08, z), (0.97, 1, z + 0.02)) for z in (*SHELVES, 0.98)]
        + [
            ("bookshelf", 3, (0.05, 0.1, z + 0.02), (0.05 + share, 0.8, z + 0.17))
            for z, share in zip(SHELVES, (0.8, 0.6, 0.88, 0.5), strict=True)
        ],
    ),
    "counter": (
        ((1.6, 2.4), (0.6, 0.65), (0.88, 0.94)),
        [
            ("cabinet", 0, (0, 0, 0), (1, 0.95, 0.95)),
            ("counter", 1, (0, 0, 0.95), (1, 1, 1)),
            ("sink", 2, (0.3, 0.2, 1), (0.6, 0.8, 1.02)),
            ("otherfurniture", 2, (0.75, 0.1, 1), (0.92, 0.5, 1.3)),
        ],
    ),
    "refrigerator": (
        ((0.6, 0.8), (0.6, 0.7), (1.6, 1.9)),
        [
            ("refrigerator", 0, (0, 0, 0), (1, 0.93, 1)),
            ("refrigerator", 1, (0, 0.93, 0.02), (1, 1, 0.6)),
            ("refrigerator", 1, (0, 0.93, 0.62), (1, 1, 1)),
        ],
    ),
    "toilet": (
        ((0.38, 0.44), (0.62, 0.72), (0.75, 0.85)),
        [
            ("toilet", 0, (0.2, 0.2, 0), (0.8, 0.85, 0.48)),
            ("toilet", 0, (0, 0.25, 0.48), (1, 1, 0.55)),
            ("toilet", 0, (0, 0, 0.45), (1, 0.28, 1)),
        ],
    ),
    "sink": (
        ((0.5, 0.7), (0.42, 0.5), (0.84, 0.9)),
        [
            ("sink", 0, (0.35, 0.1, 0), (0.65, 0.6, 0.8)),
            ("sink", 0, (0, 0, 0.8), (1, 1, 0.97)),
            ("sink", 1, (0.1, 0.15, 0.97), (0.9, 0.9, 1)),
        ],
    ),
    "bathtub": (
        ((1.5, 1.8), (0.7, 0.85), (0.5, 0.6)),
        [
            ("bathtub", 0, (0, 0, 0), (1, 0.1, 1)),
            ("bathtub", 0, (0, 0.9, 0), (1, 1, 1)),
            ("bathtub", 0, (0, 0.1, 0), (0.05, 0.9, 1)),
            ("bathtub", 0, (0.95, 0.1, 0), (1, 0.9, 1)),
            ("bathtub", 1, (0.05, 0.1, 0), (0.95, 0.9, 0.4)),
        ],
    ),
    "shower curtain": (((0.9, 1.3), (0.05, 0.08), (1.9, 2.0)), [("shower curtain", 0, (0, 0, 0.05), (1, 1, 1))]),
    "crates": (
        ((0.5, 0.8), (0.4, 0.6), (0.6, 1.2)),
        [("otherfurniture", 0, (0, 0, 0), (1, 1, 0.55)), ("otherfurniture", 1, (0.15, 0.1, 0.55), (0.8, 0.8, 1))],
    ),
    "door": (
        ((0.85, 1.0), (0.05, 0.07), (2.0, 2.1)),
        [("door", 0, (0, 0, 0), (1, 0.6, 1)), ("door", 1, (0.15, 0.6, 0.1), (0.85, 1, 0.45))]
        + [("door", 1, (0.15, 0.6, 0.55), (0.85, 1, 0.92))],
    ),
}
THEMES = (
    ("sofa", "bookshelf", "cabinet", "crates", "desk", "chair"),
    ("bed", "cabinet", "desk", "bookshelf", "chair", "crates"),
    ("counter", "refrigerator", "cabinet", "chair", "crates"),
    ("bathtub", "toilet", "sink", "shower curtain", "cabinet", "crates"),
)


def furnish(seed: int) -> Room:
    """Return a room whose size, layout, colours and light are determined by the seed."""
    rng = np.random.default_rng([seed, 4])
    plan = Plan(np.array([rng.uniform(4.6, 6.6), rng.uniform(4.2, 5.8), rng.uniform(2.5, 3.0)]))
    parts = _shell(rng, plan.size)
    for thing in (_piece(rng, "door"), _window(rng), _picture(rng), _window(rng), _picture(rng)):
        parts += plan.hang(rng, thing)
    theme = THEMES[seed % len(THEMES)]
    for name in (*theme, *rng.choice([name for names in THEMES for name in names if name not in theme], 4)):
        parts += plan.stand(rng, _piece(rng, name))
    parts += _middle(rng, plan)
    lamps = plan.size * np.stack([rng.uniform(0.2, 0.8, 3), rng.uniform(0.2, 0.8, 3), np.full(3, 0.92)], -1)
    warmth = np.stack([np.ones(3), rng.uniform(0.8, 1.0, 3), rng.uniform(0.6, 1.0, 3)], -1)
    return Room(parts, plan.size, lamps, warmth * rng.uniform(0.7, 1.0), np.full(3, rng.uniform(0.3, 0.5)))


def walk(room: Room, frames: int, seed: int) -> np.ndarray:
    """Return a walk once around the room, for any number of frames, that looks across it: camera-to-world (frames, 4,
    4)."""
    rng = np.random.default_rng([seed, 5])
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(frames) / frames
    phases = rng.uniform(0, 2 * np.pi, 3)
    reach = 0.3 + 0.03 * np.sin(2 * angle + phases[0])
    across = np.stack([np.cos(angle), np.sin(angle)], -1) * reach[:, None]
    height = rng.uniform(1.35, 1.65) + 0.08 * np.sin(3 * angle + phases[1])
    positions = np.concatenate([room.size[:2] * (0.5 + across), height[:, None]], -1)
    positions = keep_clear(room.parts, room.size, positions)
    toward = room.size[:2] / 2 - positions[:, :2]
    heading = np.arctan2(toward[:, 1], toward[:, 0]) + 0.25 * np.sin(2 * angle + phases[2])
    return look(positions, heading, np.full(frames, rng.uniform(0.2, 0.35)))


def _piece(rng, name: str) -> list[Box]:
    """Return a piece of PIECES with random size and materials."""
    ranges, blocks = PIECES[name]
    size = np.array([rng.uniform(*bounds) for bounds in ranges])
    books = Material(tuple(rng.uniform(0.05, 0.9, 3)), tuple(rng.uniform(0.05, 0.9, 3)), "books", 0.03)
    materials = [_texture(rng), _texture(rng), _texture(rng), books]
    shift = np.array([0.5, 0, 0])  # the middle of the back edge is the origin
    return [
        box(label, materials[which], (np.array(low) - shift) * size, (np.array(high) - shift) * size)
        for label, which, low, high in blocks
    ]


def _texture(rng, low: float = 0.03, high: float = 0.1) -> Material:
    """Return a fine pattern of two unrelated colours, whose contrast is lost in a blurred rendering."""
    first = rng.uniform(0.08, 0.85, 3)
    second = np.clip(first + rng.uniform(-0.35, 0.35, 3), 0.03, 0.95)
    return Material(tuple(first), tuple(second), str(rng.choice(TEXTURES)), rng.uniform(low, high))


def _shell(rng, size) -> list[Box]:
    x, y, z = size
    t = WALL_THICKNESS
    paper = _texture(rng, 0.06, 0.15)
    walls = [paper, paper, _texture(rng, 0.06, 0.15), paper]
    skirting = Material.of(rng.uniform(0.2, 0.8, 3))
    centre, half = size[:2] * rng.uniform(0.4, 0.6, 2), rng.uniform(0.7, 1.2, 2)
    return [
        box("floor", _texture(rng, 0.06, 0.12), (-t, -t, -t), (x + t, y + t, 0)),
        box("ceiling", Material.of((0.8, 0.8, 0.78), "speckle", 0.1, 0.15), (-t, -t, z), (x + t, y + t, z + t)),
        box("wall", walls[0], (-t, -t, 0), (x + t, 0, z)),
        box("wall", walls[1], (x, -t, 0), (x + t, y + t, z)),
        box("wall", walls[2], (-t, y, 0), (x + t, y + t, z)),
        box("wall", walls[3], (-t, -t, 0), (0, y + t, z)),
        box("wall", skirting, (0, 0, 0), (x, 0.015, 0.09)),
        box("wall", skirting, (0, y - 0.015, 0), (x, y, 0.09)),
        box("wall", skirting, (0, 0, 0), (0.015, y, 0.09)),
        box("wall", skirting, (x - 0.015, 0, 0), (x, y, 0.09)),
        box("floor", _texture(rng), (*(centre - half), 0), (*(centre + half), 0.01)),
    ]


def _middle(rng, plan: Plan) -> list[Box]:
    """Return a table near the centre of the room, parallel to the walls, with chairs on two sides; [] if there is no
    room."""
    table = _piece(rng, "table")
    high = extent(table)[1]
    seats = [_piece(rng, "chair") for _ in range(2)]
    for _ in range(20):
        place = np.array([*(plan.size[:2] * rng.uniform(0.38, 0.62, 2)), 0]) - [0, high[1] / 2, 0]
        moved = [part.moved(np.eye(3), place) for part in table]
        behind = [part.moved(np.eye(3), place - [0.25 * high[0], 0.6, 0]) for part in seats[0]]
        turned = np.diag([-1.0, -1.0, 1.0])
        before = [part.moved(turned, place + [0.25 * high[0], high[1] + 0.6, 0]) for part in seats[1]]
        if plan.claim(moved, behind, before):
            return moved + behind + before
    return []


def _window(rng) -> list[Box]:
    """Return a bright pane in a frame, with a curtain on each side."""
    width, low, high = rng.uniform(1.0, 1.6), rng.uniform(0.8, 1.0), rng.uniform(1.9, 2.2)
    sky = Material(tuple(rng.uniform(0.6, 1.0, 3)), (0.3, 0.45, 0.3), "painting", 0.4, glow=0.7)
    frame, cloth = Material.of(rng.uniform(0.5, 0.9, 3)), _texture(rng)
    parts = [box("window", sky, (-width / 2, 0, low), (width / 2, 0.02, high))]
    parts += [
        box("window", frame, (x - 0.04, 0, low), (x + 0.04, 0.06, high)) for x in (-width / 2 + 0.04, 0, width / 2)
    ]
    parts += [box("window", frame, (-width / 2, 0, z), (width / 2, 0.06, z + 0.07)) for z in (low, high - 0.07)]
    return parts + [
        box("curtain", cloth, (x - 0.2, 0.08, 0.5), (x + 0.2, 0.13, high + 0.1)) for x in (-width / 2, width / 2)
    ]


def _picture(rng) -> list[Box]:
    width, height, low = rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.8), rng.uniform(1.2, 1.4)
    canvas = Material(tuple(rng.uniform(0.05, 0.9, 3)), tuple(rng.uniform(0.05, 0.9, 3)), "painting", 0.1)
    return [
        box("picture", _texture(rng), (-width / 2, 0, low), (width / 2, 0.03, low + height)),
        box("picture", canvas, (-width / 2 + 0.05, 0.03, low + 0.05), (width / 2 - 0.05, 0.04, low + height - 0.05)),
    ]
