"""Fusion of views with depth into a point cloud, or a mesh by a truncated signed distance field (TSDF)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from dataset.views import Cameras
from network.geometry import pixel_grid, pixel_rays, project
from viewing.ply import Geometry

BLOCK = 64  # voxels along a side of a block, which is integrated at once
BAND = 3  # truncation distance of the TSDF in voxels
AGREEMENT = 0.04  # largest difference of the depths of two views that agree: 4% of the depth, but at least 4 cm
NEIGHBOURS = 8  # nearest views in which a point is looked up
FEWEST_VIEWS = 2  # that must agree on a point, itself included
SMALLEST_PIECE = 200  # triangles; smaller connected pieces are removed


@dataclass
class PosedPictures:
    """N pictures of one size with their cameras.

    cameras: on the device. depth: (N, h, w) float32 metres, 0 where it is not trusted. color: (N, h, w, 3) uint8.
    classes: (N, h, w, K) uint8, probabilities times 255, or None.
    """

    cameras: Cameras
    depth: np.ndarray
    color: np.ndarray
    classes: np.ndarray | None

    def __len__(self) -> int:
        return len(self.depth)

    def values(self, view: int, device) -> torch.Tensor:
        """Return colour, then class probabilities of a view: (h * w, 3 or 3 + K) float in [0, 1]."""
        parts = [self.color[view]] if self.classes is None else [self.color[view], self.classes[view]]
        together = torch.from_numpy(np.concatenate(parts, -1)).to(device)
        return together.flatten(0, 1).float() / 255

    def points(self, view: int, device) -> torch.Tensor:
        """Unproject the pixels of a view: (h * w, 3) in the world; the camera centre where depth is 0."""
        camera = self.cameras.one(view)
        centre, directions = pixel_rays(pixel_grid(*camera.size, device=device)[None], camera.poses, camera.Ks)
        return centre[0] + directions[0] * self.depth_of(view, device).flatten()[:, None]

    def depth_of(self, view: int, device) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.depth[view])).to(device)


def drop_disputed(views: PosedPictures, device) -> None:
    """Set depth to 0, in place, where fewer than FEWEST_VIEWS views agree on it."""
    centres = views.cameras.centres()
    agreed = np.zeros(views.depth.shape, bool)
    for view in range(len(views)):
        order = (centres - centres[view]).norm(dim=-1).argsort()[1 : NEIGHBOURS + 1]
        points = views.points(view, device)
        votes = torch.ones(len(points), device=device)
        for other in order.tolist():
            z, measured, _ = look_up(views, other, points, device)
            votes += (measured > 0) & ((measured - z).abs() < AGREEMENT * z.clamp_min(1))
        agreed[view] = (votes >= FEWEST_VIEWS).view(views.depth.shape[1:]).cpu().numpy()
    np.multiply(views.depth, agreed, out=views.depth)


def look_up(
    views: PosedPictures, view: int, points: torch.Tensor, device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Project points (N, 3) into a view. Return their z-depth, the depth of the view there (0: unknown), and the index
    of the pixel: (N,) each."""
    seen = project(points, views.cameras.one(view))
    depth = views.depth_of(view, device)
    pixel = _pixel_index(seen.pixels[0], depth.shape)
    measured = torch.where(seen.valid[0] & (seen.depth[0] > 0), depth.flatten()[pixel], 0)
    return seen.depth[0], measured, pixel


