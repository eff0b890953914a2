"""Materials and shapes of models, varied from room to room, and objects placed on them."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import cv2
import numpy as np

from dataset.synthetic import furniture, textures
from dataset.synthetic.catalogue import class_of
from dataset.synthetic.meshes import Mesh, Surface, block
from dataset.synthetic.models import Model, Skin
from dataset.synthetic.pack import Furniture
from dataset.synthetic.parts import Box, Material
from dataset.synthetic.placing import extent

WOODEN = (
    "table",
    "coffee_table",
    "desk",
    "bookshelf",
    "cabinet",
    "wardrobe",
    "tv_stand",
    "bedside",
    "base",
    "sink_base",
    "upper",
    "tall",
)
SOFT = ("sofa", "armchair", "pouf")
CLOTH = r"mattress|pillow|blank|sheet|duvet|cloth|fabric|tela|cushion|cojin|colch|seat|leather|towel|toalla"
METAL = r"metal|chrom|alu|inox|steel|iron"
PORCELAIN = ("toilet", "basin", "bathtub", "vanity")
PRIMITIVES = {  # kinds that can also be built of boxes: if a library has none, and sometimes if it has few
    "counter": furniture.counter,
    "fridge": furniture.refrigerator,
    "toilet": furniture.toilet,
    "basin": furniture.sink,
    "bathtub": furniture.bathtub,
    "bed": furniture.bed,
    "sofa": furniture.sofa,
    "chair": furniture.chair,
    "office_chair": furniture.chair,
    "table": furniture.table,
    "coffee_table": furniture.table,
    "desk": furniture.desk,
    "bookshelf": furniture.bookshelf,
    "cabinet": furniture.cabinet,
    "wardrobe": furniture.cabinet,
    "floor_lamp": furniture.lamp,
    "plant": furniture.plant,
    "box": furniture.boxes,
}
RECOLORABLE = (*WOODEN, *SOFT, "bed", "chair", "office_chair", "stool", "vase", "towels", "box", "bin", "vanity")
PAINTABLE = (*WOODEN, "chair", "office_chair", "stool", "fridge", "radiator", "box", "bin", "washer", "hood")
OF_BOXES = 0.6  # probability of a piece of boxes, to be divided by the number of models of its kind
IN_ROWS = ("base", "sink_base", "upper", "tall", "hood", "cooktop", "oven")  # keep their sizes, to fit together
SIZE_SPREAD = (0.18, 0.1, 0.08)  # standard deviations of the logarithms of width, depth and height
FACING_SIDE = 4e-4  # metres by which triangles are moved to the side that they face
RECOLORED = 0.3  # probability that a material that could be wood or cloth gets another colour or texture
PAINTED = 0.2  # probability that a large material that could be painted is, in any colour


class Stock:
    """Furniture available to a room: the models of a pack. Each model looks the same throughout the room."""

    def __init__(self, models: Furniture, rng: np.random.Generator):
        self._models, self._rng = models, rng
        self._dressed: dict[int, list[Mesh]] = {}
        self._looks = int(rng.integers(2**31))
        self._chosen: dict[str, list[Mesh]] = {}
        self._surfaces: dict[Material, Surface] = {}

    def one(self, kind: str, same: bool = False) -> list[Mesh]:
        """Return a piece of a kind, with its back at y = 0; [] if there is none. same: return the same piece in all
        calls with this flag."""
        if same and kind in self._chosen:
            return self._chosen[kind]
        numbers = self._models.kinds.get(kind, [])
        if kind in PRIMITIVES and self._rng.random() * len(numbers) < OF_BOXES:
            piece = self.primitive(kind)
        elif numbers:
            piece = self._model(int(self._rng.choice(numbers)), kind)
        else:
            piece = []
        if same:
            self._chosen[kind] = piece
        return piece

    def _model(self, number: int, kind: str) -> list[Mesh]:
        if number not in self._dressed:
            model = self._models.load(number)
            if kind not in IN_ROWS:
                model = reshaped(model, np.random.default_rng([self._looks, number]))
            self._dressed[number] = dressed(model, kind, self._looks)
        return self._dressed[number]

    def primitive(self, kind: str) -> list[Mesh]:
        """Return a piece of a kind built of boxes, as meshes."""
        return [self._mesh(part) for part in PRIMITIVES[kind](self._rng)]

    def _mesh(self, part: Box) -> Mesh:
        """Return a box as a mesh, with a texture of the material that its pattern represents."""
        material = part.material
        if material not in self._surfaces:
            self._surfaces[material] = _rendition(material, part.label, self._rng)
        low, high = part.centre - part.half, part.centre + part.half
        return block(part.label, self._surfaces[material], low, high, part.rotation)


def _rendition(material: Material, label: str, rng) -> Surface:
    color = np.array(material.color) ** (1 / 2.2)
    if material.pattern == "books":
        return textures.spines(rng)
    if material.pattern == "planks":
        return textures.wood(rng, color)
    if material.pattern in ("fabric", "stripes", "tiles"):
        return textures.fabric(rng, color)
    return textures.plain(color, glow=material.glow, gloss=0.04 if label in ("toilet", "sink", "bathtub") else 0.0)


def reshaped(model: Model, rng) -> Model:
    """Return the model with width, depth and height scaled at random, and mirrored with probability 1/2, so that its
    shape varies from room to room."""
    scale = np.exp(rng.normal(0, SIZE_SPREAD)).clip(0.7, 1.4).astype(np.float32)
    normals = model.normals / scale
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    shaped = replace(model, triangles=model.triangles * scale, normals=normals)
    return mirrored(shaped) if rng.random() < 0.5 else shaped


def mirrored(model: Model) -> Model:
    """Return the model with left and right exchanged."""
    flip = np.array([-1, 1, 1], np.float32)
    return replace(  # corners in reverse order, since mirroring reverses the orientation of faces
        model, triangles=model.triangles[:, ::-1] * flip, uv=model.uv[:, ::-1], normals=model.normals[:, ::-1] * flip
    )


def dressed(model: Model, kind: str, looks: int) -> list[Mesh]:
    """Return the model as meshes, one for each material, at its height above the floor. looks: seed of the variation of
    materials. Materials of the same name vary alike in all models of a room, so that kitchen cabinets match."""
    meshes = []
    areas = _areas(model)
    for number, skin in enumerate(model.skins):
        chosen = model.skin == number
        triangles = _apart(model.triangles[chosen]) + np.array([0, 0, model.item.elevation], np.float32)
        surface = _surface(skin, kind, areas[number], np.random.default_rng([looks, zlib.crc32(skin.name.encode())]))
        uv = model.uv[chosen] if skin.texture is not None else np.full((len(triangles), 3, 2), np.nan, np.float32)
        boxed = _box_mapped(triangles) / (surface.period if skin.texture is None else (0.5, 0.5))
        uv = np.where(np.isnan(uv).any((1, 2), keepdims=True), boxed, uv)
        meshes.append(Mesh(triangles, uv, model.normals[chosen], surface, class_of(kind, skin.name)))
    return meshes


def _apart(triangles: np.ndarray) -> np.ndarray:
    """Return triangles (T, 3, 3) moved by FACING_SIDE to the side that they face.

    Of two triangles in one plane, the one that faces the camera is then visible, as with back-face culling.
    """
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return triangles + np.float32(FACING_SIDE) * normal[:, None]


def _areas(model: Model) -> np.ndarray:
    """Return the share of the model's surface area that each material covers."""
    a, b = (model.triangles[:, i] - model.triangles[:, 0] for i in (1, 2))
    area = np.bincount(model.skin, np.linalg.norm(np.cross(a, b), axis=-1), len(model.skins))
    return area / max(area.sum(), 1e-12)


