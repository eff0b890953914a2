"""Exact ray casting of boxes: colour, z-depth and class of every pixel, with baked soft light.

Light is view-independent (all surfaces are diffuse), so it is computed once per room on a grid over every face: area
lights with soft shadows, and ambient light with occlusion. Rendering an image then needs camera rays only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dataset.labels import SCANNET_CLASSES
from dataset.synthetic.parts import PATTERNS, Box, Room

CLASS_NAMES = tuple(SCANNET_CLASSES)
IGNORED = len(CLASS_NAMES)
OCCLUSION_REACH = 1.6  # metres within which objects occlude ambient light
LAMP_RADIUS = 0.35
MOST_TEXELS = 40  # largest number of light texels along a side of a face
RAYS_AT_ONCE = 16384
POINTS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Light:
    """Resolution of the baked light: texel size in metres, and rays per texel for ambient light and for each lamp."""

    texel: float = 0.13
    ambient_rays: int = 24
    lamp_rays: int = 6


class RayCaster:
    """A renderer of a room of boxes, on any device. Its light is baked on construction."""

    def __init__(self, room: Room, light: Light, seed: int, device: str = "cpu"):
        self.device = device
        self.boxes = room.parts
        self.centres = self._tensor([part.centre for part in room.parts])
        self.halves = self._tensor([part.half for part in room.parts])
        self.rotations = self._tensor([part.rotation for part in room.parts])
        self.classes = torch.tensor([_class_of(part) for part in room.parts], device=device)
        materials = [part.material for part in room.parts]
        self.colors = self._tensor([[m.color, m.second] for m in materials])
        self.patterns = torch.tensor([PATTERNS.index(m.pattern) for m in materials], device=device)
        self.scales = self._tensor([m.scale for m in materials])
        self.glows = self._tensor([m.glow for m in materials])
        self._bake(room, light, seed)

    def _tensor(self, values) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self.device)

    def render(self, K: np.ndarray, camera_to_world: np.ndarray, size: tuple[int, int], supersampling: int = 2):
        """Render an image of `size` (h, w).

        Return colour (h, w, 3) uint8, averaged over supersampling² rays per pixel, and, for the ray through the pixel's
        centre, z-depth (h, w) float32 in metres (inf: no hit) and class (h, w) uint8 (20: ignored).
        """
        offsets = [(0.0, 0.0)]
        if supersampling > 1:
            steps = (np.arange(supersampling) + 0.5) / supersampling - 0.5
            offsets += [(x, y) for y in steps for x in steps]
        directions = self._camera_rays(K, camera_to_world, size, offsets)
        depth, hit = self._nearest_hits(directions, K, camera_to_world, size)
        origin = self._tensor(camera_to_world[:3, 3])
        colored = slice(1, None) if supersampling > 1 else slice(None)
        met = depth.isfinite()
        points = origin + directions[colored] * depth[colored].nan_to_num(posinf=0)[..., None]
        some = zip(
            points.reshape(-1, 3).split(POINTS_AT_ONCE), hit[colored].reshape(-1).split(POINTS_AT_ONCE), strict=True
        )
        color = torch.cat([self._shade(place, index) for place, index in some]).reshape(*points.shape)
        srgb = (color * met[colored][..., None]).mean(0).clamp(0, 1) ** (1 / 2.2)
        classes = torch.where(met[0], self.classes[hit[0]], IGNORED)
        return (
            (srgb * 255).round().to(torch.uint8).cpu().numpy(),
            depth[0].cpu().numpy(),
            classes.to(torch.uint8).cpu().numpy(),
        )

    def _camera_rays(self, K, camera_to_world, size, offsets) -> torch.Tensor:
        """Return world ray directions (offsets, h, w, 3), of length 1 along the camera's z axis, so that a ray's
        parameter is z-depth."""
        height, width = size
        y, x = torch.meshgrid(
            torch.arange(height, device=self.device, dtype=torch.float32),
            torch.arange(width, device=self.device, dtype=torch.float32),
            indexing="ij",
        )
        shifts = self._tensor(offsets)[:, :, None, None]
        camera = torch.stack(
            [
                (x + shifts[:, 0] - K[0, 2]) / K[0, 0],
                (y + shifts[:, 1] - K[1, 2]) / K[1, 1],
                torch.ones(len(offsets), height, width, device=self.device),
            ],
            -1,
        )
        return camera @ self._tensor(camera_to_world[:3, :3]).T

    def _nearest_hits(self, directions, K, camera_to_world, size):
        """Return z-depth and box index of the nearest hit of every ray. Each box is tested only for pixels that may see
        it."""
        shape = directions.shape[:-1]
        depth = torch.full(shape, torch.inf, device=self.device)
        hit = torch.zeros(shape, dtype=torch.long, device=self.device)
        origin = self._tensor(camera_to_world[:3, 3])
        for index, part in enumerate(self.boxes):
            window = _screen_window(part, K, camera_to_world, size)
            if window is None:
                continue
            rows, columns = window
            local = directions[:, rows, columns] @ self.rotations[index]
            start = (origin - self.centres[index]) @ self.rotations[index]
            distance, found = _slab_test(start, local, self.halves[index])
            nearer = found & (distance < depth[:, rows, columns])
            depth[:, rows, columns] = torch.where(nearer, distance, depth[:, rows, columns])
            hit[:, rows, columns] = torch.where(nearer, index, hit[:, rows, columns])
        return depth, hit

    def _shade(self, points: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return linear RGB (N, 3) of points on boxes."""
        local = ((points - self.centres[index])[:, None] @ self.rotations[index])[:, 0]
        relative = local / self.halves[index]
        axis = relative.abs().argmax(-1)
        face = axis * 2 + (relative.gather(1, axis[:, None])[:, 0] > 0)
        # axes of the coordinates in the face; on vertical faces v is up
        u_axis, v_axis = self._tensor([1, 0, 0]).long()[axis], self._tensor([2, 2, 1]).long()[axis]
        u, v = local.gather(1, u_axis[:, None])[:, 0], local.gather(1, v_axis[:, None])[:, 0]
        amount = _pattern(self.patterns[index], u / self.scales[index], v / self.scales[index], index)[:, None]
        pair = self.colors[index]
        albedo = pair[:, 0] * (1 - amount) + pair[:, 1] * amount
        place = torch.stack([relative.gather(1, u_axis[:, None])[:, 0], relative.gather(1, v_axis[:, None])[:, 0]], -1)
        light = self._read_light(index * 6 + face, place) + self.glows[index][:, None]
        return albedo * light

    def _read_light(self, faces: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Return bilinearly interpolated baked light (N, 3). place: (N, 2) in [-1, 1] on the faces (N,)."""
        counts = self.texel_counts[faces]
        at = (place.clamp(-1, 1) + 1) / 2 * (counts - 1)
        low = torch.minimum(at.floor(), (counts - 2).clamp_min(0)).long()
        part = at - low
        total = 0
        for du in (0, 1):
            for dv in (0, 1):
                weight = (part[:, 0] if du else 1 - part[:, 0]) * (part[:, 1] if dv else 1 - part[:, 1])
                texel = self.texel_start[faces] + (low[:, 0] + du) * counts[:, 1] + low[:, 1] + dv
                total = total + self.light[texel] * weight[:, None]
        return total

    def _bake(self, room: Room, light: Light, seed: int) -> None:
        points, normals = self._texels(light.texel)
        inside = ((points > -1e-3) & (points < self._tensor(room.size) + 1e-3)).all(-1)
        self.light = torch.zeros_like(points)
        generator = torch.Generator().manual_seed(seed)
        p, n = points[inside] + 2e-3 * normals[inside], normals[inside]
        incoming = self._tensor(room.ambient) * self._openness(p, n, light.ambient_rays, generator)[:, None]
        for place, brightness in zip(room.lamps, room.brightness, strict=True):
            incoming = (
                incoming
                + self._tensor(brightness)
                * self._from_lamp(p, n, self._tensor(place), light.lamp_rays, generator)[:, None]
            )
        self.light[inside] = incoming

    def _texels(self, spacing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the grid points over all faces and their normals. Store the start and size of each face's grid."""
        points, normals, counts, starts, total = [], [], [], [], 0
        for part in self.boxes:
            for axis in range(3):
                u_axis, v_axis = (1, 0, 0)[axis], (2, 2, 1)[axis]
                nu, nv = (
                    int(np.clip(np.ceil(2 * part.half[i] / spacing) + 1, 2, MOST_TEXELS)) for i in (u_axis, v_axis)
                )
                u, v = np.meshgrid(np.linspace(-0.98, 0.98, nu), np.linspace(-0.98, 0.98, nv), indexing="ij")
                for side in (-1, 1):
                    local = np.zeros((nu * nv, 3))
                    local[:, u_axis], local[:, v_axis], local[:, axis] = u.ravel(), v.ravel(), side
                    points.append(part.centre + (local * part.half) @ part.rotation.T)
                    normals.append(np.tile(part.rotation[:, axis] * side, (nu * nv, 1)))
                    counts.append((nu, nv))
                    starts.append(total)
                    total += nu * nv
        self.texel_counts = torch.tensor(counts, device=self.device)
        self.texel_start = torch.tensor(starts, device=self.device)
        return self._tensor(np.concatenate(points)), self._tensor(np.concatenate(normals))

    def _openness(self, points, normals, rays: int, generator) -> torch.Tensor:
        """Return the unoccluded share (N,) of the cosine-weighted hemisphere within OCCLUSION_REACH."""
        uniform = torch.rand(len(points), rays, 2, generator=generator).to(self.device)
        radius, angle = uniform[..., 0].sqrt(), 2 * torch.pi * uniform[..., 1]
        tangent, bitangent = _frame(normals)
        directions = (
            tangent[:, None] * (radius * angle.cos())[..., None]
            + bitangent[:, None] * (radius * angle.sin())[..., None]
            + normals[:, None] * (1 - radius**2).clamp_min(0).sqrt()[..., None]
        )
        distance = self._distance_to_anything(points, directions).clamp_max(OCCLUSION_REACH)
        return (distance / OCCLUSION_REACH).sqrt().mean(-1)

    def _from_lamp(self, points, normals, lamp, rays: int, generator) -> torch.Tensor:
        """Return the light (N,) of a spherical lamp of brightness 1, with soft shadows."""
        jitter = torch.randn(len(points), rays, 3, generator=generator).to(self.device)
        to_lamp = lamp + LAMP_RADIUS * jitter / jitter.norm(dim=-1, keepdim=True) - points[:, None]
        lit = self._distance_to_anything(points, to_lamp) > 0.97
        squared = to_lamp.square().sum(-1)
        cosine = (to_lamp * normals[:, None]).sum(-1).clamp_min(0) / squared.sqrt()
        return (lit * cosine / (0.6 + 0.5 * squared)).mean(-1)

    def _distance_to_anything(self, points, directions) -> torch.Tensor:
        """Return the ray parameter (N, M) of the first hit from points (N, 3) along directions (N, M, 3); inf if there
        is none."""
        rays, nearest = directions.shape[1], []
        at_once = max(1, RAYS_AT_ONCE // rays)
        for some, outwards in zip(points.split(at_once), directions.split(at_once), strict=True):
            start = torch.einsum("nbi,bij->nbj", some[:, None] - self.centres, self.rotations)
            local = torch.einsum("nmi,bij->nmbj", outwards, self.rotations)
            distance, found = _slab_test(start[:, None], local, self.halves)
            nearest.append(torch.where(found, distance, torch.inf).amin(-1))
        return torch.cat(nearest)


def _class_of(part: Box) -> int:
    return CLASS_NAMES.index(part.label) if part.label in CLASS_NAMES else IGNORED


def _slab_test(start, direction, half):
    """Return the ray parameter at which rays enter boxes, in the coordinates of the boxes, and whether they enter in
    front of their origin."""
    inverse = 1 / torch.where(direction.abs() < 1e-9, 1e-9, direction)
    first, second = (-half - start) * inverse, (half - start) * inverse
    entry = torch.minimum(first, second).amax(-1)
    leave = torch.maximum(first, second).amin(-1)
    return entry, (entry < leave) & (entry > 1e-4)


def _screen_window(part: Box, K, camera_to_world, size) -> tuple[slice, slice] | None:
    """Return the rows and columns of pixels that may see a box; None if there are none."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    corners = part.centre + (signs * part.half) @ part.rotation.T
    camera = (corners - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]
    if (camera[:, 2] <= 0.02).all():
        return None
    if (camera[:, 2] < 0.02).any():
        return slice(0, size[0]), slice(0, size[1])
    projected = camera @ K.T
    x, y = projected[:, 0] / projected[:, 2], projected[:, 1] / projected[:, 2]
    low = np.floor([y.min() - 1, x.min() - 1]).astype(int).clip(0)
    high = np.minimum(np.ceil([y.max() + 2, x.max() + 2]).astype(int), size)
    return (slice(low[0], high[0]), slice(low[1], high[1])) if (low < high).all() else None


def _frame(normals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two orthogonal unit vectors (N, 3) perpendicular to each normal (N, 3)."""
    helper = torch.where(normals[:, :1].abs() < 0.7, normals.new_tensor([1.0, 0, 0]), normals.new_tensor([0, 1.0, 0]))
    tangent = torch.linalg.cross(normals, helper)
    tangent = tangent / tangent.norm(dim=-1, keepdim=True)
    return tangent, torch.linalg.cross(normals, tangent)


def _hash(x: torch.Tensor, y: torch.Tensor, salt: torch.Tensor) -> torch.Tensor:
    """Return a pseudorandom number in [0, 1) for each cell of an integer grid."""
    return torch.frac((torch.sin(x * 12.9898 + y * 78.233 + salt * 3.7) * 43758.547).abs())


def _noise(u: torch.Tensor, v: torch.Tensor, salt: torch.Tensor) -> torch.Tensor:
    """Return smooth noise in [0, 1] with features of size 1."""
    x, y = u.floor(), v.floor()
    a, b = u - x, v - y
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    rows = [_hash(x, y + k, salt) * (1 - a) + _hash(x + 1, y + k, salt) * a for k in (0, 1)]
    return rows[0] * (1 - b) + rows[1] * b


def _pattern(kind: torch.Tensor, u: torch.Tensor, v: torch.Tensor, salt: torch.Tensor) -> torch.Tensor:
    """Return the weight (N,) of the second colour at each point, for u and v in periods of the pattern."""
    amount = torch.zeros_like(u)
    for number in kind.unique().tolist():
        chosen = (kind == number).nonzero()[:, 0]
        amount[chosen] = _AMOUNTS[PATTERNS[number]](u[chosen], v[chosen], salt[chosen].float()).clamp(0, 1)
    return amount


def _joints(u: torch.Tensor, v: torch.Tensor, width: float, height: float) -> torch.Tensor:
    """Return 1 along the edges of the cells of a grid, 0 elsewhere."""
    return (((u - u.floor()) < width) | ((v - v.floor()) < height)).float()


def _planks(u, v, salt):
    joint = _joints(u, v, 0.05, 0)
    grain = _noise(u * 0.8, v * 12, salt)
    return 0.35 * _hash(u.floor(), torch.zeros_like(v), salt) + 0.4 * grain * (1 - joint) + 0.6 * joint


def _books(u, v, salt):
    joint = _joints(u, v, 0.05, 0)
    return _hash(u.floor(), torch.zeros_like(v), salt) * (1 - joint) + joint


def _brick(u, v, salt):
    shifted = u + 0.5 * (v.floor() % 2)
    return 0.3 * _hash(shifted.floor(), v.floor(), salt) + 0.7 * _joints(shifted, v, 0.04, 0.08)


def _motif(u, v, salt):
    """Return dots of random strength, one in each cell, on a faint background."""
    x, y = u.floor(), v.floor()
    inside = ((u - x - 0.5).square() + (v - y - 0.5).square() < 0.09).float()
    return inside * (0.5 + 0.5 * _hash(x, y, salt)) + 0.15 * _noise(u * 3, v * 3, salt)


_AMOUNTS = {
    "plain": lambda u, v, salt: 0.15 * _noise(u * 0.4, v * 0.4, salt),
    "stripes": lambda u, v, salt: _joints(u, v, 0.35, 0) * 0.8 + 0.2 * _noise(u, v, salt),
    "tiles": lambda u, v, salt: 0.25 * _hash(u.floor(), v.floor(), salt) + _joints(u, v, 0.06, 0.06) * 0.75,
    "planks": _planks,
    "fabric": lambda u, v, salt: 0.5 * _noise(u * 3, v * 3, salt) + 0.5 * _noise(u * 0.7, v * 0.7, salt + 9),
    "books": _books,
    "painting": lambda u, v, salt: (_noise(u, v, salt) * 2 + _noise(u * 2.3, v * 2.3, salt + 5)).sin().abs() ** 0.7,
    "brick": _brick,
    "speckle": lambda u, v, salt: 1.8 * (_noise(u, v, salt) * _noise(u * 3.1, v * 3.1, salt + 3)),
    "weave": lambda u, v, salt: (
        0.4 * (1 + (2 * torch.pi * u).sin() * (2 * torch.pi * v).sin()) + 0.2 * _noise(u, v, salt)
    ),
    "motif": _motif,
    "checks": lambda u, v, salt: ((u.floor() + v.floor()) % 2) * 0.8 + 0.2 * _noise(u * 4, v * 4, salt),
}
