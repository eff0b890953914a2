"""Losses: functions of rendered values and targets that return a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dataset.views import Views
from network.geometry import nearest_views, pixel_grid, pixel_rays, project, read_map, scaled_cameras
from train.metrics import SSIM_WINDOW


def color_loss(color: torch.Tensor, target: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """Return the squared error summed over channels (R, 3), mean over the scored rays (R,) bool; 0 if there are
    none."""
    error = (color - target).square().sum(-1)
    return (error * scored).sum() / scored.sum().clamp_min(1)


def termination_loss(
    hit_probability: torch.Tensor, depths: torch.Tensor, target: torch.Tensor, counted: torch.Tensor
) -> torch.Tensor:
    """Return the expected distance between where rays end and the measured depth: the mean of
    sum_s w_s |ln z_s - ln z| + max(0, 1 - sum_s w_s).

    hit_probability w, depths z_s in metres: (R, S). target z: (R,) metres, 0 where unknown. The mean is over the rays
    of counted (R,) bool with known depth; 0 if there are none. A line-of-sight loss as in Urban Radiance Fields
    (Rematas et al. 2022). A ray without a hit costs as much as one that ends at e times the depth.
    """
    known = (target > 0) & counted
    distance = (depths.log() - target.clamp_min(1e-3).log()[:, None]).abs()
    missing = (1 - hit_probability.sum(-1)).clamp_min(0)
    error = (hit_probability * distance).sum(-1) + missing
    return (error * known).sum() / known.sum().clamp_min(1)


def depth_loss(predicted: torch.Tensor, sensor: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of log depth over pixels with measured depth; 0 if there are none.

    predicted: (V, 1, H, W) metres. sensor: (V, 1, h, w) metres, 0 where unknown, read at its nearest pixels.
    """
    sensor = F.interpolate(sensor, size=predicted.shape[-2:], mode="nearest-exact")
    known = sensor > 0
    error = (predicted.log() - sensor.clamp_min(1e-3).log()).abs()
    return (error * known).sum() / known.sum().clamp_min(1)


def reprojection_loss(predicted: torch.Tensor, views: Views) -> torch.Tensor:
    """Return the mean colour difference between each view and the other views at the pixels where its predicted depth
    projects.

    predicted: (V, 1, H, W) metres of views whose images are (V, 3, h, w). For each pixel the minimum over the nearest
    other views is taken, which is robust to occlusion (Godard et al., Monodepth2, section 3.2).
    """
    size = tuple(predicted.shape[-2:])
    images = F.interpolate(views.images, size=size, mode="area")
    cameras = scaled_cameras(views.cameras, size)
    pixels = pixel_grid(*size, device=images.device).expand(len(images), -1, -1)
    centres, directions = pixel_rays(pixels, cameras.poses, cameras.Ks)
    points = centres[:, None] + directions * predicted.flatten(1)[..., None]
    own = images.flatten(2).transpose(1, 2)
    total = images.new_zeros(())
    for view, neighbours in enumerate(nearest_views(cameras)):
        others = cameras[neighbours]
        landed = project(points[view], others)
        seen = landed.valid & (landed.depth > 0)
        difference = (read_map(images[neighbours], landed.pixels, size, align_corners=True) - own[view]).abs().mean(-1)
        counted = seen.any(0)
        smallest = torch.where(seen, difference, 1.0).amin(0)
        total = total + (smallest * counted).sum() / counted.sum().clamp_min(1)
    return total / len(images)


def semantic_loss(logits: torch.Tensor, target: torch.Tensor, ignore: int) -> torch.Tensor:
    """Return the mean cross entropy of logits (R, K+1) over rays whose target (R,) is not `ignore` (K); 0 if there are
    none."""
    total = F.cross_entropy(logits, target, ignore_index=ignore, reduction="sum")
    return total / (target != ignore).sum().clamp_min(1)


def entropy_loss(logits: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return the mean entropy of the classes of logits (R, K+1) over the rays of counted (R,) bool; 0 if there are
    none.

    "Invalid" (K) is left out: without labels nothing would keep the network from predicting it everywhere.
    """
    logs = logits[:, :-1].log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    return (entropy * counted).sum() / counted.sum().clamp_min(1)


def consistency_loss(first: torch.Tensor, second: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return the symmetric Kullback-Leibler divergence of two predictions, logits (R, K+1) each, averaged over the rays
    of counted (R,) bool; 0 if there are none.

    In each of the two directions the target is detached.
    """
    first, second = first.log_softmax(-1), second.log_softmax(-1)
    divergence = (_divergence(first, second.detach()) + _divergence(second, first.detach())) / 2
    return (divergence * counted).sum() / counted.sum().clamp_min(1)


def _divergence(logs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of log probabilities (R, C) from those of a target: (R,)."""
    return F.kl_div(logs, target, reduction="none", log_target=True).sum(-1)


def ssim_loss(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return 1 - SSIM of images (Q, 3, h, w) in [0, 1], with a uniform window as in `train.metrics` (Wang et al.
    2004)."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, SSIM_WINDOW, 1)

    ours, theirs = mean(images), mean(target)
    variances = mean(images.square()) - ours.square() + mean(target.square()) - theirs.square()
    covariance = mean(images * target) - ours * theirs
    small, large = 0.01**2, 0.03**2
    similar = (2 * ours * theirs + small) * (2 * covariance + large)
    return 1 - (similar / ((ours.square() + theirs.square() + small) * (variances + large))).mean()