def _surface(skin: Skin, kind: str, share: float, rng) -> Surface:
    """Return the surface of a material, slightly varied; some large materials become painted, wood or cloth."""
    warm = rng.normal(0, 0.02, 3)
    shiny = 0.05 if kind in PORCELAIN else 0.0
    name = skin.name.lower()
    if re.search(r"mirror|espejo", name):
        return textures.plain((0.05, 0.06, 0.06), gloss=0.75)
    metal = bool(re.search(METAL, name))
    if kind in PAINTABLE and share > 0.12 and not metal and rng.random() < PAINTED:
        return textures.plain(textures.any_color(rng), gloss=rng.choice([0.0, 0.03, 0.08]))
    if skin.texture is not None:
        color = skin.texture[..., :3] * (rng.uniform(0.85, 1.1) * (1 + warm))
        if kind in RECOLORABLE and rng.random() < RECOLORED and share > 0.2:
            color = _hue_turned(color.clip(0, 255), rng)
        texture = np.concatenate([color.clip(0, 255).astype(np.uint8), skin.texture[..., 3:]], -1)
        return Surface(texture, gloss=shiny or 0.02 * (kind in WOODEN))
    color = (skin.color.clip(0.03, 0.9)) ** (1 / 1.4) if not metal else skin.color.clip(0.05, 0.85)
    if "screen" in name and kind in ("tv", "wall_tv", "computer"):
        return textures.screen(rng)
    if "lamp" in kind and color.min() > 0.35 and share > 0.1:
        return textures.plain(color, glow=rng.uniform(0.4, 1.2))
    soft = re.search(CLOTH, name) or (kind in SOFT and share > 0.12)
    if soft and not metal:
        return textures.fabric(rng, color if rng.random() > RECOLORED else None)
    wooden = kind in WOODEN and share > 0.15 and rng.random() < RECOLORED
    if not metal and (wooden or _brown(color)):
        return textures.wood(rng, color if _brown(color) else None)
    return textures.plain(color * rng.uniform(0.9, 1.05) + warm, gloss=shiny + 0.08 * metal)


