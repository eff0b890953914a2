"""Furniture models: Sweet Home 3D libraries (.sh3f), and the compact encoding of models for a pack.

A library is a zip archive of OBJ models with MTL materials and textures, and a catalogue of names and sizes,
http://www.sweethome3d.com/importModels.jsp. Models are converted to the coordinates of furniture.py: x to the right,
y towards the room (the back is at y = 0), z up, in metres, with the origin on the floor at the centre of the back edge.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError

FREE = ("BlendSwap-CC-0", "Scopia")  # libraries used from a folder; others must be named as files
LICENSE = "LICENSE.TXT"
MOST_TRIANGLES = 60_000
CATALOGUE = "PluginFurnitureCatalog.properties"
GLASS = 0.5  # opacity below which a material is invisible, to cameras and depth sensors
LARGEST_TEXTURE = 256
STEP, UV_STEPS, NORMAL_STEPS = 0.0005, 1024, 24  # of a packed model: metres, steps per unit of uv, of normals
NO_UV = -32768
# Sweet Home 3D's axes are x right, y up, z towards a viewer in front of the piece.
TO_ROOM = np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])


@dataclass(frozen=True)
class Skin:
    """Appearance of one OBJ material: its name, an sRGB colour (3,) in [0, 1], and an optional texture (h, w, 3 or 4)
    uint8, row 0 at v = 0, with opacity as the fourth channel."""

    name: str
    color: np.ndarray
    texture: np.ndarray | None = None


@dataclass(frozen=True)
class Item:
    """A catalogue entry. size: (width, depth, height) in metres. elevation: height of the underside in metres."""

    library: str
    id: str
    name: str
    category: str
    tags: str
    creator: str
    size: tuple[float, float, float]
    elevation: float


@dataclass(frozen=True)
class Model:
    """A furniture model.

    triangles: (T, 3, 3) metres. uv: (T, 3, 2), NaN where a triangle has none. normals: (T, 3, 3) of the corners. skin:
    (T,) index of each triangle's material in `skins`.
    """

    item: Item
    triangles: np.ndarray
    uv: np.ndarray
    normals: np.ndarray
    skin: np.ndarray
    skins: list[Skin]


class Library:
    """A furniture library, read from a .sh3f file. Raise UserError for a file that is none."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            text = self._zip.read(CATALOGUE).decode("latin-1")
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: is no Sweet Home 3D furniture library ({error})") from None
        self.license = _field(text, "license")
        names = self._zip.namelist()
        self._names = {name.lower(): name for name in names}
        self.license_text = self._zip.read(LICENSE).decode("latin-1") if LICENSE in names else ""
        entries = defaultdict(dict)
        for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\r?$", text, re.M):
            entries[int(number)][key] = value.strip()
        self._entries = {entry["id"].split("#")[-1]: entry for _, entry in sorted(entries.items()) if "model" in entry}
        self.items = {name: self._item(name, entry) for name, entry in self._entries.items()}

    def _item(self, name: str, entry: dict[str, str]) -> Item:
        size = tuple(float(entry[key]) / 100 for key in ("width", "depth", "height"))
        elevation = float(entry.get("elevation", 0)) / 100
        return Item(
            self.path.stem,
            name,
            entry["name"],
            entry["category"],
            entry.get("tags", ""),
            entry.get("creator", ""),
            size,
            elevation,
        )

    def load(self, name: str) -> Model | None:
        """Return the model of an item; None if it has more than MOST_TRIANGLES triangles, or no visible ones."""
        entry, item = self._entries[name], self.items[name]
        path = entry["model"].lstrip("/")
        if not (file := self._find(path)):
            raise UserError(f"{self.path}: its catalogue names {path}, which is not in it; get the library again")
        obj = _Obj(self._zip.read(file).decode("latin-1"))
        if not 0 < len(obj.corners) <= MOST_TRIANGLES:
            return None
        skins = self._skins(posixpath.dirname(path), obj.material_files)
        names = sorted(set(obj.materials))
        chosen = [skins.get(material, Skin(material, np.full(3, 0.8))) for material in names]
        skin = np.searchsorted(names, obj.materials)
        seen = np.array([one is not None for one in chosen])[skin]
        if not seen.any():
            return None
        turn = np.array(entry["modelRotation"].split(), float).reshape(3, 3) if "modelRotation" in entry else np.eye(3)
        points = obj.points @ turn.T
        low, high = (f(points[obj.corners[..., 0]].reshape(-1, 3), axis=0) for f in (np.min, np.max))
        scale = np.array(item.size)[[0, 2, 1]] / np.maximum(high - low, 1e-9)
        points = (points - (low + high) / 2) * scale @ TO_ROOM.T + [0, item.size[1] / 2, item.size[2] / 2]
        triangles = points[obj.corners[seen][..., 0]]
        normals = _corner_normals(obj, turn, scale)[seen]
        uv = np.concatenate([obj.uv, [[np.nan, np.nan]]])[obj.corners[seen][..., 1]]
        kept, skin = np.unique(skin[seen], return_inverse=True)
        return Model(
            item,
            triangles.astype(np.float32),
            uv.astype(np.float32),
            normals.astype(np.float32),
            skin,
            [chosen[i] for i in kept],
        )

    def _find(self, path: str) -> str | None:
        return self._names.get(posixpath.normpath(path.replace("\\", "/")).lower())

    def _skins(self, folder: str, files: list[str]) -> dict[str, Skin | None]:
        """Return materials by name; None for invisible ones."""
        skins = {}
        for file in files:
            name = self._find(f"{folder}/{file}")
            text = self._zip.read(name).decode("latin-1") if name else ""  # without the file all materials are grey
            for block in re.split(r"^\s*newmtl\s+", text, flags=re.M)[1:]:
                name, _, body = block.partition("\n")
                skins[name.strip()] = self._skin(folder, name.strip(), body)
        return skins

    def _skin(self, folder: str, name: str, body: str) -> Skin | None:
        values = {}
        for line in body.splitlines():
            key, _, value = line.strip().partition(" ")
            values.setdefault(key, value.strip())
        opacity = float(values["d"].split()[-1]) if "d" in values else 1 - float(values.get("Tr", 0))
        if opacity < GLASS:
            return None
        color = np.array([float(x) for x in values.get("Kd", "0.8 0.8 0.8").split()[:3]]).clip(0, 1)
        return Skin(name, color, self._texture(folder, values.get("map_Kd", "")))

    def _texture(self, folder: str, file: str) -> np.ndarray | None:
        """Return a texture; None if the library lacks the file, as for some models."""
        name = self._find(f"{folder}/{file.split()[-1]}") if file else None
        image = cv2.imdecode(np.frombuffer(self._zip.read(name), np.uint8), cv2.IMREAD_UNCHANGED) if name else None
        return None if image is None else _shrink(image)


