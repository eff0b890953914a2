"""Writing of labelled points and meshes as PLY files, with a JSON file of their classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.files import atomic_write, write_text
from viewing.session import Classes


@dataclass(frozen=True)
class Geometry:
    """A point cloud or mesh in metres, in the capture's own frame.

    positions: (N, 3). color: (N, 3) uint8. classes, probability: (N,) each, or None. faces: (F, 3) indices of points;
    None for a point cloud.
    """

    positions: np.ndarray
    color: np.ndarray
    classes: np.ndarray | None
    probability: np.ndarray | None
    faces: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.positions)


def write_ply(path: Path, geometry: Geometry, classes: Classes | None, about: dict) -> None:
    """Write a binary PLY, and beside it a JSON file with the classes and the entries of `about`."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    columns = [*geometry.positions.T, *geometry.color.T]
    if geometry.classes is not None:
        fields += [("class", "u1"), ("probability", "<f4")]
        columns += [geometry.classes, geometry.probability]
    vertices = np.empty(len(geometry), fields)
    for (name, _), column in zip(fields, columns, strict=True):
        vertices[name] = column
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(_header(fields, geometry, classes).encode())
        vertices.tofile(file)
        if geometry.faces is not None:
            faces = np.empty(len(geometry.faces), [("count", "u1"), ("indices", "<i4", 3)])
            faces["count"], faces["indices"] = 3, geometry.faces
            faces.tofile(file)
    write_text(path.with_suffix(".json"), json.dumps({**about, "classes": _listed(classes)}, indent=1))


def _header(fields: list[tuple[str, str]], geometry: Geometry, classes: Classes | None) -> str:
    kinds = {"<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", "comment metres, in the capture's own frame"]
    lines += [f"comment class {c['id']} {c['name']} {' '.join(map(str, c['color']))}" for c in _listed(classes)]
    lines += [f"element vertex {len(geometry)}", *[f"property {kinds[kind]} {name}" for name, kind in fields]]
    if geometry.faces is not None:
        lines += [f"element face {len(geometry.faces)}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header", ""])


def _listed(classes: Classes | None) -> list[dict]:
    if classes is None:
        return []
    rows = enumerate(zip(classes.names[:-1], classes.colors.tolist(), strict=False))
    return [{"id": number, "name": name, "color": color} for number, (name, color) in rows]