def _brown(color: np.ndarray) -> bool:
    return bool(color[0] > 1.15 * color[2] and color[0] < 0.85)


def _hue_turned(color: np.ndarray, rng) -> np.ndarray:
    """Return RGB colours (h, w, 3) with the hue rotated and the saturation reduced at random."""
    hsv = cv2.cvtColor(color.astype(np.uint8), cv2.COLOR_RGB2HSV).astype(int)
    hsv[..., 0] = (hsv[..., 0] + rng.integers(180)) % 180
    hsv[..., 1] = (hsv[..., 1] * rng.uniform(0.2, 0.9)).clip(0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(float)


def _box_mapped(triangles: np.ndarray) -> np.ndarray:
    """Return uv (T, 3, 2) in metres, projected along the main axis of each triangle's normal; the grain runs along the
    longer extent."""
    normal = np.abs(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]))
    axis = normal.argmax(1)
    u_axis, v_axis = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
    pick = np.arange(len(triangles))
    return np.stack([triangles[pick, :, u_axis], triangles[pick, :, v_axis]], -1)


def levels(piece: list[Mesh], x: float, y: float) -> np.ndarray:
    """Return the heights, in ascending order, at which the vertical line through (x, y) meets a piece."""
    triangles = np.concatenate([mesh.triangles for mesh in piece])
    flat = triangles[..., :2] - np.array([x, y])
    near = ((flat.min(1) <= 0) & (flat.max(1) >= 0)).all(1)
    a, b, c = np.moveaxis(flat[near], 1, 0)
    weights = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
    total = weights.sum(-1)
    inside = (np.abs(total) > 1e-9) & ((weights * np.sign(total)[:, None]) >= 0).all(1)
    shares = weights[inside] / total[inside][:, None]
    return np.unique((triangles[near][inside][..., 2] * shares).sum(1).round(4))


def _cross(a, b) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def place_on(piece: list[Mesh], thing: list[Mesh], rng, tries: int = 12, keep: float = 0.0) -> list[Mesh]:
    """Return an object moved to a free level place on top of a piece, rotated at random; [] if none is found. keep:
    distance from the edges in metres."""
    low, high = extent(piece)
    size = np.subtract(*extent(thing)[::-1])
    half = size[:2].max() / 2 + keep
    for _ in range(tries):
        if (high[:2] - low[:2] <= 2 * half).any():
            return []
        x, y = rng.uniform(low[:2] + half, high[:2] - half)
        corners = [(x + sx * size[0] / 2.5, y + sy * size[1] / 2.5) for sx in (-1, 1) for sy in (-1, 1)]
        heights = [levels(piece, *place)[-1:] for place in ((x, y), *corners)]
        if all(len(height) for height in heights) and np.ptp(heights) < 0.012:
            angle = rng.normal(0, 0.35)
            return moved_to(thing, (x, y, float(np.max(heights)) + 0.001), angle)
    return []


def moved_to(thing: list[Mesh], place, angle: float = 0.0) -> list[Mesh]:
    """Return an object with the centre of its underside at `place`, rotated by `angle` radians about the z axis."""
    low, high = extent(thing)
    centre = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    return [part.moved(turn, np.asarray(place, float) - turn @ centre) for part in thing]


def with_books(shelf: list[Mesh], rng) -> list[Mesh]:
    """Return a bookshelf with rows of books on its shelves, where there is room for them."""
    low, high = extent(shelf)
    y = (low[1] + high[1]) / 2
    books = []
    columns = np.arange(low[0] + 0.1, high[0] - 0.1, 0.22)
    for x in columns:
        heights = levels(shelf, x, y)
        for floor, ceiling in zip(heights, [*heights[1:], heights[-1:].sum() + 0.4], strict=False):
            if ceiling - floor > 0.19 and floor > 0.03 and rng.random() < 0.75:
                top = floor + min(ceiling - floor - 0.02, rng.uniform(0.17, 0.28))
                width, depth = rng.uniform(0.12, 0.21), rng.uniform(0.12, 0.2)
                books.append(
                    block(
                        "bookshelf",
                        replace(textures.spines(rng), period=(0.4, top - floor)),
                        (x - width / 2, max(low[1] + 0.02, y - depth / 2), floor + 0.001),
                        (x + width / 2, min(high[1] - 0.03, y + depth / 2), top),
                    )
                )
    return shelf + books
