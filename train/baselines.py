"""Baselines without a network: the nearest reference, copied or warped by its depth, and the splat of all
references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dataset.views import Batch, Views
from network.geometry import pixel_grid, pixel_rays, project
from network.ops.splat import blend_colors, merge_depth, nearest_known, see_surface, splat_depth, vote_labels
from train.pictures import Picture, first_picture, to_uint8

COPIED, WARPED = "nearest reference, copied", "nearest reference, warped by its depth"
SPLATTED = "splat of all references, no network"
OF_FEW_LABELS = {
    COPIED: "nearest frame with labels, copied",
    WARPED: "nearest frame with labels, warped by its depth",
    SPLATTED: "splat of the frames with labels, no network",
}


def baselines(batch: Batch, classes: int) -> dict[str, Picture]:
    """Return the picture of each baseline. Without depth of the references they can only be copied.

    With `few_labels` the classes are those of the nearest frames that have labels; these are baselines of their own.
    """
    if batch.labelled is None:
        return _baselines(batch.references, batch, classes)
    labels = fill_labels(batch.labelled.labels, classes)
    of_few = _baselines(replace(batch.labelled, labels=labels), batch, classes)
    pictures = _baselines(replace(batch.references, labels=None), batch, classes)
    return pictures | {OF_FEW_LABELS[name]: picture for name, picture in of_few.items()}


def _baselines(references: Views, batch: Batch, classes: int) -> dict[str, Picture]:
    references = without_hidden_depth(references)
    pictures = {COPIED: nearest_copied(references)}
    if references.depth is not None:
        pictures[WARPED] = nearest_warped(references, batch)
        pictures[SPLATTED] = splatted(references, batch, classes)
    return pictures


def fill_labels(labels: torch.Tensor, ignore: int) -> torch.Tensor:
    """Return labels (V, h, w) in which each pixel without a label has that of the nearest labelled pixel."""
    return torch.stack([view.flatten()[nearest_known(view != ignore)] for view in labels])


def without_hidden_depth(references: Views) -> Views:
    """Return references whose depth is unknown where their mask is 0."""
    if references.mask is None or references.depth is None:
        return references
    return replace(references, depth=references.depth * (references.mask > 0))


def nearest_copied(references: Views) -> Picture:
    """Return the nearest reference unchanged (test references come nearest first)."""
    return first_picture(references)


def nearest_warped(references: Views, batch: Batch) -> Picture:
    """Return the nearest reference warped into the query view by its depth; holes keep the copied picture."""
    copied, cameras = nearest_copied(references), references.cameras
    centres, directions = pixel_rays(
        pixel_grid(*cameras.size, device=references.images.device)[None], cameras.poses[:1], cameras.Ks[:1]
    )
    depth = references.depth[0].reshape(-1)
    landed = project(centres[0] + directions[0] * depth[:, None], batch.query.cameras)
    usable = landed.valid[0] & (landed.depth[0] > 0) & (depth > 0)
    order = torch.argsort(landed.depth[0][usable], descending=True)  # the nearest is written last
    columns, rows = landed.pixels[0][usable][order].round().long().cpu().numpy().T
    source = usable.nonzero()[:, 0][order].cpu().numpy()

    def moved(values: np.ndarray, sources: np.ndarray) -> np.ndarray:
        result = values.copy()
        result[rows, columns] = sources.reshape(-1, *values.shape[2:])[source]
        return result

    classes = None if copied.classes is None else moved(copied.classes, copied.classes)
    return Picture(moved(copied.color, copied.color), classes, moved(copied.depth, landed.depth[0].cpu().numpy()))


def splatted(references: Views, batch: Batch, classes: int) -> Picture:
    """Return all references splatted into the query view by their depth, with their colours blended.

    A pixel that no reference sees has the colour and class of the nearest pixel that one sees. Classes are the true
    labels of the references, which a network is not given.
    """
    query = batch.query.cameras
    depth = merge_depth(splat_depth(references.depth, references.cameras, query))
    sighting = see_surface(references, query, depth)
    seen = sighting.seen.view(query.size)
    source = nearest_known(seen)
    labels = None
    if references.labels is not None:
        labels = vote_labels(references.labels, sighting, classes)[source].cpu().numpy()
    color = to_uint8(blend_colors(references, sighting)[source])
    return Picture(color, labels, depth.cpu().numpy(), seen.cpu().numpy())
