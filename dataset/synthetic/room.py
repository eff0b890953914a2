"""A furnished room and a walk through it, from a seed. World: z up, metres, the floor at z = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset.synthetic import furniture
from dataset.synthetic.parts import Box, Material, box, rotation_z

WALL_THICKNESS = 0.12
CLEARANCE = 0.3  # between the camera and anything
STEP_ANGLE = np.radians(2.2)  # of the walk around the room, from one frame to the next
THEMES = {  # what stands along the walls, in the order in which it is tried
    "bedroom": ("bed", "cabinet", "desk", "bookshelf", "lamp", "chair", "plant", "boxes"),
    "living": ("sofa", "bookshelf", "cabinet", "lamp", "plant", "desk", "chair", "boxes"),
    "kitchen": ("counter", "refrigerator", "cabinet", "plant", "chair", "boxes", "bookshelf"),
    "bath": ("bathtub", "toilet", "sink", "shower_curtain", "cabinet", "boxes", "plant"),
}
MIXED_IN = 3  # pieces of other themes, so that a few rooms show most classes


@dataclass(frozen=True)
class Room:
    """boxes: all parts. size: (x, y, z) of the inside, the origin in a corner of the floor.
    lamps: (L, 3) places of lights. brightness: (L, 3) their linear RGB. ambient: (3,)."""

    boxes: list[Box]
    size: np.ndarray
    lamps: np.ndarray
    brightness: np.ndarray
    ambient: np.ndarray


def furnish(seed: int) -> Room:
    """A room whose size, layout, colours and light all follow from the seed."""
    rng = np.random.default_rng([seed, 1])
    size = np.array([rng.uniform(4.2, 6.2), rng.uniform(3.8, 5.4), rng.uniform(2.45, 2.9)])
    boxes = _shell(rng, size)
    taken = [[] for _ in range(4)]  # what hangs on each wall: (from, to, lowest point)
    floor: list[np.ndarray] = []  # footprints (x0, y0, x1, y1)
    for maker, count in (
        (furniture.door, 1),
        (furniture.window, int(rng.integers(1, 3))),
        (furniture.picture, int(rng.integers(2, 4))),
    ):
        for _ in range(count):
            boxes += _hang(rng, maker(rng), size, taken)
    theme = list(THEMES)[seed % len(THEMES)]
    others = [name for names in THEMES.values() for name in names if name not in THEMES[theme]]
    standing = [*THEMES[theme], *rng.choice(others, MIXED_IN, replace=False)]
    for name in standing:
        boxes += _stand(rng, furniture.STANDING[name](rng), size, taken, floor)
    if theme != "bath":
        boxes += _dining_group(rng, size, floor)
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


def _hang(rng, parts, size, taken) -> list[Box]:
    """Moves parts to a wall where nothing hangs yet; [] if there is no place."""
    low, _ = extent(parts)
    for wall, interval, moved in _places_at_walls(rng, parts, size):
        if not any(_cross(interval, other) for other in taken[wall]):
            taken[wall].append((*interval, low[2]))
            return moved
    return []


def _stand(rng, parts, size, taken, floor) -> list[Box]:
    """Moves parts to a wall where nothing stands, and nothing hangs that they would cover; [] if there is no place."""
    _, high = extent(parts)
    for wall, interval, moved in _places_at_walls(rng, parts, size):
        footprint = _footprint(moved)
        covers = any(_cross(interval, other) and high[2] > other[2] for other in taken[wall])
        if not covers and not any(_overlap(footprint, other) for other in floor):
            floor.append(footprint)
            return moved
    return []


def _places_at_walls(rng, parts, size, tries: int = 40):
    """Random places with the back at a wall: (wall, (from, to) along it, moved parts)."""
    low, high = extent(parts)
    corners = [(0, 0), (size[0], 0), (size[0], size[1]), (0, size[1])]
    for _ in range(tries):
        wall = int(rng.integers(4))
        free = size[wall % 2] - (high[0] - low[0]) - 0.1
        if free > 0:
            along = 0.05 - low[0] + rng.uniform(0, free)
            turn = rotation_z(wall * np.pi / 2)
            offset = np.array([*corners[wall], 0]) + turn @ np.array([along, 0.005 - low[1], 0])
            yield wall, (along + low[0] - 0.05, along + high[0] + 0.05), [part.moved(turn, offset) for part in parts]


def _cross(a, b) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _dining_group(rng, size, floor) -> list[Box]:
    """A table off the middle of the room with chairs around it, where there is room for them."""
    top = furniture.table(rng)
    low, high = extent(top)
    for _ in range(20):
        place = np.array([*(size[:2] * rng.uniform(0.35, 0.65, 2)), 0])
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
        footprints = [_footprint(parts) for parts in (moved, *seats)]
        if not any(_overlap(a, b) for a in footprints for b in floor):
            floor += footprints
            return moved + [part for parts in seats for part in parts]
    return []


def extent(parts: list[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (3,) of the box around all parts."""
    reach = np.stack([np.abs(part.rotation) @ part.half for part in parts])
    centres = np.stack([part.centre for part in parts])
    return (centres - reach).min(0), (centres + reach).max(0)


def _footprint(parts: list[Box]) -> np.ndarray:
    low, high = extent(parts)
    return np.array([low[0], low[1], high[0], high[1]])


def _overlap(a: np.ndarray, b: np.ndarray, margin: float = 0.04) -> bool:
    return bool((a[:2] - margin < b[2:]).all() and (b[:2] - margin < a[2:]).all())


def walk(room: Room, frames: int, seed: int) -> np.ndarray:
    """A smooth walk around the room that looks across it: camera-to-world (frames, 4, 4), OpenCV axes."""
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
    positions = _keep_clear(room, positions)
    heading = angle + np.pi + 0.45 * np.sin(1.3 * angle + phases[2])
    pitch = 0.3 + 0.1 * np.sin(1.9 * angle + phases[3])
    forward = np.stack([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), -np.sin(pitch)], -1)
    right = np.stack([np.sin(heading), -np.cos(heading), np.zeros(frames)], -1)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3] = np.stack([right, np.cross(forward, right), forward, positions], -1)
    return poses


def _keep_clear(room: Room, positions: np.ndarray) -> np.ndarray:
    """Raises the whole walk, so that it stays smooth, until nothing is within CLEARANCE; the ceiling is the limit."""
    for lift in np.arange(0, 0.8, 0.05):
        raised = np.minimum(positions + [0, 0, lift], [np.inf, np.inf, room.size[2] - CLEARANCE])
        if min(_distance(part, raised).min() for part in room.boxes) > CLEARANCE:
            return raised
    middle = positions.mean(0)
    return _keep_clear(room, middle + 0.8 * (positions - middle))


def _distance(part: Box, points: np.ndarray) -> np.ndarray:
    local = np.abs((points - part.centre) @ part.rotation) - part.half
    return np.linalg.norm(np.maximum(local, 0), axis=-1)
