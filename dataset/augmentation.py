"""Augmentation of training samples: colour changes, mirrored and rescaled rooms, simulated sensors.

All frames of a sample are changed in the same way, so that they still show one room. Only exposure and sensor noise
differ from frame to frame. Images, depth and labels stay in storage types.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from dataset.maps import FARTHEST
from dataset.sensor import Sensor, drifting, sensed_color, sensed_depth, sensed_pose
from dataset.views import Views
from utils.config import Setting

DEFAULTS = {
    # strength of random changes of brightness, contrast, saturation, tint and gamma
    "color": Setting(0.0, float, minimum=0, maximum=1),
    "mirror": Setting(0.0, float, minimum=0, maximum=1),  # share of samples that are mirrored
    "scale": Setting(
        1.0, float, minimum=1, maximum=4
    ),  # largest factor by which rooms are enlarged or reduced at random
    # share of samples whose references have the noise of a simulated hand-held RGB-D camera
    "sensor": Setting(0.0, float, minimum=0, maximum=1),
    "hide_depth": Setting(0.0, float, minimum=0, maximum=1),  # share of samples whose references have no depth
}
LUMA = np.array([0.299, 0.587, 0.114])  # of RGB (ITU-R BT.601)


def augment(references: Views, query: Views, cfg, rng: np.random.Generator) -> tuple[Views, Views]:
    """Return augmented references and query views. cfg: a section with the keys of DEFAULTS."""
    if cfg.color > 0:
        matrix, curve = color_change(cfg.color, rng)
        references, query = (_recolored(views, matrix, curve) for views in (references, query))
    if rng.random() < cfg.mirror:
        references, query = mirrored(references), mirrored(query)
    if cfg.scale > 1:
        factor = float(np.exp(rng.uniform(-1, 1) * np.log(cfg.scale)))
        references, query = scaled(references, factor), scaled(query, factor)
    if rng.random() < cfg.sensor:
        references = taken(references, rng)
    if cfg.hide_depth > 0 and rng.random() < cfg.hide_depth and references.depth is not None:
        references = replace(references, depth=torch.zeros_like(references.depth))
    return references, query


def color_change(strength: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an affine map of colours, (3, 4), and a tone curve (256,) uint8 to be applied after it.

    At strength 1 brightness, contrast and gamma vary by up to 30%, saturation by 40% and the balance of the channels by
    10%.
    """
    brightness, contrast, gamma = np.exp(strength * rng.uniform(-0.3, 0.3, 3))
    saturation = np.exp(strength * rng.uniform(-0.4, 0.4))
    balance = np.exp(strength * rng.uniform(-0.1, 0.1, 3))
    matrix = saturation * np.eye(3) + (1 - saturation) * LUMA
    matrix = contrast * brightness * balance[:, None] * matrix
    offset = np.full(3, 127.5 * (1 - contrast))
    curve = 255 * (np.arange(256) / 255) ** gamma
    return np.concatenate([matrix, offset[:, None]], 1), curve.round().astype(np.uint8)


def _recolored(views: Views, matrix: np.ndarray, curve: np.ndarray) -> Views:
    images = [cv2.LUT(cv2.transform(image, matrix), curve) for image in _as_arrays(views.images)]
    return replace(views, images=_as_tensor(images))


def mirrored(views: Views) -> Views:
    """Return views reflected in the plane x = 0 of the world: images with left and right swapped, and their cameras."""
    cameras = views.cameras
    flip = torch.tensor([-1.0, 1, 1])
    poses = flip[:, None] * cameras.poses * torch.cat([flip, torch.ones(1)])
    Ks = cameras.Ks.clone()
    Ks[:, 0, 2] = cameras.size[1] - 1 - Ks[:, 0, 2]
    maps = {name: getattr(views, name) for name in ("images", "depth", "labels", "mask")}
    maps = {name: None if x is None else _flipped(x) for name, x in maps.items()}
    sources = views.sources and replace(views.sources, views=mirrored(views.sources.views))
    return replace(views, cameras=replace(cameras, poses=poses, Ks=Ks), sources=sources, **maps)


def _flipped(maps: torch.Tensor) -> torch.Tensor:
    """Swap left and right; by NumPy, since torch does not flip unsigned depth."""
    return torch.from_numpy(np.flip(maps.numpy(), -1).copy())


def scaled(views: Views, factor: float) -> Views:
    """Return views of a room with all distances multiplied by `factor`. Depth too large for storage becomes unknown."""
    cameras = views.cameras
    poses = torch.cat([cameras.poses[..., :3], cameras.poses[..., 3:] * factor], -1)
    depth = views.depth
    if depth is not None:
        larger = (depth.numpy() * factor).round()
        depth = torch.from_numpy(np.where(larger > FARTHEST, 0, larger).astype(np.uint16))
    cameras = replace(cameras, poses=poses, depth_range=cameras.depth_range * factor)
    sources = views.sources and replace(views.sources, views=scaled(views.sources.views, factor))
    return replace(views, cameras=cameras, depth=depth, sources=sources)


def taken(views: Views, rng: np.random.Generator) -> Views:
    """Return the views as a simulated hand-held RGB-D camera takes them: noisy colour, depth (if there is any) and
    poses."""
    sensor = Sensor.drawn(rng)
    images, drift = _as_arrays(views.images), drifting(len(views), rng)
    depth = views.depth
    if depth is not None:
        meters = depth[:, 0].numpy().astype(np.float32) / 1000
        measured = [sensed_depth(z, sensor, rng, image) for z, image in zip(meters, images, strict=True)]
        stored = (np.stack(measured) * 1000).round().clip(0, FARTHEST)
        depth = torch.from_numpy(stored.astype(np.uint16))[:, None]
    images = [sensed_color(image, sensor, *of_frame, rng) for image, *of_frame in zip(images, drift, strict=True)]
    cameras = replace(views.cameras, poses=_tracked(views.cameras.poses, sensor, rng))
    return replace(views, cameras=cameras, images=_as_tensor(images), depth=depth)


def _tracked(poses: torch.Tensor, sensor: Sensor, rng: np.random.Generator) -> torch.Tensor:
    """Return world-to-camera poses (V, 3, 4) with the errors of tracking."""
    last = np.array([0.0, 0, 0, 1])
    found = [
        np.linalg.inv(sensed_pose(np.linalg.inv(np.vstack([pose, last])), sensor, rng))
        for pose in poses.double().numpy()
    ]
    return torch.from_numpy(np.stack(found)[:, :3]).to(poses)


def _as_arrays(images: torch.Tensor) -> list[np.ndarray]:
    """Split (V, 3, h, w) into V arrays of (h, w, 3)."""
    return list(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))


def _as_tensor(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