def _pixel_index(pixels: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Return the index of the nearest pixel, row by row; pixels outside of the image are clamped to it."""
    x, y = pixels.nan_to_num().round().long().unbind(-1)
    return y.clamp(0, size[0] - 1) * size[1] + x.clamp(0, size[1] - 1)


def merge_points(views: PosedPictures, voxel: float, device) -> Geometry:
    """Merge the trusted points of all views: the mean of the points in each voxel."""
    keys, sums = np.empty((0, 3), np.int64), None
    for view in range(len(views)):
        trusted = views.depth_of(view, device).flatten() > 0
        points, values = views.points(view, device)[trusted], views.values(view, device)[trusted]
        rows = torch.cat([torch.ones_like(points[:, :1]), points, values], -1).double().cpu().numpy()
        places = (points / voxel).floor().long().cpu().numpy()
        sums = rows if sums is None else np.concatenate([sums, rows])
        keys, index = np.unique(np.concatenate([keys, places]), axis=0, return_inverse=True)
        merged = np.zeros((len(keys), sums.shape[1]))
        np.add.at(merged, index.reshape(-1), sums)
        sums = merged
    means = sums[:, 1:] / sums[:, :1]
    return _geometry(means[:, :3], means[:, 3:], views.classes is not None)


def _geometry(
    positions: np.ndarray, values: np.ndarray, has_classes: bool, faces: np.ndarray | None = None
) -> Geometry:
    color = (values[:, :3].clip(0, 1) * 255).round().astype(np.uint8)
    if not has_classes:
        return Geometry(positions, color, None, None, faces)
    probabilities = values[:, 3:]
    return Geometry(positions, color, probabilities.argmax(-1), probabilities.max(-1, initial=0), faces)


def extract_mesh(views: PosedPictures, voxel: float, device, progress=iter) -> Geometry | None:
    """Extract the surface between what views saw and what hid behind it (Curless and Levoy, 1996), block by block:
    memory does not grow with the scene but by the mesh itself. None if there is no surface.

    progress: wraps the list of blocks.
    """
    positions, values, faces, count = [], [], [], 0
    for block in progress(occupied_blocks(views, voxel, device)):
        piece = mesh_block(views, np.array(block), voxel, device)
        if piece is not None:
            positions.append(piece[0])
            values.append(piece[1])
            faces.append(piece[2] + count)
            count += len(piece[0])
    if not positions:
        return None
    joined = weld(np.concatenate(positions), np.concatenate(values), np.concatenate(faces), voxel)
    positions, values, faces = drop_small_pieces(*joined)
    return _geometry(positions, values, views.classes is not None, faces) if len(faces) else None


def occupied_blocks(views: PosedPictures, voxel: float, device) -> list[tuple[int, int, int]]:
    """Return the blocks that contain a trusted point or the truncation band around one."""
    found: set[tuple[int, int, int]] = set()
    corners = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], device=device)
    reach = corners * (BAND + 1) * voxel
    for view in range(len(views)):
        points = views.points(view, device)[views.depth_of(view, device).flatten() > 0]
        places = torch.unique((points / voxel).round(), dim=0) * voxel
        places = ((places[:, None] + reach) / (BLOCK * voxel)).floor().long().view(-1, 3)
        found.update(map(tuple, torch.unique(places, dim=0).tolist()))
    return sorted(found)


def mesh_block(views: PosedPictures, block: np.ndarray, voxel: float, device):
    """Return positions (N, 3), values (N, C) and faces (F, 3) of the surface in one block; None without any.

    Blocks share the samples of their common sides, so that their surfaces meet.
    """
    origin = torch.from_numpy(block * (BLOCK * voxel)).float().to(device)
    steps = torch.arange(BLOCK + 1, device=device) * voxel
    grid = origin + torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).view(-1, 3)
    distance, weight, values = integrate(views, grid, BAND * voxel, device)
    shape = [BLOCK + 1] * 3
    field = (distance / weight.clamp_min(1)).view(shape).cpu().numpy()
    known = (weight >= FEWEST_VIEWS).view(shape).cpu().numpy()
    if not known.any() or not (field.min() < 0 < field.max()):
        return None
    try:
        at, faces, _, _ = marching_cubes(field, 0, mask=_whole_cubes(known), gradient_direction="descent")
    except (ValueError, RuntimeError):  # no cube of known corners has a surface in it
        return None
    sampled = _trilinear(values.view(*shape, -1), torch.from_numpy(at.copy()).to(device))
    sampled = sampled[:, 1:] / sampled[:, :1].clamp_min(1e-6)
    return origin.cpu().numpy() + at * voxel, sampled.cpu().numpy(), faces


def integrate(
    views: PosedPictures, grid: torch.Tensor, band: float, device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Integrate all views at grid points (N, 3).

    Return the sum of signed distances, in units of `band` and truncated to [-1, 1], over the views that see a point,
    (N,); the number of these views, (N,); and the number and the sum of the values of those views whose surface is
    within the band, (N, 1 + C).
    """
    distance, weight = torch.zeros(2, len(grid), device=device)
    values = torch.zeros(len(grid), 1 + views.values(0, device).shape[1], device=device)
    for view in range(len(views)):
        z, measured, pixel = look_up(views, view, grid, device)
        signed = (measured - z) / band
        counts = (measured > 0) & (signed > -1)
        weight += counts
        distance += torch.where(counts, signed.clamp_max(1), 0)
        near = (counts & (signed < 1)).nonzero()[:, 0]
        if len(near):
            values[near, 0] += 1
            values[near, 1:] += views.values(view, device)[pixel[near]]
    return distance, weight, values


def _whole_cubes(known: np.ndarray) -> np.ndarray:
    """Return the mask that marching cubes reads: true at the last corner of each cube whose eight corners are known."""
    whole = known.copy()
    for axis in range(3):
        shifted = np.zeros_like(whole)
        target, source = [slice(None)] * 3, [slice(None)] * 3
        target[axis], source[axis] = slice(1, None), slice(None, -1)
        shifted[tuple(target)] = whole[tuple(source)]
        whole &= shifted
    return whole


def _trilinear(volume: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Interpolate a volume (n, n, n, C) at voxel coordinates (N, 3): (N, C)."""
    scaled = at.flip(-1).float() * (2 / (len(volume) - 1)) - 1  # x runs along the last axis
    sampled = F.grid_sample(volume.permute(3, 0, 1, 2)[None], scaled[None, :, None, None], align_corners=True)
    return sampled[0, :, :, 0, 0].T


def weld(positions: np.ndarray, values: np.ndarray, faces: np.ndarray, voxel: float):
    """Merge coinciding vertices, which occur on the common sides of blocks."""
    pairs = cKDTree(positions).query_pairs(voxel * 1e-3, output_type="ndarray")
    count = len(positions)
    same = coo_matrix((np.ones(len(pairs)), pairs.T), (count, count))
    _, vertex = connected_components(same, directed=False)
    _, first = np.unique(vertex, return_index=True)
    faces = vertex[faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return positions[first], values[first], faces[whole]


def drop_small_pieces(positions: np.ndarray, values: np.ndarray, faces: np.ndarray):
    """Remove connected pieces of fewer than SMALLEST_PIECE triangles."""
    count = len(positions)
    edges = coo_matrix((np.ones(2 * len(faces)), (faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel())), (count, count))
    _, piece = connected_components(edges, directed=False)
    large = np.bincount(piece[faces[:, 0]], minlength=piece.max() + 1) >= SMALLEST_PIECE
    kept = large[piece]
    number = np.cumsum(kept) - 1
    return positions[kept], values[kept], number[faces[kept[faces[:, 0]]]]
