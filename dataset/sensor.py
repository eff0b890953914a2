"""Simulation of a hand-held RGB-D camera: blur, noise and drifting exposure in colour; steps, noise and holes in depth;
small pose errors; ragged borders of labels.

Pure functions of NumPy arrays and a generator. Lengths in pixels are of an image REFERENCE_WIDTH wide and grow with
the image. `Sensor.drawn` picks one device and room; its strengths are fitted to a Kinect's frames
(benchmarks/results/sensor.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

REFERENCE_WIDTH = 640
DISPARITY = 43.9  # metres × pixels: baseline × focal length of a Kinect, at REFERENCE_WIDTH
DISPARITY_STEP = 1 / 8  # pixels
GAMMA = 2.2
LOST_BY_BRIGHTNESS = np.interp(np.arange(256), [0, 25, 245, 255], [0.6, 0, 0, 0.6]).astype(np.float32)


@dataclass(frozen=True)
class Sensor:
    """Parameters of one simulated device in one room.

    Colour: blur in pixels; shot, read: noise at full and at no light, linear; vignette: share of light lost in the
    corners; exposure, balance: standard deviation of their logarithms over frames; motion: mean length of motion blur
    in pixels; quality: of the JPEG. Depth: disparity: noise in pixels; edge: displacement of edges in pixels; holes:
    likelihood of missing depth (1: as a Kinect); range: metres; shift: (x, y) pixels between depth and colour. Poses:
    turn in degrees, slide in metres. Labels: ragged: displacement of borders in pixels.
    """

    blur: float = 0.35
    shot: float = 0.01
    read: float = 0.001
    vignette: float = 0.2
    exposure: float = 0.08
    balance: float = 0.04
    motion: float = 1.0
    quality: int = 90
    disparity: float = 0.06
    edge: float = 1.0
    holes: float = 1.0
    range: float = 6.0
    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.15
    slide: float = 0.003
    ragged: float = 2.5

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Sensor:
        """Draw a sensor somewhere between a good and a poor one."""
        return cls(
            blur=rng.uniform(0.1, 0.6),
            shot=rng.uniform(0.003, 0.02),
            read=rng.uniform(0.0003, 0.002),
            vignette=rng.uniform(0.0, 0.35),
            exposure=rng.uniform(0.02, 0.12),
            balance=rng.uniform(0.01, 0.06),
            motion=rng.uniform(0.2, 1.8),
            quality=int(rng.integers(75, 96)),
            disparity=rng.uniform(0.03, 0.1),
            edge=rng.uniform(0.5, 1.5),
            holes=rng.uniform(0.5, 2.5),
            range=rng.uniform(4.5, 8.0),
            shift=tuple(rng.normal(0, 1.0, 2)),
            turn=rng.uniform(0.05, 0.3),
            slide=rng.uniform(0.001, 0.006),
            ragged=rng.uniform(1.5, 4.0),
        )


def sensed_color(color: np.ndarray, sensor: Sensor, drift: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture (h, w, 3) uint8 as the camera takes it. drift (4,): of exposure, and of the balance of red,
    green and blue, each of deviation 1 over many frames (see `drifting`)."""
    height, width = color.shape[:2]
    scale = width / REFERENCE_WIDTH
    light = _linear(color)
    light = cv2.filter2D(light, -1, _motion_kernel(rng.exponential(sensor.motion) * scale, rng.uniform(0, np.pi)))
    if sensor.blur * scale > 0.2:
        light = cv2.GaussianBlur(light, (0, 0), sensor.blur * scale)
    y, x = np.ogrid[:height, :width]
    radius = ((2 * x / width - 1) ** 2 + (2 * y / height - 1) ** 2) / 2
    gain = np.exp(sensor.exposure * drift[0] + sensor.balance * drift[1:]).astype(np.float32)
    light *= (1 - sensor.vignette * radius).astype(np.float32)[..., None] * gain
    grain = cv2.GaussianBlur(rng.standard_normal(color.shape, np.float32), (0, 0), 0.6) * 2.1
    light += grain * np.sqrt(sensor.read**2 + sensor.shot**2 * light.clip(0, 1))
    picture = (light.clip(0, 1) ** (1 / GAMMA) * 255).astype(np.uint8)
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, sensor.quality])[1]
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])


def drifting(frames: int, rng: np.random.Generator, steps: float = 25.0) -> np.ndarray:
    """Return autoregressive noise (frames, 4) of mean 0 and deviation 1, with a correlation length of `steps`
    frames."""
    keep = np.exp(-1 / steps)
    values = rng.standard_normal((frames, 4))
    for i in range(1, frames):
        values[i] = keep * values[i - 1] + np.sqrt(1 - keep**2) * values[i]
    return values


