"""Ray casting of triangles by Embree: colour, z-depth and class of every pixel, with baked soft light.

Light is baked at the corners of triangles, once per room: direct light of lamps and windows with soft shadows, then
light reflected between surfaces. Rendering then casts camera rays, reads textures, and casts a reflected ray where a
surface is glossy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from dataset.synthetic.meshes import Lamp, MeshRoom, Pane, Surface, subdivided
from dataset.synthetic.raycast import CLASS_NAMES, IGNORED, Light
from utils.errors import UserError

LONGEST_EDGE = 0.2  # metres: largest edge of the triangles at whose corners light is baked
BIN = 0.025  # metres: corners in the same cell of this size share their light
BOUNCES = 3
FILLING = 4  # rings of neighbours over which light is extended into covered parts of a surface
LEVELS = 8  # mip levels of a texture
OFF_SURFACE = 2e-3
TO_LINEAR = (np.arange(256, dtype=np.float32) / 255) ** 2.2


class Textures:
    """All textures in one table of texels, with their mip levels."""

    def __init__(self, surfaces: list[Surface]):
        texels, self.start, self.size, self.mean = [], [], [], []
        total = 0
        for surface in surfaces:
            level = surface.texture[..., :3]
            self.mean.append(TO_LINEAR[level].mean((0, 1)))
            starts, sizes = [], []
            for _ in range(LEVELS):
                starts.append(total)
                sizes.append(level.shape[:2])
                texels.append(level.reshape(-1, 3))
                total += level.shape[0] * level.shape[1]
                level = _halved(level)
            self.start.append(starts)
            self.size.append(sizes)
        self.texels = np.concatenate(texels)
        self.start = np.array(self.start, np.int64)
        self.size = np.array(self.size, np.int32)
        self.mean = np.array(self.mean, np.float32)
        self.masks = {i: surface.texture[..., 3] for i, surface in enumerate(surfaces) if surface.texture.shape[2] == 4}

    def read(self, surface: np.ndarray, uv: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Return bilinearly sampled linear RGB (N, 3) of surfaces (N,) at uv (N, 2), in periods of the texture."""
        start, size = self.start[surface, level], self.size[surface, level]
        x = (uv[:, 0] - np.floor(uv[:, 0])) * size[:, 1] - 0.5
        y = (uv[:, 1] - np.floor(uv[:, 1])) * size[:, 0] - 0.5
        x0, y0 = np.floor(x), np.floor(y)
        a, b = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
        x0, y0 = x0.astype(np.int32), y0.astype(np.int32)
        left, right = x0 % size[:, 1], (x0 + 1) % size[:, 1]
        above, below = start + (y0 % size[:, 0]) * size[:, 1], start + ((y0 + 1) % size[:, 0]) * size[:, 1]
        top = self._texel(above + left) * (1 - a) + self._texel(above + right) * a
        bottom = self._texel(below + left) * (1 - a) + self._texel(below + right) * a
        return top * (1 - b) + bottom * b

    def _texel(self, index: np.ndarray) -> np.ndarray:
        return TO_LINEAR[self.texels.take(index, 0)]

    def opaque(self, surface: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """Return a mask (N,) of the points that are not in a hole of their texture."""
        solid = np.ones(len(surface), bool)
        for number, mask in self.masks.items():
            chosen = np.flatnonzero(surface == number)
            if len(chosen):
                x = np.floor(uv[chosen, 0] * mask.shape[1]).astype(int) % mask.shape[1]
                y = np.floor(uv[chosen, 1] * mask.shape[0]).astype(int) % mask.shape[0]
                solid[chosen] = mask[y, x] > 127
        return solid


def _halved(image: np.ndarray) -> np.ndarray:
    height, width = max(image.shape[0] // 2, 1), max(image.shape[1] // 2, 1)
    rows = image[: 2 * height] if image.shape[0] > 1 else image.repeat(2, 0)
    both = rows[:, : 2 * width] if image.shape[1] > 1 else rows.repeat(2, 1)
    return both.reshape(height, 2, width, 2, 3).mean((1, 3)).astype(np.uint8)


class MeshCaster:
    """A renderer of a room of meshes. Its light is baked on construction."""

    def __init__(self, room: MeshRoom, light: Light, seed: int):
        meshes = [subdivided(part, min(light.texel, LONGEST_EDGE)) for part in room.parts]
        surfaces = list({id(mesh.surface): mesh.surface for mesh in meshes}.values())
        number = {id(surface): i for i, surface in enumerate(surfaces)}
        counts = [len(mesh.triangles) for mesh in meshes]
        self.triangles = np.concatenate([mesh.triangles for mesh in meshes]).astype(np.float32)
        self.uv = np.concatenate([mesh.uv for mesh in meshes]).astype(np.float32)
        self.normals = np.concatenate([mesh.normals for mesh in meshes]).astype(np.float32)
        self.surface = np.repeat([number[id(mesh.surface)] for mesh in meshes], counts)
        self.label = np.repeat([_class_of(mesh.label) for mesh in meshes], counts).astype(np.uint8)
        self.glow = np.array([surface.glow for surface in surfaces], np.float32)
        self.gloss = np.array([surface.gloss for surface in surfaces], np.float32)
        self.textures = Textures(surfaces)
        self.density = self._texels_per_metre()
        self._scene = _scene(self.triangles)
        self.light = self._bake(room, light, np.random.default_rng([seed, 6]))
        self.exposure = 1.0

    def render(self, K: np.ndarray, camera_to_world: np.ndarray, size: tuple[int, int], supersampling: int = 2):
        """Render an image of `size` (h, w).

        Return colour (h, w, 3) uint8, averaged over supersampling² rays per pixel, and, for the ray through the pixel's
        centre, z-depth (h, w) float32 in metres (inf: no hit) and class (h, w) uint8 (20: ignored).
        """
        total = 0.0
        for i, offset in enumerate(_offsets(supersampling)):
            directions = _camera_rays(K, camera_to_world, size, offset)
            hit = self._cast(np.tile(camera_to_world[:3, 3], (len(directions), 1)), directions)
            color = self._shade(hit, directions, 1 / (K[0, 0] * supersampling))
            total = total + color
            if i == 0:
                depth = np.where(hit.triangle >= 0, hit.distance, np.inf).reshape(size)
                label = np.where(hit.triangle >= 0, self.label[hit.triangle], IGNORED).reshape(size)
        color = _develop(total / supersampling**2 * self.exposure)
        return color.reshape(*size, 3), depth.astype(np.float32), label.astype(np.uint8)

    def expose(self, K: np.ndarray, poses: np.ndarray, size: tuple[int, int], key: float) -> None:
        """Set the exposure of all images of the room, so that the median brightness seen by these cameras is `key`, in
        [0, 1], before tone mapping."""
        bright = []
        for pose in poses[:: max(1, len(poses) // 8)]:
            directions = _camera_rays(K, pose, size, step=max(1, size[1] // 40))
            hit = self._cast(np.tile(pose[:3, 3], (len(directions), 1)), directions)
            bright.append(self._shade(hit, directions, 1 / K[0, 0], mirror=False).mean(1))
        self.exposure = key / max(float(np.median(np.concatenate(bright))), 1e-6)

    def _texels_per_metre(self) -> np.ndarray:
        size = self.textures.size[self.surface, 0].astype(np.float32)
        a, b = (self.triangles[:, i] - self.triangles[:, 0] for i in (1, 2))
        p, q = ((self.uv[:, i] - self.uv[:, 0]) * size[:, ::-1] for i in (1, 2))
        area = np.linalg.norm(np.cross(a, b), axis=-1)
        return np.sqrt(np.abs(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) / np.maximum(area, 1e-12))

    def _cast(self, origins, directions) -> Hit:
        """Return the first opaque hit of each ray. Distances are in units of the ray's direction."""
        found = self._scene.run(origins.astype(np.float32), directions, output=True)
        hit = Hit(found["primID"], found["u"], found["v"], found["tfar"])
        if self.textures.masks:
            for _ in range(4):  # continue through holes, as in leaves
                open_ = np.flatnonzero(hit.triangle >= 0)
                masked = np.isin(self.surface[hit.triangle[open_]], list(self.textures.masks))
                open_ = open_[masked]
                part = hit.take(open_)
                open_ = open_[~self.textures.opaque(self.surface[part.triangle], self._uv(part))]
                if not len(open_):
                    break
                beyond = hit.distance[open_] + 1e-3
                onward = self._scene.run(
                    (origins[open_] + directions[open_] * beyond[:, None]).astype(np.float32),
                    directions[open_],
                    output=True,
                )
                hit.triangle[open_], hit.u[open_], hit.v[open_] = (onward[k] for k in ("primID", "u", "v"))
                hit.distance[open_] = beyond + onward["tfar"]
        return hit

    def _uv(self, hit: Hit) -> np.ndarray:
        return _between(self.uv, hit)

    def _shade(self, hit: Hit, directions, pixel: float, mirror: bool = True) -> np.ndarray:
        """Return linear RGB (N, 3) of hits, black where there is none. pixel: size of a pixel at 1 m in metres."""
        seen = np.flatnonzero(hit.triangle >= 0)
        part = hit.take(seen)
        surface = self.surface[part.triangle]
        normal = _between(self.normals, part)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        ray = directions[seen]
        cosine = np.abs((normal * ray).sum(1)) / np.linalg.norm(ray, axis=1)
        texels = self.density[part.triangle] * part.distance * pixel / np.sqrt(np.maximum(cosine, 0.1))
        level = np.log2(np.maximum(texels, 1)).round().astype(int).clip(0, LEVELS - 1)
        albedo = self.textures.read(surface, self._uv(part), level)
        color = np.zeros((len(directions), 3), np.float32)
        color[seen] = albedo * (_between(self.light, part) + self.glow[surface][:, None])
        shiny = np.flatnonzero(self.gloss[surface] > 0) if mirror else []
        if len(shiny):
            color[seen[shiny]] += self._mirrored(part.take(shiny), ray[shiny], normal[shiny], cosine[shiny], pixel)
        return color

    def _mirrored(self, hit: Hit, ray, normal, cosine, pixel: float) -> np.ndarray:
        """Return the reflected light (N, 3) of glossy hits, by Schlick's approximation of the Fresnel equations."""
        facing = normal * -np.sign((normal * ray).sum(1, keepdims=True))
        outgoing = (ray - 2 * (ray * facing).sum(1, keepdims=True) * facing).astype(np.float32)
        origins = _between(self.triangles, hit) + OFF_SURFACE * facing
        seen = self._shade(self._cast(origins, outgoing), outgoing, 4 * pixel, mirror=False)
        base = self.gloss[self.surface[hit.triangle]]
        return seen * (base + (1 - base) * base**0.5 * (1 - cosine) ** 5)[:, None]

    def _bake(self, room: MeshRoom, light: Light, rng) -> np.ndarray:
        """Return light (T, 3, 3) at every corner: the linear RGB that a white surface would have there."""
        points, normals, corners = self._bake_points()
        normals, buried = self._towards_the_open(points, normals, rng)
        near = _neighbours(corners)
        points = points + OFF_SURFACE * normals
        direct = np.tile(np.asarray(room.ambient, np.float32), (len(points), 1))
        for lamp in room.lamps:
            direct += self._from_lamp(points, normals, lamp, light.lamp_rays, rng)
        for pane in room.panes:
            direct += self._from_pane(points, normals, pane, 2 * light.lamp_rays, rng)
        direct = _smoothed(direct, near, buried, 2)
        met = self._look_around(points, normals, 2 * light.ambient_rays, rng)
        albedo, total = self.textures.mean[self.surface], direct
        for _ in range(BOUNCES):
            thrown = np.concatenate([albedo * total[corners].mean(1), np.zeros((1, 3), np.float32)])
            around = thrown[met].mean(1)  # index -1, no hit, selects the black row at the end
            total = direct + _smoothed(around, near, buried, 4)
        return total[corners].astype(np.float32)

    def _bake_points(self):
        """Return points (P, 3) and normals (P, 3) at which light is computed, and the index of the point of each corner
        (T, 3). Corners in the same cell of size BIN that face the same way share a point."""
        place = np.floor((self.triangles - self.triangles.min((0, 1))) / BIN).astype(np.int64)
        facing = np.round(self.normals * 1.5).astype(np.int64) + 2
        key = np.zeros(place.shape[:2], np.int64)
        for values, count in ((place, 2**14), (facing, 2**3)):
            for axis in range(3):
                key = key * count + values[..., axis]
        _, first, corners = np.unique(key.ravel(), return_index=True, return_inverse=True)
        points, normals = self.triangles.reshape(-1, 3)[first], self.normals.reshape(-1, 3)[first]
        return points, normals, corners.reshape(-1, 3)

    def _towards_the_open(self, points, normals, rng, rays: int = 6):
        """Return normals (P, 3) turned to the side with more free space, since normals of models are not always
        consistent, and a mask (P,) of points without free space on either side, which are inside an object."""
        room = []
        for side in (1, -1):
            directions = _cosine_directions(side * normals, rays, rng)
            starts = np.repeat(points + side * OFF_SURFACE * normals, rays, 0)
            room.append(self._scene.run(starts, directions.reshape(-1, 3), output=True)["tfar"].reshape(-1, rays))
        outside, inside = (np.minimum(distance, 1).mean(1) for distance in room)
        return np.where((outside >= 0.5 * inside)[:, None], normals, -normals), np.maximum(outside, inside) < 0.05

    def _from_lamp(self, points, normals, lamp: Lamp, rays: int, rng) -> np.ndarray:
        ball = rng.normal(size=(len(points), rays, 3)).astype(np.float32)
        ball *= lamp.radius / np.linalg.norm(ball, axis=-1, keepdims=True)
        to_lamp = np.asarray(lamp.place, np.float32) + ball - points[:, None]
        squared = np.maximum((to_lamp**2).sum(-1), 0.04)
        cosine = np.maximum((to_lamp * normals[:, None]).sum(-1), 0) / np.sqrt(squared)
        share = (cosine / squared * self._open(points, to_lamp, cosine > 0)).mean(1)
        return share[:, None] * np.asarray(lamp.color, np.float32)

    def _from_pane(self, points, normals, pane: Pane, rays: int, rng) -> np.ndarray:
        side = int(np.ceil(np.sqrt(rays)))
        cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
        place = (cells + rng.random((len(points), side * side, 2))) / side
        across = np.cross(pane.u, pane.v)
        area = np.linalg.norm(across)
        inward = across / area
        start = pane.corner + 0.02 * inward
        to_pane = (start + place[..., :1] * pane.u + place[..., 1:] * pane.v - points[:, None]).astype(np.float32)
        squared = np.maximum((to_pane**2).sum(-1), 0.02)
        cosines = np.maximum((to_pane * normals[:, None]).sum(-1), 0) * np.maximum(-(to_pane @ inward), 0) / squared
        share = area / np.pi * (cosines / squared * self._open(points, to_pane, cosines > 0)).mean(1)
        return (share[:, None] * pane.color).astype(np.float32)

    def _open(self, points, to_light, worth) -> np.ndarray:
        """Return a mask (P, R) of unoccluded light rays from points (P, 3) along `to_light` (P, R, 3). Only rays in the
        mask `worth` (P, R) are cast; others are False."""
        which = np.nonzero(worth)
        open_ = np.zeros(worth.shape, bool)
        directions = np.ascontiguousarray(to_light[which])
        blocked = self._scene.run(
            points[which[0]], directions, query="OCCLUDED", dists=np.full(len(directions), 0.98, np.float32)
        )
        open_[which] = blocked != 0
        return open_

    def _look_around(self, points, normals, rays: int, rng) -> np.ndarray:
        """Return the index (P, rays) of the triangle that each ray of a point hits, -1 for none."""
        met = np.empty((len(points), rays), np.int32)
        for begin in range(0, len(points), 4096):
            some = slice(begin, begin + 4096)
            directions = _cosine_directions(normals[some], rays, rng).reshape(-1, 3)
            met[some] = self._scene.run(np.repeat(points[some], rays, 0), directions).reshape(-1, rays)
        return met


@dataclass
class Hit:
    """Hits of N rays: triangle index (-1 for none), barycentric coordinates u and v, and distance, each (N,)."""

    triangle: np.ndarray
    u: np.ndarray
    v: np.ndarray
    distance: np.ndarray

    def take(self, chosen: np.ndarray) -> Hit:
        return Hit(self.triangle[chosen], self.u[chosen], self.v[chosen], self.distance[chosen])


def _between(values: np.ndarray, hit: Hit) -> np.ndarray:
    """Return values of corners (T, 3, C), interpolated at hits: (N, C)."""
    corners = values.take(hit.triangle, 0)
    u, v = hit.u[:, None], hit.v[:, None]
    return corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v


def _neighbours(corners: np.ndarray) -> scipy.sparse.csr_array:
    """Return a sparse matrix (P, P) that is 1 where two points share a triangle and 2 on the diagonal."""
    count = int(corners.max()) + 1
    rows = np.concatenate([corners[:, i] for i in (0, 1, 2, 1, 2, 0)])
    columns = np.concatenate([corners[:, i] for i in (1, 2, 0, 0, 1, 2)])
    near = scipy.sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), (count, count))
    near.data[:] = 1
    return (near + 2 * scipy.sparse.eye_array(count, dtype=np.float32)).tocsr()


def _smoothed(light: np.ndarray, near: scipy.sparse.csr_array, buried: np.ndarray, passes: int) -> np.ndarray:
    """Return light (P, 3) averaged over neighbours `passes` times. Buried points first take the light of the nearest
    points that are not buried; otherwise surfaces would darken towards objects that stand on them."""
    light, lit = light.copy(), ~buried
    for _ in range(FILLING):
        dark = np.flatnonzero(~lit)
        rows = near[dark]
        weight = rows @ lit.astype(np.float32)
        reached = dark[weight > 0]
        light[reached] = ((rows @ (light * lit[:, None])) / np.maximum(weight, 1)[:, None])[weight > 0]
        lit[reached] = True
    share = 1 / near.sum(1)[:, None]
    for _ in range(passes):
        light = (near @ light) * share
    return light


def embree():
    """Return Embree's scene and mesh classes. Raise UserError if it is not installed."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise UserError("rooms with furniture models need Embree: pip install embreex") from None
    return EmbreeScene, TriangleMesh


def _scene(triangles: np.ndarray):
    make_scene, add_mesh = embree()
    scene = make_scene()
    add_mesh(scene, triangles.reshape(-1, 3), np.arange(3 * len(triangles), dtype=np.int32).reshape(-1, 3))
    return scene


def _camera_rays(K, camera_to_world, size, offset=(0.0, 0.0), step: int = 1) -> np.ndarray:
    """Return world directions (N, 3), of length 1 along the camera's z axis, through every `step`-th pixel."""
    y, x = np.mgrid[: size[0] : step, : size[1] : step].astype(np.float32)
    camera = np.stack([(x + offset[0] - K[0, 2]) / K[0, 0], (y + offset[1] - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    return (camera.reshape(-1, 3) @ camera_to_world[:3, :3].T).astype(np.float32)


def _class_of(label: str | None) -> int:
    return CLASS_NAMES.index(label) if label in CLASS_NAMES else IGNORED


def _offsets(supersampling: int) -> list[tuple[float, float]]:
    """Return the offsets of supersampling² rays in a pixel: the first at its centre, others on a sunflower spiral."""
    turn = np.pi * (3 - np.sqrt(5))
    count = supersampling**2
    radii = 0.55 * np.sqrt(np.arange(count) / count)
    return [(radius * np.cos(i * turn), radius * np.sin(i * turn)) for i, radius in enumerate(radii)]


def _cosine_directions(normals: np.ndarray, rays: int, rng) -> np.ndarray:
    """Return cosine-distributed directions (N, rays, 3) about normals (N, 3): a low-discrepancy lattice with a random
    shift for each point."""
    lattice = (np.arange(rays)[:, None] * [0.7548776662, 0.5698402910]) % 1  # the R2 sequence
    uniform = (lattice + rng.random((len(normals), 1, 2))).astype(np.float32) % 1
    radius, angle = np.sqrt(uniform[..., 0]), 2 * np.pi * uniform[..., 1]
    helper = np.where(np.abs(normals[:, :1]) < 0.7, [[1.0, 0, 0]], [[0, 1.0, 0]])
    tangent = np.cross(normals, helper)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-9)
    bitangent = np.cross(normals, tangent)
    return (
        tangent[:, None] * (radius * np.cos(angle))[..., None]
        + bitangent[:, None] * (radius * np.sin(angle))[..., None]
        + normals[:, None] * np.sqrt(np.maximum(1 - radius**2, 0))[..., None]
    ).astype(np.float32)


def _develop(color: np.ndarray) -> np.ndarray:
    """Return sRGB uint8 of linear light, tone-mapped with Narkowicz's fit of the ACES curve."""
    color = 0.82 * color + 0.18 * color.mean(-1, keepdims=True)
    curve = color * (2.51 * color + 0.03) / (color * (2.43 * color + 0.59) + 0.14)
    return (curve.clip(0, 1) ** (1 / 2.2) * 255).round().astype(np.uint8)
