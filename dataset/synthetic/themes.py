"""Furnishing of rooms of models: the pieces that belong to each theme, and their placement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataset.synthetic import fixtures, textures
from dataset.synthetic.dressing import Stock, levels, moved_to, place_on, with_books
from dataset.synthetic.meshes import Lamp, Mesh, Pane, block
from dataset.synthetic.pack import Furniture
from dataset.synthetic.placing import Plan, extent

SIZES = {  # smallest and largest (x, y) in metres
    "living": ((4.2, 3.8), (6.2, 5.4)),
    "kitchen": ((3.4, 3.2), (5.2, 4.6)),
    "bedroom": ((3.9, 3.6), (5.6, 5.0)),
    "bath": ((2.9, 2.7), (4.0, 3.6)),
    "office": ((4.0, 3.8), (6.2, 5.4)),
}
CLUTTER = {  # objects on tables and cabinets
    "living": ("trinket", "vase", "frame", "small_plant", "candle", "book", "mug", "food"),
    "kitchen": ("food", "food", "mug", "vase", "small_plant"),
    "bedroom": ("trinket", "book", "frame", "table_lamp", "vase", "mug"),
    "bath": ("toiletries", "toiletries", "small_plant", "candle"),
    "office": ("stationery", "book", "mug", "small_plant", "desk_lamp", "speaker"),
}
MOST_OF_FLOOR = 0.1  # largest share of the floor for a table away from the walls


class RoomInMaking:
    """A room that is being furnished."""

    def __init__(self, models: Furniture, seed: int):
        self.rng = np.random.default_rng([seed, 7])
        self.theme = list(SIZES)[seed % len(SIZES)]
        self.plan = Plan(np.array([*self.rng.uniform(*SIZES[self.theme]), self.rng.uniform(2.4, 2.9)]), tall=1.2)
        self.stock = Stock(models, self.rng)
        self.parts = fixtures.shell(self.rng, self.plan.size, self.theme)
        self.lamps: list[Lamp] = []
        self.panes: list[Pane] = []
        self.sights: list[np.ndarray] = []

    def add(self, placed: list[Mesh], worth: bool = True) -> bool:
        """Add placed parts to the room and return whether there are any. worth: a walk looks at them."""
        if placed and worth:
            self.sights.append(np.mean(extent(placed), 0))
        self.parts += placed
        return bool(placed)

    def stand(self, kind: str, clutter: int = 0) -> bool:
        """Place a piece of a kind at a wall, with up to `clutter` objects on it. Return False if there is none,
        or no room for it."""
        piece = self.stock.one(kind)
        if kind == "bookshelf" and piece:
            piece = with_books(piece, self.rng)
        return bool(piece) and self.add(self.plan.stand(self.rng, piece + self.clutter(piece, clutter)))

    def hang(self, parts: list[Mesh], worth: bool = False) -> list[Mesh]:
        placed = self.plan.hang(self.rng, parts) if parts else []
        self.add(placed, worth)
        return placed

    def clutter(self, piece: list[Mesh], most: int) -> list[Mesh]:
        """Return a random number of objects, up to `most`, placed on a piece."""
        lying: list[Mesh] = []
        for _ in range(int(self.rng.integers(most + 1)) if most else 0):
            kind = str(self.rng.choice(CLUTTER[self.theme]))
            makers: dict[str, Callable] = {"mug": fixtures.mug, "book": fixtures.book}
            thing = makers[kind](self.rng) if kind in makers else self.stock.one(kind)
            lying += place_on(piece + lying, thing, self.rng) if thing else []
        return lying


def _beside(piece: list[Mesh], thing: list[Mesh], side: int, gap: float = 0.06) -> list[Mesh]:
    """Return an object moved to the left (-1) or right (1) of a piece, with their backs aligned. gap: in metres."""
    low, high = extent(piece)
    t_low, t_high = extent(thing)
    shift = high[0] + gap - t_low[0] if side > 0 else low[0] - gap - t_high[0]
    return [part.moved(np.eye(3), np.array([shift, low[1] - t_low[1], 0])) for part in thing]


def _before(piece: list[Mesh], thing: list[Mesh], gap: float, angle: float = 0.0, x: float = 0.0) -> list[Mesh]:
    """Return an object moved in front of a piece, at a distance of `gap` metres, and rotated by `angle` radians."""
    high = extent(piece)[1]
    turned = moved_to(thing, (0, 0, extent(thing)[0][2]), angle)
    t_low, _ = extent(turned)
    return [part.moved(np.eye(3), np.array([x, high[1] + gap - t_low[1], 0])) for part in turned]


def _living(room: RoomInMaking) -> None:
    rng = room.rng
    sofa = room.stock.one("sofa")
    table = room.stock.one("coffee_table")
    group = list(sofa)
    if table:
        placed = _before(sofa, table, rng.uniform(0.3, 0.5))
        group += placed + room.clutter(placed, 4)
        if rng.random() < 0.6:
            low, high = extent(placed)
            group += fixtures.rug(rng, (low + high)[:2] / 2, (rng.uniform(1.8, 2.6), rng.uniform(1.1, 1.6)))
    room.add(room.plan.stand(rng, group)) or room.add(room.plan.stand(rng, sofa))
    stand = room.stock.one("tv_stand") if rng.random() < 0.4 else room.stock.one("coffee_table")
    tv = room.stock.one("tv")
    if stand and tv:
        low, high = extent(stand)
        top = levels(stand, 0.0, (low[1] + high[1]) / 2)
        room.add(room.plan.stand(rng, stand + (moved_to(tv, (0, (low[1] + high[1]) / 2, top[-1])) if len(top) else [])))
    elif rng.random() < 0.5:
        room.hang(room.stock.one("wall_tv"), worth=True)
    for kind in ("bookshelf", "armchair", "floor_lamp", "plant", "cabinet"):
        room.stand(kind, clutter=4 if kind == "cabinet" else 0)
    _dining(room)
    for kind in ("armchair", "plant", "box"):
        room.stand(kind)


def fit_kitchen(room: RoomInMaking) -> None:
    for modules in range(int(room.rng.integers(4, 7)), 1, -1):
        if room.add(room.plan.stand(room.rng, _kitchen_run(room, modules))):
            return


def _kitchen(room: RoomInMaking) -> None:
    _dining(room)
    for kind in ("washer", "tall", "cabinet", "plant", "bin", "wardrobe"):
        room.stand(kind, clutter=3 if kind in ("washer", "cabinet") else 0)


def _kitchen_run(room: RoomInMaking, modules: int) -> list[Mesh]:
    """Return a row of base cabinets with sink and cooktop, tiles and wall cabinets above, and a refrigerator beside."""
    rng = room.rng
    if not all(room.stock.one(kind, same=True) for kind in ("base", "sink_base")):
        return [*room.stock.primitive("counter")]
    kinds = ["base"] * modules
    sink, cook = rng.choice(modules, 2, replace=False)
    kinds[sink] = "sink_base"
    run: list[Mesh] = []
    for i, kind in enumerate(kinds):
        module = room.stock.one(kind, same=True)
        module = _beside(run, module, 1, 0.0) if run else module
        low, high = extent(module)
        if i == cook:
            top = room.stock.one("cooktop")
            run += moved_to(top, (*((low + high)[:2] / 2), high[2] + 0.001)) if top else []
        elif kind == "base":
            run += room.clutter(module, 3)
        run += module
    low, high = extent([part for part in run if part.label in ("cabinet", "counter")])
    if rng.random() < 0.7:
        tiles = textures.tiles(rng, edge=rng.uniform(0.08, 0.18))
        run.append(block("wall", tiles, (low[0], low[1] - 0.006, 0.89), (high[0], low[1], 1.45)))
    if rng.random() < 0.8:
        run += _uppers(room, low, high)
    fridge = room.stock.one("fridge")
    return run + (_beside(run, fridge, int(rng.choice([-1, 1])), 0.03) if fridge else [])


def _uppers(room: RoomInMaking, low, high) -> list[Mesh]:
    """Return wall cabinets, sometimes with a hood, above the furniture between two corners."""
    shelf: list[Mesh] = []
    x = low[0]
    while x < high[0]:
        kind = "hood" if room.rng.random() < 0.2 else "upper"
        unit = room.stock.one(kind, same=True)
        if not unit:
            break
        u_low, u_high = extent(unit)
        if x + u_high[0] - u_low[0] > high[0] + 0.02:
            break
        lift = 1.55 - u_low[2] if kind == "hood" else 0.0
        shelf += [part.moved(np.eye(3), np.array([x - u_low[0], low[1] - u_low[1], lift])) for part in unit]
        x += u_high[0] - u_low[0]
    return shelf


def _bedroom(room: RoomInMaking) -> None:
    rng = room.rng
    bed = room.stock.one("bed")
    group = list(bed)
    for side in (-1, 1):
        if rng.random() < 0.75:
            table = room.stock.one("bedside", same=True)
            if table:
                table = _beside(bed, table, side)
                lamp = room.stock.one("table_lamp", same=True) if rng.random() < 0.7 else []
                group += table + (place_on(table, lamp, rng) if lamp else room.clutter(table, 2))
    if rng.random() < 0.5:
        low, high = extent(bed)
        group += fixtures.rug(rng, ((low[0] + high[0]) / 2, high[1] - 0.2), (rng.uniform(1.8, 2.6), 1.3))
    room.add(room.plan.stand(rng, group)) or room.add(room.plan.stand(rng, bed))
    room.stand("wardrobe")
    if rng.random() < 0.7:
        _desk(room)
    for kind in ("cabinet", "bookshelf", "armchair", "plant", "box", "bin"):
        if rng.random() < 0.8:
            room.stand(kind, clutter=4 if kind == "cabinet" else 0)
    if rng.random() < 0.4:
        room.hang(fixtures.mirror(rng))


def _bath(room: RoomInMaking) -> None:
    rng = room.rng
    room.stand("toilet")
    basin = room.stock.one(str(rng.choice(["basin", "vanity"])))
    if basin:
        group = basin + (fixtures.mirror(rng) if extent(basin)[1][2] < 1.1 else [])
        room.add(room.plan.stand(rng, group + room.clutter(basin, 3)))
    room.stand("bathtub")
    room.add(room.plan.stand(rng, fixtures.shower_curtain(rng)))
    for kind in ("washer", "bin", "plant"):
        if rng.random() < 0.6:
            room.stand(kind, clutter=3 if kind == "washer" else 0)
    room.hang(room.stock.one("towels"))
    if rng.random() < 0.5:
        low = room.plan.size[:2] * rng.uniform(0.4, 0.6, 2)
        room.add(fixtures.rug(rng, low, (rng.uniform(0.7, 1.0), rng.uniform(0.5, 0.7))), worth=False)


def _office(room: RoomInMaking) -> None:
    for _ in range(int(room.rng.integers(1, 4))):
        _desk(room)
    for kind in ("bookshelf", "cabinet", "plant", "bin", "bookshelf", "box", "armchair"):
        if room.rng.random() < 0.8:
            room.stand(kind, clutter=4 if kind == "cabinet" else 0)
    if room.rng.random() < 0.4:
        _dining(room)


def _desk(room: RoomInMaking) -> None:
    """Place a desk at a wall, with a computer and other objects on it and a chair in front."""
    rng = room.rng
    desk = room.stock.one("desk", same=rng.random() < 0.5) or room.stock.one("table")
    if not desk:
        return
    group = list(desk)
    computer = room.stock.one("computer")
    if computer:
        group += place_on(desk, computer, rng, keep=0.02)
    group += room.clutter(group, 4)
    chair = room.stock.one("office_chair" if rng.random() < 0.7 else "chair")
    if chair:
        low, high = extent(desk)
        group += _before(desk, chair, rng.uniform(-0.2, 0.15), np.pi + rng.normal(0, 0.4), (low[0] + high[0]) / 2)
    room.add(room.plan.stand(rng, group)) or room.add(room.plan.stand(rng, desk))


def _dining(room: RoomInMaking) -> None:
    """Place a table away from the walls with chairs on some sides, if there is room."""
    rng = room.rng
    chair = room.stock.one("chair", same=True)
    for _ in range(30):
        table = room.stock.one("table")
        if not table or not chair:
            return
        size = np.subtract(*extent(table)[::-1])
        if size[0] * size[1] > MOST_OF_FLOOR * room.plan.size[0] * room.plan.size[1]:
            continue
        place = np.array([*(room.plan.size[:2] * rng.uniform(0.35, 0.65, 2)), 0])
        angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
        middle = moved_to(table, place, angle)
        seats = []
        for side in rng.permutation(4)[: int(rng.integers(1, 5))]:
            facing = angle + side * np.pi / 2
            reach = size[(side + 1) % 2] / 2 + rng.uniform(0.05, 0.25)
            offset = np.array([np.sin(facing), -np.cos(facing), 0]) * reach
            seats.append(moved_to(chair, place + offset, facing + rng.normal(0, 0.12)))
        if room.plan.claim(middle + [part for seat in seats for part in seat]):
            lying = room.clutter(middle, 5)
            rug = []
            if rng.random() < 0.4 and room.theme != "kitchen":
                rug = fixtures.rug(rng, place[:2], size[:2] + rng.uniform(0.8, 1.2, 2))
            room.add(middle + lying + [part for seat in seats for part in seat])
            room.add(rug, worth=False)
            return


THEMES = {"living": _living, "kitchen": _kitchen, "bedroom": _bedroom, "bath": _bath, "office": _office}
ALONE = {  # pieces that may also stand in a room of another theme
    "living": ("sofa", "bookshelf", "armchair", "coffee_table"),
    "kitchen": ("fridge", "cabinet", "stool"),
    "bedroom": ("bed", "wardrobe", "desk"),
    "office": ("desk", "office_chair"),
}