class _Obj:
    """The triangles of an OBJ file: points (P, 3), uv (U, 2), normals (N, 3), corners (T, 3, 3) as indices of point,
    uv and normal (-1: none), and the material name of each triangle."""

    def __init__(self, text: str):
        points, uv, normals, corners, materials, self.material_files = [], [], [], [], [], []
        material = ""
        for line in text.replace("\\\n", " ").splitlines():
            key, _, rest = line.strip().partition(" ")
            if key == "v":
                points.append(rest.split()[:3])
            elif key == "vt":
                uv.append(rest.split()[:2])
            elif key == "vn":
                normals.append(rest.split()[:3])
            elif key == "usemtl":
                material = rest.strip()
            elif key == "mtllib":
                self.material_files.append(rest.strip())
            elif key == "f":
                counts = (len(points), len(uv), len(normals))
                polygon = [_corner(corner, counts) for corner in rest.split()]
                for second, third in pairwise(polygon[1:]):
                    corners.append((polygon[0], second, third))
                    materials.append(material)
        self.points = np.array(points, float).reshape(-1, 3)
        self.uv = np.array([pair + ["0"] * (2 - len(pair)) for pair in uv], float).reshape(-1, 2)
        self.normals = np.array(normals, float).reshape(-1, 3)
        self.corners = np.array(corners, int).reshape(-1, 3, 3)
        self.materials = np.array(materials)


def _corner(text: str, counts) -> tuple[int, int, int]:
    """Return zero-based indices of a face's corner such as 3/1/2, 3//2 or -1; -1 for indices that are not given."""
    given = [int(part) if part else 0 for part in text.split("/")] + [0, 0]
    return tuple(i - 1 if i > 0 else count + i if i < 0 else -1 for i, count in zip(given, counts, strict=False))


