"""Furniture of ScanNet's classes, each piece built of several boxes.

Each public function takes a random generator and returns the parts of a piece in local coordinates: x to the right, y
towards the room (the back is at y = 0), z up, with the origin on the floor at the centre of the back edge.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataset.synthetic.parts import Box, Material, box, pillar, rotation_x, rotation_z

WOODS = ((0.42, 0.25, 0.12), (0.55, 0.36, 0.18), (0.30, 0.17, 0.09), (0.66, 0.50, 0.32), (0.75, 0.70, 0.62))
METAL = Material.of((0.55, 0.56, 0.58))
PORCELAIN = Material.of((0.82, 0.82, 0.79))
DARK = Material.of((0.04, 0.04, 0.05))


def _wood(rng) -> Material:
    return Material.of(WOODS[rng.integers(len(WOODS))], "planks", rng.uniform(0.06, 0.15), 0.25)


def _cloth(rng) -> Material:
    color = rng.uniform(0.08, 0.75, 3)
    return Material.of(
        color, rng.choice(["fabric", "stripes", "tiles"]), rng.uniform(0.04, 0.12), rng.uniform(0.2, 0.5)
    )


def _paint(rng) -> Material:
    return Material.of(rng.uniform(0.15, 0.85, 3))


def _legs(label, material, half_width, front, back, height, thickness) -> list[Box]:
    return [
        box(label, material, (x - thickness, y - thickness, 0), (x + thickness, y + thickness, height))
        for x in (-half_width + thickness, half_width - thickness)
        for y in (back + thickness, front - thickness)
    ]


def cabinet(rng, label="cabinet", height=None, width=None) -> list[Box]:
    width, depth = width or rng.uniform(0.7, 1.3), rng.uniform(0.38, 0.5)
    height = height or rng.uniform(0.8, 1.7)
    body, front = _wood(rng), _wood(rng)
    parts = [box(label, body, (-width / 2, 0, 0.08), (width / 2, depth, height))]
    parts += _legs(label, DARK, width / 2 - 0.03, depth - 0.03, 0.03, 0.08, 0.03)
    columns, rows = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    for i in range(columns):
        for j in range(rows):
            x0, x1 = (-width / 2 + 0.02 + (width - 0.04) * k / columns for k in (i, i + 1))
            z0, z1 = (0.11 + (height - 0.14) * k / rows for k in (j, j + 1))
            parts.append(box(label, front, (x0 + 0.01, depth, z0 + 0.01), (x1 - 0.01, depth + 0.018, z1 - 0.01)))
            parts.append(
                box(
                    label,
                    METAL,
                    ((x0 + x1) / 2 - 0.06, depth + 0.018, z1 - 0.07),
                    ((x0 + x1) / 2 + 0.06, depth + 0.04, z1 - 0.05),
                )
            )
    return parts


def bed(rng) -> list[Box]:
    width, length = rng.uniform(1.1, 1.7), rng.uniform(1.9, 2.1)
    wood, sheet, cover, pillow = _wood(rng), _paint(rng), _cloth(rng), _cloth(rng)
    parts = [
        box("bed", wood, (-width / 2, 0, 0), (width / 2, 0.06, rng.uniform(0.8, 1.1))),
        box("bed", wood, (-width / 2, 0.06, 0.12), (width / 2, length, 0.3)),
        box("bed", sheet, (-width / 2 + 0.02, 0.07, 0.3), (width / 2 - 0.02, length - 0.03, 0.5)),
        box("bed", cover, (-width / 2 - 0.02, 0.75, 0.32), (width / 2 + 0.02, length - 0.01, 0.53)),
    ]
    parts += _legs("bed", wood, width / 2, length, 0.06, 0.14, 0.04)
    for x in (-width / 4, width / 4):
        parts.append(box("bed", pillow, (x - 0.27, 0.12, 0.5), (x + 0.27, 0.5, 0.62), rotation_x(0.25)))
    return parts


def chair(rng) -> list[Box]:
    wood, seat = _wood(rng), _cloth(rng)
    half, depth, height = rng.uniform(0.2, 0.25), rng.uniform(0.42, 0.5), rng.uniform(0.43, 0.48)
    parts = _legs("chair", wood, half, depth, 0, height, 0.02)
    parts.append(box("chair", seat, (-half, 0, height), (half, depth, height + 0.05)))
    top = height + rng.uniform(0.4, 0.55)
    lean = rotation_x(0.12)
    for x in np.linspace(-half + 0.02, half - 0.02, int(rng.integers(2, 5))):
        parts.append(box("chair", wood, (x - 0.018, 0, height), (x + 0.018, 0.03, top), lean))
    parts.append(box("chair", seat, (-half, -0.03, top - 0.22), (half, 0.01, top), lean))
    return parts


def sofa(rng) -> list[Box]:
    width, depth, seats = rng.uniform(1.5, 2.2), rng.uniform(0.8, 0.95), int(rng.integers(2, 4))
    cloth, cushion = _cloth(rng), _cloth(rng)
    parts = [
        box("sofa", cloth, (-width / 2, 0, 0.08), (width / 2, depth, 0.3)),
        box("sofa", cloth, (-width / 2, 0, 0.3), (width / 2, 0.22, rng.uniform(0.72, 0.9))),
    ]
    parts += _legs("sofa", DARK, width / 2 - 0.05, depth - 0.05, 0.05, 0.08, 0.03)
    for x in (-width / 2, width / 2 - 0.18):
        parts.append(box("sofa", cloth, (x, 0, 0.3), (x + 0.18, depth, 0.58)))
    inner = width - 0.4
    for i in range(seats):
        x0 = -inner / 2 + inner * i / seats
        parts.append(box("sofa", cushion, (x0 + 0.01, 0.22, 0.3), (x0 + inner / seats - 0.01, depth + 0.02, 0.44)))
        parts.append(
            box("sofa", cushion, (x0 + 0.03, 0.2, 0.45), (x0 + inner / seats - 0.03, 0.34, 0.8), rotation_x(0.2))
        )
    return parts


def table(rng) -> list[Box]:
    width, depth, height = rng.uniform(0.9, 1.6), rng.uniform(0.6, 0.9), rng.uniform(0.42, 0.76)
    top, leg = _wood(rng), _wood(rng)
    parts = [
        box("table", top, (-width / 2, 0, height - 0.045), (width / 2, depth, height)),
        box("table", leg, (-width / 2 + 0.05, 0.05, height - 0.12), (width / 2 - 0.05, depth - 0.05, height - 0.045)),
    ]
    parts += _legs("table", leg, width / 2 - 0.03, depth - 0.03, 0.03, height - 0.045, 0.03)
    return parts


def desk(rng) -> list[Box]:
    width, depth = rng.uniform(1.1, 1.6), rng.uniform(0.6, 0.75)
    top, side = _wood(rng), _paint(rng)
    parts = [
        box("desk", top, (-width / 2, 0, 0.71), (width / 2, depth, 0.75)),
        box("desk", side, (-width / 2 + 0.02, 0.03, 0), (-width / 2 + 0.05, depth - 0.03, 0.71)),
        box("desk", side, (width / 2 - 0.42, 0.03, 0.05), (width / 2 - 0.02, depth - 0.04, 0.71)),
        box("desk", side, (-width / 2 + 0.05, 0.03, 0.35), (width / 2 - 0.42, 0.05, 0.71)),
    ]
    for j in range(3):
        z = 0.09 + 0.2 * j
        parts.append(box("desk", top, (width / 2 - 0.41, depth - 0.04, z), (width / 2 - 0.03, depth - 0.02, z + 0.18)))
        parts.append(box("desk", METAL, (width / 2 - 0.28, depth - 0.02, z + 0.08), (width / 2 - 0.16, depth, z + 0.1)))
    screen_x = rng.uniform(-0.3, 0.1)
    parts += [
        box("otherfurniture", DARK, (screen_x - 0.28, 0.2, 0.85), (screen_x + 0.28, 0.23, 1.2)),
        box("otherfurniture", DARK, (screen_x - 0.03, 0.16, 0.75), (screen_x + 0.03, 0.2, 0.95)),
        box("otherfurniture", DARK, (screen_x - 0.12, 0.1, 0.75), (screen_x + 0.12, 0.3, 0.765)),
    ]
    return parts


def bookshelf(rng) -> list[Box]:
    width, depth, height = rng.uniform(0.7, 1.2), 0.3, rng.uniform(1.4, 2.0)
    wood = _wood(rng)
    shelves = int(rng.integers(4, 6))
    parts = [box("bookshelf", wood, (-width / 2, 0, 0), (width / 2, 0.02, height))]
    for x in (-width / 2, width / 2 - 0.025):
        parts.append(box("bookshelf", wood, (x, 0, 0), (x + 0.025, depth, height)))
    for j in range(shelves + 1):
        z = 0.05 + (height - 0.08) * j / shelves
        parts.append(box("bookshelf", wood, (-width / 2, 0, z), (width / 2, depth, z + 0.025)))
        if j < shelves:
            length = rng.uniform(0.5, 0.95) * (width - 0.06)
            books = Material(
                tuple(rng.uniform(0.1, 0.8, 3)), tuple(rng.uniform(0.05, 0.6, 3)), "books", rng.uniform(0.025, 0.045)
            )
            parts.append(
                box(
                    "bookshelf",
                    books,
                    (-width / 2 + 0.03, 0.04, z + 0.025),
                    (-width / 2 + 0.03 + length, depth - rng.uniform(0.03, 0.1), z + 0.025 + rng.uniform(0.16, 0.24)),
                )
            )
    return parts


def counter(rng) -> list[Box]:
    width, depth = rng.uniform(1.4, 2.2), 0.6
    stone = Material.of(rng.uniform(0.2, 0.75, 3), "fabric", 0.05, 0.4)
    parts = cabinet(rng, "cabinet", height=0.86, width=width)
    parts.append(box("counter", stone, (-width / 2 - 0.02, 0, 0.86), (width / 2 + 0.02, depth, 0.91)))
    parts.append(box("counter", stone, (-width / 2 - 0.02, 0, 0.91), (width / 2 + 0.02, 0.02, 1.05)))
    x = rng.uniform(-width / 4, width / 4)
    parts += _basin("sink", x, 0.1, 0.5, 0.915, 0.25)
    return parts


def _basin(label, x, back, front, z, half) -> list[Box]:
    """Return a basin: a rim around a darker bottom, and a tap."""
    bottom = Material.of((0.45, 0.46, 0.47))
    sides = [
        ((x - half, back, z - 0.005), (x - half + 0.03, front, z + 0.03)),
        ((x + half - 0.03, back, z - 0.005), (x + half, front, z + 0.03)),
        ((x - half, back, z - 0.005), (x + half, back + 0.03, z + 0.03)),
        ((x - half, front - 0.03, z - 0.005), (x + half, front, z + 0.03)),
    ]
    parts = [box(label, PORCELAIN, low, high) for low, high in sides]
    parts.append(box(label, bottom, (x - half, back, z - 0.005), (x + half, front, z + 0.004)))
    parts.append(box(label, METAL, (x - 0.015, back, z), (x + 0.015, back + 0.03, z + 0.22)))
    parts.append(box(label, METAL, (x - 0.012, back, z + 0.2), (x + 0.012, back + 0.16, z + 0.22)))
    return parts


def refrigerator(rng) -> list[Box]:
    width, depth, height = rng.uniform(0.6, 0.8), 0.65, rng.uniform(1.6, 1.85)
    steel = Material.of(rng.choice([0.8, 0.6, 0.35]) * np.ones(3))
    split = height * rng.uniform(0.55, 0.7)
    return [
        box("refrigerator", Material.of((0.3, 0.3, 0.32)), (-width / 2, 0, 0.03), (width / 2, depth - 0.05, height)),
        box("refrigerator", steel, (-width / 2, depth - 0.05, 0.05), (width / 2, depth, split - 0.008)),
        box("refrigerator", steel, (-width / 2, depth - 0.05, split + 0.008), (width / 2, depth, height)),
        box(
            "refrigerator", METAL, (width / 2 - 0.1, depth, split - 0.5), (width / 2 - 0.07, depth + 0.04, split - 0.08)
        ),
        box(
            "refrigerator",
            METAL,
            (width / 2 - 0.1, depth, split + 0.06),
            (width / 2 - 0.07, depth + 0.04, split + 0.32),
        ),
    ]


def _folds(label, material, width, bottom, top, y, count) -> list[Box]:
    """Return hanging cloth: vertical strips rotated slightly, alternately to either side."""
    step = width / count
    return [
        box(
            label,
            material,
            (-width / 2 + i * step - 0.015, y - 0.012, bottom),
            (-width / 2 + (i + 1) * step + 0.015, y + 0.012, top),
            rotation_z(0.5 if i % 2 else -0.5),
        )
        for i in range(count)
    ]


def shower_curtain(rng) -> list[Box]:
    width = rng.uniform(0.9, 1.4)
    parts = _folds("shower curtain", _cloth(rng), width, 0.15, 1.95, 0.35, 10)
    parts.append(box("otherfurniture", METAL, (-width / 2 - 0.1, 0.335, 1.96), (width / 2 + 0.1, 0.365, 1.99)))
    parts += [
        box("otherfurniture", METAL, (x - 0.015, 0, 1.96), (x + 0.015, 0.36, 1.99))
        for x in (-width / 2 - 0.08, width / 2 + 0.08)
    ]
    return parts


def toilet(rng) -> list[Box]:
    parts = pillar("toilet", PORCELAIN, 0, 0.42, 0.14, 0, 0.32)
    parts += pillar("toilet", PORCELAIN, 0, 0.44, 0.22, 0.3, 0.4)
    parts += [
        box("toilet", PORCELAIN, (-0.2, 0, 0.36), (0.2, 0.2, 0.78)),
        box("toilet", PORCELAIN, (-0.21, -0.005, 0.78), (0.21, 0.21, 0.81)),
        box("toilet", Material.of(rng.uniform(0.4, 0.9, 3)), (-0.19, 0.2, 0.4), (0.19, 0.62, 0.425)),
        box("toilet", METAL, (-0.03, 0.05, 0.81), (0.03, 0.11, 0.825)),
    ]
    return parts


def sink(rng) -> list[Box]:
    parts = pillar("sink", PORCELAIN, 0, 0.25, 0.09, 0, 0.78)
    parts.append(box("sink", PORCELAIN, (-0.3, 0, 0.74), (0.3, 0.48, 0.84)))
    parts += _basin("sink", 0, 0.02, 0.46, 0.845, 0.28)
    return parts


def bathtub(rng) -> list[Box]:
    width, depth, height = rng.uniform(1.4, 1.7), rng.uniform(0.7, 0.8), rng.uniform(0.5, 0.58)
    tub = Material.of(rng.choice([0.85, 0.75]) * np.array([1, 1, 0.97]))
    water = Material.of((0.35, 0.5, 0.55))
    return [
        box("bathtub", tub, (-width / 2, 0, 0), (width / 2, 0.08, height)),
        box("bathtub", tub, (-width / 2, depth - 0.08, 0), (width / 2, depth, height)),
        box("bathtub", tub, (-width / 2, 0, 0), (-width / 2 + 0.08, depth, height)),
        box("bathtub", tub, (width / 2 - 0.08, 0, 0), (width / 2, depth, height)),
        box("bathtub", water, (-width / 2 + 0.04, 0.04, 0), (width / 2 - 0.04, depth - 0.04, 0.28)),
        box(
            "bathtub",
            METAL,
            (-width / 2 + 0.02, depth / 2 - 0.02, height),
            (-width / 2 + 0.06, depth / 2 + 0.02, height + 0.2),
        ),
    ]


def lamp(rng) -> list[Box]:
    shade = Material.of(rng.uniform(0.5, 0.95, 3), glow=0.5)
    return [
        *pillar("otherfurniture", DARK, 0, 0.25, 0.16, 0, 0.03),
        box("otherfurniture", METAL, (-0.015, 0.235, 0.03), (0.015, 0.265, 1.35)),
        *pillar("otherfurniture", shade, 0, 0.25, 0.2, 1.3, 1.6),
    ]


def plant(rng) -> list[Box]:
    leaf = Material.of((0.08, rng.uniform(0.2, 0.4), 0.07), "fabric", 0.05, 0.5)
    parts = pillar("otherfurniture", Material.of(rng.uniform(0.2, 0.6, 3)), 0, 0.25, 0.17, 0, 0.35)
    for _ in range(9):
        turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_x(rng.uniform(0.3, 1.0))
        stem = turn @ np.array([0, 0, 0.32]) + np.array([0, 0.25, 0.33])
        parts.append(Box(stem, np.array([0.06, 0.012, 0.32]), turn, "otherfurniture", leaf))
    return parts


def boxes(rng) -> list[Box]:
    card = Material.of((0.45, 0.31, 0.18), "stripes", 0.15, 0.15)
    size = rng.uniform(0.3, 0.5, 2)
    return [
        box("otherfurniture", card, (-size[0] / 2, 0.02, 0), (size[0] / 2, 0.02 + size[0], size[0] * 0.8)),
        box(
            "otherfurniture",
            card,
            (-size[1] / 2, 0.05, size[0] * 0.8),
            (size[1] / 2, 0.05 + size[0] * 0.8, size[0] * 0.8 + size[1] * 0.7),
            rotation_z(0.3),
        ),
    ]


def door(rng) -> list[Box]:
    leaf, frame = _wood(rng), _paint(rng)
    parts = [box("door", leaf, (-0.42, 0, 0), (0.42, 0.03, 2.0))]
    parts += [
        box("door", frame, low, high)
        for low, high in (
            ((-0.5, 0, 0), (-0.42, 0.06, 2.08)),
            ((0.42, 0, 0), (0.5, 0.06, 2.08)),
            ((-0.5, 0, 2.0), (0.5, 0.06, 2.08)),
        )
    ]
    parts += [
        box("door", leaf, (x - 0.14, 0.03, z), (x + 0.14, 0.042, z + 0.7)) for x in (-0.2, 0.2) for z in (0.2, 1.15)
    ]
    parts.append(box("door", METAL, (0.3, 0.03, 1.0), (0.4, 0.08, 1.03)))
    return parts


def window(rng) -> list[Box]:
    """Return a window with a curtain on each side."""
    width, low, high = rng.uniform(1.0, 1.7), rng.uniform(0.85, 1.0), rng.uniform(1.9, 2.15)
    frame = Material.of((0.8, 0.8, 0.78))
    sky = Material(tuple(rng.uniform((0.5, 0.65, 0.8), (0.7, 0.85, 1.0))), (0.25, 0.4, 0.2), "painting", 1.5, glow=0.7)
    parts = [box("window", sky, (-width / 2, 0, low), (width / 2, 0.015, high))]
    for x in (-width / 2, -0.03, width / 2 - 0.06):
        parts.append(box("window", frame, (x, 0, low), (x + 0.06, 0.05, high)))
    for z in (low, (low + high) / 2, high - 0.06):
        parts.append(box("window", frame, (-width / 2, 0, z), (width / 2, 0.045, z + 0.06)))
    parts.append(box("window", frame, (-width / 2 - 0.05, 0, low - 0.04), (width / 2 + 0.05, 0.14, low)))
    cloth, strip = _cloth(rng), rng.uniform(0.3, 0.45)
    for side in (-1, 1):
        parts += [
            part.moved(np.eye(3), np.array([side * (width / 2 + strip / 2 - 0.05), 0, 0]))
            for part in _folds("curtain", cloth, strip, 0.8, 2.25, 0.17, 5)
        ]
    parts.append(box("curtain", METAL, (-width / 2 - strip, 0.155, 2.25), (width / 2 + strip, 0.185, 2.28)))
    return parts


def picture(rng) -> list[Box]:
    width, height, low = rng.uniform(0.45, 0.9), rng.uniform(0.4, 0.7), rng.uniform(1.25, 1.4)
    canvas = Material(
        tuple(rng.uniform(0.1, 0.9, 3)), tuple(rng.uniform(0.05, 0.8, 3)), "painting", rng.uniform(0.15, 0.35)
    )
    return [
        box(
            "picture", DARK if rng.random() < 0.5 else _wood(rng), (-width / 2, 0, low), (width / 2, 0.03, low + height)
        ),
        box("picture", canvas, (-width / 2 + 0.04, 0.03, low + 0.04), (width / 2 - 0.04, 0.036, low + height - 0.04)),
    ]


Maker = Callable[[np.random.Generator], list[Box]]
STANDING: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        cabinet,
        bed,
        chair,
        sofa,
        table,
        desk,
        bookshelf,
        counter,
        refrigerator,
        shower_curtain,
        toilet,
        sink,
        bathtub,
        lamp,
        plant,
        boxes,
    )
}