def sensed_depth(
    depth: np.ndarray, sensor: Sensor, rng: np.random.Generator, color: np.ndarray | None = None
) -> np.ndarray:
    """Return depth (h, w) in metres, 0 or infinite where unknown, as a stereo sensor measures it: float32, 0 where it
    does not. With the colour (h, w, 3) uint8, what is very dark or blinding is lost as well."""
    height, width = depth.shape
    scale = width / REFERENCE_WIDTH
    exact = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    measured = _wandered(exact, sensor.edge * scale, sensor.shift, scale, rng)
    known = measured > 0
    disparity = DISPARITY / np.maximum(measured, 0.05)
    cell = max(5 * scale, 1.5)
    noise = rng.standard_normal((int(height / cell) + 2, int(width / cell) + 2), np.float32)
    disparity += 1.5 * sensor.disparity * cv2.resize(noise, (width, height))
    disparity = np.round(disparity / DISPARITY_STEP) * DISPARITY_STEP
    measured = DISPARITY / np.maximum(disparity, 0.5)
    lost = _loss(exact, sensor, scale, color) * sensor.holes > _patches(height, width, scale, rng)
    return np.where(known & ~lost, measured, 0).astype(np.float32)


def _wandered(image: np.ndarray, edge: float, shift, scale: float, rng) -> np.ndarray:
    """Resample an image with a constant shift and a smooth random displacement, which frays edges."""
    height, width = image.shape
    cell = max(3 * scale, 1.5)
    grid = rng.standard_normal((2, int(height / cell) + 2, int(width / cell) + 2), np.float32) * np.float32(edge)
    offset = [cv2.resize(axis, (width, height)) for axis in grid]
    x = offset[0] + (np.arange(width, dtype=np.float32) + np.float32(shift[0] * scale))
    y = offset[1] + (np.arange(height, dtype=np.float32) + np.float32(shift[1] * scale))[:, None]
    return cv2.remap(image, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def _loss(depth: np.ndarray, sensor: Sensor, scale: float, color: np.ndarray | None) -> np.ndarray:
    """Return the likelihood that each pixel's depth is missing: at silhouettes, mainly in the projector's shadow, at
    grazing angles, far away, and where it is too dark or too bright."""
    reach = max(1, round(9 * scale))
    near = cv2.erode(np.where(depth > 0, depth, 1e3).astype(np.float32), np.ones((3, 2 * reach + 1)), anchor=(0, 1))
    jump = (depth - near) / np.maximum(depth, 0.1)  # how far behind what is just beside it
    loss = 0.9 * (jump > 0.06).astype(np.float32)
    slope = np.abs(cv2.Sobel(depth, -1, 1, 0, scale=1 / 8)) + np.abs(cv2.Sobel(depth, -1, 0, 1, scale=1 / 8))
    grazing = slope / np.maximum(depth, 0.1) * (570 * scale)  # the tangent of the angle to the line of sight
    loss += 0.2 * np.clip(grazing - 4, 0, 5)
    loss += np.clip((depth - sensor.range) / 1.5, 0, 1) + 0.03
    if color is not None:
        bright = cv2.blur(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), (3, 3))
        loss += LOST_BY_BRIGHTNESS[bright]
    return loss


def _patches(height: int, width: int, scale: float, rng) -> np.ndarray:
    """Return random thresholds in [0, 1], spatially correlated at several scales, so that missing depth forms
    patches."""
    total = np.zeros((height, width), np.float32)
    for size, weight in ((24, 0.45), (8, 0.35), (3, 0.2)):
        cell = max(size * scale, 1)
        grid = rng.random((int(height / cell) + 2, int(width / cell) + 2), np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return ((total - 0.5) * 1.8 + 0.5).clip(0, 1)


def sensed_pose(pose: np.ndarray, sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """Return a camera-to-world matrix (4, 4) as tracking finds it: turned and moved a little."""
    turn, _ = cv2.Rodrigues(np.radians(rng.normal(0, sensor.turn / np.sqrt(3), 3)))
    error = np.eye(4)
    error[:3, :3], error[:3, 3] = turn, rng.normal(0, sensor.slide / np.sqrt(3), 3)
    return pose @ error


def sensed_labels(labels: np.ndarray, sensor: Sensor, rng: np.random.Generator, ignored: int) -> np.ndarray:
    """Return labels (h, w) as if rendered from a coarsely labelled mesh: borders are displaced, and some pixels on them
    `ignored`."""
    height, width = labels.shape
    scale = width / REFERENCE_WIDTH
    cell = max(12 * scale, 2)
    grid = rng.standard_normal((2, int(height / cell) + 2, int(width / cell) + 2)).astype(np.float32)
    offset = [cv2.resize(axis, (width, height), interpolation=cv2.INTER_CUBIC) * sensor.ragged * scale for axis in grid]
    x = offset[0] + np.arange(width, dtype=np.float32)
    y = offset[1] + np.arange(height, dtype=np.float32)[:, None]
    wandered = cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    reach = np.ones((max(1, round(5 * scale)),) * 2, np.uint8)
    border = cv2.dilate(wandered, reach) != cv2.erode(wandered, reach)
    return np.where(border & (_patches(height, width, scale, rng) < 0.25), ignored, wandered).astype(labels.dtype)


def _linear(color: np.ndarray) -> np.ndarray:
    return ((np.arange(256) / 255) ** GAMMA).astype(np.float32)[color]


def _motion_kernel(length: float, angle: float) -> np.ndarray:
    """Return a line of `length` pixels, of sum 1."""
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1,) * 2, np.float32)
    along = np.linspace(-length / 2, length / 2, 4 * half + 1)
    x, y = half + along * np.cos(angle), half + along * np.sin(angle)
    np.add.at(kernel, (np.round(y).astype(int), np.round(x).astype(int)), 1)
    return kernel / kernel.sum()
