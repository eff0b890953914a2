"""Rooms of furniture models: shell, doors and windows, the furniture of a theme, and light."""

from __future__ import annotations

import numpy as np

from dataset.synthetic import fixtures
from dataset.synthetic.dressing import moved_to
from dataset.synthetic.meshes import Lamp, Mesh, MeshRoom, Pane
from dataset.synthetic.pack import Furniture
from dataset.synthetic.placing import extent
from dataset.synthetic.themes import ALONE, THEMES, RoomInMaking, fit_kitchen

MOST_GLOWING = 3  # number of table and floor lamps that give light
MIXED_IN = 5  # number of pieces of other themes to place if possible, so that a few rooms show most classes


def furnish(models: Furniture, seed: int) -> MeshRoom:
    """Return a room whose theme, size, layout, materials and light are determined by the seed."""
    room = RoomInMaking(models, seed)
    rng, size = room.rng, room.plan.size
    daylight = float(rng.choice([0.0, rng.uniform(2, 5), rng.uniform(5, 12)], p=[0.15, 0.35, 0.5]))
    if room.theme == "kitchen":
        fit_kitchen(room)  # before doors and windows, since it needs a free wall
    room.hang(fixtures.door(rng))
    for _ in range(1 if room.theme == "bath" else int(rng.integers(1, 3))):
        placed = room.hang(fixtures.window(rng, daylight))
        if placed:
            room.panes.append(_pane(placed[0], daylight, rng))
    others = [kind for theme, kinds in ALONE.items() if theme != room.theme for kind in kinds]
    others = rng.permutation(others)[: 0 if room.theme == "bath" else MIXED_IN]
    for kind in others[:1]:  # before the furniture of the theme, while there is room
        room.stand(str(kind))
    THEMES[room.theme](room)
    for kind in others[1:]:
        room.stand(str(kind), clutter=3 if kind in ("cabinet", "desk") else 0)
    for _ in range(int(rng.integers(1, 5)) if room.theme != "bath" else 1):
        room.hang(fixtures.picture(rng))
    if rng.random() < 0.4:
        room.stand("radiator")
    _light(room)
    warm = np.array([1.0, 0.97, 0.93])
    return MeshRoom(
        room.parts, size, room.lamps, room.panes, 0.03 * warm, float(rng.uniform(0.13, 0.24)), np.stack(room.sights)
    )


def _pane(view: Mesh, daylight: float, rng) -> Pane:
    corner, right, top = view.triangles[1]  # of the face towards the room
    tint = np.array([rng.uniform(0.85, 1.05), 0.97, rng.uniform(0.95, 1.2)])
    return Pane(corner, top - right, right - corner, tint * daylight)


def _light(room: RoomInMaking) -> None:
    """Add ceiling lamps with their light, and the light of other glowing parts."""
    rng, (x, y, z) = room.rng, room.plan.size
    glowing = [part for part in room.parts if part.label == "otherfurniture" and part.surface.glow > 0]
    for part in glowing[:MOST_GLOWING]:
        low, high = part.bounds()
        color = np.array([1.0, 0.82, 0.6]) * 0.35 * part.surface.glow
        room.lamps.append(Lamp((low + high) / 2, float(0.6 * np.linalg.norm(high - low)), color))
    count = int(rng.integers(1, 3)) + (room.theme == "office")
    warmth = np.array([1.0, rng.uniform(0.78, 0.97), rng.uniform(0.55, 0.95)])
    power = rng.uniform(2.5, 5.0) / count
    for i in range(count):
        place = np.array([x * (i + 0.5) / count, y * rng.uniform(0.4, 0.6), z])
        lamp = room.stock.one("ceiling_lamp") if rng.random() < 0.3 else []
        height = np.subtract(*extent(lamp)[::-1])[2] if lamp else np.inf
        if height < 0.7:
            lamp = moved_to(lamp, place - [0, 0, height + 0.001])
        else:
            lamp = [part.moved(np.eye(3), place) for part in fixtures.lamp_shade(rng)]
        room.add(lamp, worth=False)
        below = extent(lamp)[0][2] - 0.12
        room.lamps.append(Lamp(np.array([place[0], place[1], below]), 0.1, warmth * power))
        room.lamps.append(Lamp(np.array([place[0], place[1], z - 0.15]), 0.05, warmth * power * 0.15))
