"""Registration of depth from a separate depth camera to the colour camera.

Cameras are pinholes with OpenCV axes and pixel centres at integers. Depth is z-depth in millimetres, 0 where unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dataset.camera import scale_intrinsics
from dataset.frames import same_shape
from dataset.maps import FARTHEST
from utils.errors import UserError

SMOOTH = 0.02  # largest relative second difference of inverse depth on a smooth surface; on a plane it is 0
SAME_SURFACE = 0.03  # largest relative difference of depth of points on one surface that project to the same pixel
ACROSS = [np.array(kernel, np.float32) for kernel in ([[1, -2, 1]], [[1], [-2], [1]])]
ACROSS += [np.diag([1.0, -2, 1]).astype(np.float32), np.diag([1.0, -2, 1])[::-1].astype(np.float32)]
SAMPLES = 1.5  # least number of samples of the depth map per pixel of the registered map, along each axis
SAME_PIXEL = 0.5  # pixels; cameras whose projections differ by less need no registration
DEPTHS = (500.0, 5000.0)  # millimetres, at which two cameras are compared


@dataclass(frozen=True)
class DepthCamera:
    """A depth camera: K (3, 3) of maps of `size` (h, w). to_color (4, 4): from its coordinates to those of the colour
    camera, metres."""

    K: np.ndarray
    size: tuple[int, int]
    to_color: np.ndarray

    def shift(self, K: np.ndarray, size: tuple[int, int]) -> float:
        """Return the largest distance, in pixels of this camera, between the projections of a point into this camera
        and into a colour camera with K (3, 3) and images of `size` (h, w)."""
        height, width = self.size
        own_K = scale_intrinsics(K, size, self.size)
        corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)])
        rays = corners @ np.linalg.inv(self.K).T
        points = np.concatenate([z * rays for z in DEPTHS])
        seen = _project(self._move(points), own_K)[0]
        return float(np.abs(seen - np.tile(corners[:, :2], (len(DEPTHS), 1))).max())

    def register(self, depth: np.ndarray, K: np.ndarray, size: tuple[int, int], origin) -> np.ndarray:
        """Return a depth map (h, w) uint16 of this camera as seen by a colour camera with K (3, 3) and images of `size`
        (h, w).

        The result has the aspect ratio of the colour image and the smaller of the two widths. Nearer surfaces occlude
        farther ones, pixels that this camera does not see are 0, and there is no interpolation across edges. origin:
        names the map in the UserError for one of another shape.
        """
        if not same_shape(depth.shape, self.size):
            (height, width), (own_height, own_width) = depth.shape, self.size
            raise UserError(f"{origin}: is {width}x{height}, but its depth camera is {own_width}x{own_height}")
        target = _map_size(depth.shape, size)
        own_K = scale_intrinsics(self.K, self.size, depth.shape)
        target_K = scale_intrinsics(K, size, target)
        finer = int(np.ceil(SAMPLES * max(1.0, target_K[0, 0] / own_K[0, 0], target_K[1, 1] / own_K[1, 1])))
        surface = _refine(depth, finer)
        rows, columns = np.nonzero(surface)
        z = surface[rows, columns].astype(np.float64)
        pixels = np.stack([(columns + 0.5) / finer - 0.5, (rows + 0.5) / finer - 0.5, np.ones(len(z))], -1)
        landed, z = _project(self._move(pixels @ np.linalg.inv(own_K).T * z[:, None]), target_K)
        return _nearest_of(landed, z, target)

    def unless_same(self, K: np.ndarray, size: tuple[int, int], least: float = SAME_PIXEL) -> DepthCamera | None:
        """Return this camera; None if it differs from the colour camera by less than `least` pixels."""
        return self if self.shift(K, size) >= least else None

    def _move(self, points: np.ndarray) -> np.ndarray:
        """Return points (N, 3) in millimetres, in the colour camera's coordinates."""
        return points @ self.to_color[:3, :3].T + 1000 * self.to_color[:3, 3]


def _map_size(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (h, w) of a registered map: the aspect ratio of the colour image, the smaller of both widths."""
    width = min(shape[1], size[1])
    return round(size[0] * width / size[1]), width


def _refine(depth: np.ndarray, finer: int) -> np.ndarray:
    """Upsample a map by `finer` along each axis, (finer h, finer w) float32: on smooth surfaces bilinear in inverse
    depth, which is exact on planes; elsewhere nearest neighbour."""
    values = depth.astype(np.float32)
    inverses = 1 / np.maximum(values, 1)
    known = cv2.erode((values > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    bends = [np.abs(cv2.filter2D(inverses, -1, kernel)) for kernel in ACROSS]
    smooth = known & (np.max(bends, 0) < SMOOTH * inverses)
    shape = (depth.shape[1] * finer, depth.shape[0] * finer)
    inverse = cv2.resize(inverses, shape, interpolation=cv2.INTER_LINEAR)
    own = cv2.resize(values, shape, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.where(
        cv2.resize(smooth.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST_EXACT) > 0, 1 / inverse, own
    )


def _project(points: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project points (N, 3): pixels (N, 2), -1 behind the camera, and depth (N,)."""
    z = points[:, 2]
    ahead = z > 1
    pixels = (points @ K.T)[:, :2] / np.where(ahead, z, 1)[:, None]
    return np.where(ahead[:, None], pixels, -1.0), z


def _nearest_of(pixels: np.ndarray, z: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Render points with a z-buffer into a map of `size` (h, w) uint16, 0 where no point projects. The depth of a pixel
    is the mean of the points on its nearest surface, which lie around the pixel's centre."""
    height, width = size
    x, y = pixels.round().astype(np.int64).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (z < FARTHEST)
    place, z = (y * width + x)[inside], z[inside]
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, place, z)
    on_it = z < nearest[place] * (1 + SAME_SURFACE)
    count, total = (np.bincount(place[on_it], values, height * width) for values in (None, z[on_it]))
    return (total / np.maximum(count, 1)).round().astype(np.uint16).reshape(size)