def _corner_normals(obj: _Obj, turn, scale) -> np.ndarray:
    """Return unit normals (T, 3, 3) in room axes: those of the file, or else of the flat triangles."""
    a, b, c = np.moveaxis((obj.points @ turn.T * scale @ TO_ROOM.T)[obj.corners[..., 0]], 1, 0)
    flat = np.repeat(np.cross(b - a, c - a)[:, None], 3, 1)
    own = np.concatenate([obj.normals @ turn.T / scale @ TO_ROOM.T, [[0, 0, 0]]])[obj.corners[..., 2]]
    given = np.linalg.norm(own, axis=-1, keepdims=True) > 1e-9
    normals = np.where(given, own, flat)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def _shrink(image: np.ndarray) -> np.ndarray:
    """Return RGB or RGBA uint8 with sides of at most LARGEST_TEXTURE pixels, bottom row first."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    ratio = LARGEST_TEXTURE / max(image.shape[:2])
    if ratio < 1:
        image = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    alpha = image[..., 3:] if image.shape[2] == 4 and image[..., 3].min() < 250 else image[..., :0]
    return np.ascontiguousarray(np.concatenate([image[..., 2::-1], alpha], -1)[::-1])


def _field(text: str, key: str) -> str:
    found = re.search(rf"^{key}=(.*?)\r?$", text, re.M)
    return found[1].strip() if found else ""


def libraries(paths: list[Path]) -> list[Library]:
    """Return the libraries at `paths`, sorted by name: files, and the libraries of FREE in folders. Raise UserError for
    a folder that has none of them."""
    found = []
    for path in paths:
        free = [path / f"{name}.sh3f" for name in FREE if (path / f"{name}.sh3f").is_file()]
        if path.is_dir() and not free:
            raise UserError(
                f"{path}: holds neither of {' and '.join(f'{name}.sh3f' for name in FREE)}; install them (on Debian: "
                "sweethome3d-furniture), or name the files of other libraries"
            )
        found += free if path.is_dir() else [path]
    return [Library(path) for path in sorted(found, key=lambda path: path.name)]


def packed(model: Model) -> dict[str, np.ndarray]:
    """Return the compact encoding of a model. Positions are rounded to half a millimetre, or coarser in models with
    very many triangles; triangles that degenerate are dropped, and identical corners are merged."""
    step = STEP * np.clip(len(model.triangles) / 8000, 1, 8)
    low = model.triangles.min((0, 1))
    place = np.round((model.triangles - low) / step).astype(np.int16)
    a, b, c = np.moveaxis(place, 1, 0)
    kept = (a != b).any(1) & (b != c).any(1) & (c != a).any(1)
    uv = model.uv - np.floor(np.nan_to_num(np.nanmin(model.uv, (0, 1), initial=1e6)))
    uv = np.where(np.isfinite(uv), np.round(uv * UV_STEPS), NO_UV).clip(NO_UV, 32767).astype(np.int16)
    normal = np.round(model.normals * NORMAL_STEPS).astype(np.int16)
    order = np.argsort(model.skin[kept], kind="stable")
    rows = np.concatenate([place, uv, normal], -1)[kept][order].reshape(-1, 8)
    corners, index = np.unique(rows, axis=0, return_inverse=True)
    return {
        "low": low,
        "step": np.array(step),
        "corners": np.diff(corners.T, axis=1, prepend=0).astype(np.int16),
        "index": np.diff(index.ravel(), prepend=0).astype(np.int32),
        "skin": np.bincount(model.skin[kept], minlength=len(model.skins)),
    }


def unpacked(data: dict[str, np.ndarray], item: Item, skins: list[Skin]) -> Model:
    """Return the model encoded by `packed`, with triangles in the order of their skins."""
    corners = np.cumsum(data["corners"], axis=1, dtype=np.int16).T[np.cumsum(data["index"]).reshape(-1, 3)]
    place, uv, normals = corners[..., :3], corners[..., 3:5], corners[..., 5:].astype(np.float32)
    return Model(
        item,
        (data["low"] + place * data["step"]).astype(np.float32),
        np.where(uv == NO_UV, np.float32(np.nan), uv / np.float32(UV_STEPS)),
        normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9),
        np.repeat(np.arange(len(skins)), data["skin"]),
        skins,
    )
