"""A furnished room of boxes and a walk through it, generated from a seed. World: z up, metres, the floor at z = 0."""

from __future__ import annotations

import numpy as np

from dataset.synthetic import furniture
from dataset.synthetic.parts import Box, Material, Room, box, rotation_z
from dataset.synthetic.placing import Plan, extent, keep_clear, look

WALL_THICKNESS = 0.12
STEP_ANGLE = np.radians(2.2)  # between consecutive frames of the walk around the room
THEMES = {  # furniture along the walls, in the order in which it is placed
    "bedroom": ("bed", "cabinet", "desk", "bookshelf", "lamp", "chair", "plant", "boxes"),
    "living": ("sofa", "bookshelf", "cabinet", "lamp", "plant", "desk", "chair", "boxes"),
    "kitchen": ("counter", "refrigerator", "cabinet", "plant", "chair", "boxes", "bookshelf"),
    "bath": ("bathtub", "toilet", "sink", "shower_curtain", "cabinet", "boxes", "plant"),
}
MIXED_IN = 3  # number of pieces of other themes, so that a few rooms show most classes


def furnish(seed: int) -> Room:
    """Return a room whose size, layout, colours and light are determined by the seed."""
    rng = np.random.default_rng([seed, 1])
    size = np.array([rng.uniform(4.2, 6.2), rng.uniform(3.8, 5.4), rng.uniform(2.45, 2.9)])
    boxes = _shell(rng, size)
    plan = Plan(size)
    for maker, count in (
        (furniture.door, 1),
        (furniture.window, int(rng.integers(1, 3))),
        (furniture.picture, int(rng.integers(2, 4))),
    ):
        for _ in range(count):
            boxes += plan.hang(rng, maker(rng))
    theme = list(THEMES)[seed % len(THEMES)]
    others = [name for names in THEMES.values() for name in names if name not in THEMES[theme]]
    standing = [*THEMES[theme], *rng.choice(others, MIXED_IN, replace=False)]
    for name in standing:
        boxes += plan.stand(rng, furniture.STANDING[name](rng))
    if theme != "bath":
        boxes += _dining_group(rng, plan)
    lamps = np.stack(
        [size * [rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75), 0.93] for _ in range(int(rng.integers(1, 3)))]
    )
    warmth = np.array([1.0, rng.uniform(0.82, 1.0), rng.uniform(0.65, 1.0)])
    return Room(
        boxes,
        size,
        lamps,
        np.tile(warmth * rng.uniform(2.2, 3.2) / len(lamps), (len(lamps), 1)),
        np.array([0.9, 0.95, 1.0]) * rng.uniform(0.35, 0.55),
    )


def _shell(rng, size) -> list[Box]:
    x, y, z = size
    t = WALL_THICKNESS
    tone = rng.uniform(0.45, 0.85, 3)
    walls = [
        Material.of(
            tone * rng.uniform(0.9, 1.05),
            rng.choice(["fabric", "stripes", "brick", "tiles"]),
            rng.uniform(0.12, 0.4),
            rng.uniform(0.06, 0.18),
        )
        for _ in range(4)
    ]
    ground = Material.of(
        furniture.WOODS[rng.integers(len(furniture.WOODS))] if rng.random() < 0.6 else rng.uniform(0.25, 0.7, 3),
        rng.choice(["planks", "tiles", "fabric"]),
        rng.uniform(0.12, 0.35),
        rng.uniform(0.2, 0.4),
    )
    rug = Material(
        tuple(rng.uniform(0.1, 0.8, 3)),
        tuple(rng.uniform(0.1, 0.8, 3)),
        rng.choice(["tiles", "stripes", "fabric"]),
        rng.uniform(0.1, 0.25),
    )
    centre, half = size[:2] * rng.uniform(0.4, 0.6, 2), rng.uniform(0.5, 0.9, 2)
    return [
        box("floor", ground, (-t, -t, -t), (x + t, y + t, 0)),
        box("ceiling", Material.of((0.85, 0.85, 0.83), "fabric", 0.3, 0.05), (-t, -t, z), (x + t, y + t, z + t)),
        box("wall", walls[0], (-t, -t, 0), (x + t, 0, z)),
        box("wall", walls[1], (x, -t, 0), (x + t, y + t, z)),
        box("wall", walls[2], (-t, y, 0), (x + t, y + t, z)),
        box("wall", walls[3], (-t, -t, 0), (0, y + t, z)),
        box("floor", rug, (*(centre - half), 0), (*(centre + half), 0.012)),
    ]


def _dining_group(rng, plan: Plan) -> list[Box]:
    """Return a table away from the walls with chairs beside it; [] if there is no room."""
    top = furniture.table(rng)
    low, high = extent(top)
    for _ in range(20):
        place = np.array([*(plan.size[:2] * rng.uniform(0.35, 0.65, 2)), 0])
        turn = rotation_z(rng.uniform(0, np.pi))
        middle = np.array([0, high[1] / 2, 0])
        moved = [part.moved(turn, place - turn @ middle) for part in top]
        seats = []
        for side in rng.permutation([0, np.pi])[: int(rng.integers(1, 3))]:
            facing = turn @ rotation_z(side)
            distance = (high[1] - low[1]) / 2 + 0.45
            seats.append(
                [
                    part.moved(facing, place - facing @ np.array([rng.uniform(-0.2, 0.2), distance, 0]))
                    for part in furniture.chair(rng)
                ]
            )
        if plan.claim(moved, *seats):
            return moved + [part for parts in seats for part in parts]
    return []


def walk(room: Room, frames: int, seed: int) -> np.ndarray:
    """Return a smooth walk around the room that looks across it: camera-to-world (frames, 4, 4), OpenCV axes."""
    rng = np.random.default_rng([seed, 2])
    middle = room.size[:2] / 2
    phases, start = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0, 2 * np.pi)
    angle = start + STEP_ANGLE * np.arange(frames)
    radius = 0.24 + 0.05 * np.sin(1.7 * angle + phases[0])
    positions = np.stack(
        [
            middle[0] + room.size[0] * radius * np.cos(angle),
            middle[1] + room.size[1] * radius * np.sin(angle),
            1.5 + 0.13 * np.sin(2.3 * angle + phases[1]),
        ],
        -1,
    )
    positions = keep_clear(room.parts, room.size, positions)
    heading = angle + np.pi + 0.45 * np.sin(1.3 * angle + phases[2])
    pitch = 0.3 + 0.1 * np.sin(1.9 * angle + phases[3])
    return look(positions, heading, pitch)
