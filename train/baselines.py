"""What one gets without a network, for scale: the nearest reference, copied or warped by its depth."""

from __future__ import annotations

import numpy as np
import torch

from dataset.views import Batch
from network.geometry import pixel_grid, pixel_rays, project
from train.pictures import Picture


def nearest_copied(batch: Batch) -> Picture:
    """The nearest reference as it is (test references come nearest first)."""
    color = (batch.references.images[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
    labels = batch.references.labels
    return Picture(color, None if labels is None else labels[0].cpu().numpy())


def nearest_warped(batch: Batch) -> Picture:
    """The nearest reference moved into the query view by its depth; holes keep the copied picture."""
    copied = nearest_copied(batch)
    nearest, target = batch.references, batch.query.cameras
    if nearest.depth is None:
        return copied
    cameras = nearest.cameras
    centres, directions = pixel_rays(
        pixel_grid(*cameras.size, device=nearest.images.device)[None], cameras.poses[:1], cameras.Ks[:1]
    )
    depth = nearest.depth[0].reshape(-1)
    landed = project(centres[0] + directions[0] * depth[:, None], target)
    usable = landed.valid[0] & (landed.depth[0] > 0) & (depth > 0)
    order = torch.argsort(landed.depth[0][usable], descending=True)  # the nearest is written last
    columns, rows = landed.pixels[0][usable][order].round().long().cpu().numpy().T
    source = usable.nonzero()[:, 0][order].cpu().numpy()

    def moved(values: np.ndarray) -> np.ndarray:
        result = values.copy()
        result[rows, columns] = values.reshape(-1, *values.shape[2:])[source]
        return result

    return Picture(moved(copied.color), None if copied.classes is None else moved(copied.classes))
