"""Padding of views to the sizes that encoders accept: multiples of their strides."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from dataset.views import Views
from utils.errors import UserError


def pad_views(views: Views, multiple: int) -> Views:
    """Pad images, depth and mask at the bottom and right by reflection, to a multiple of `multiple` pixels. Drop
    labels.

    Raise UserError if a side has `multiple` pixels or fewer: reflection needs more pixels than it adds.
    """
    height, width = views.cameras.size
    if min(height, width) <= multiple:
        raise UserError(
            f"images of {width}x{height} are too small: the network needs more than {multiple} pixels a side"
        )
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return views

    def pad(x):
        return None if x is None else F.pad(x, (0, right, 0, below), mode="reflect")

    cameras = replace(views.cameras, size=(height + below, width + right))
    padded = {name: pad(getattr(views, name)) for name in ("images", "depth", "mask")}
    sources = views.sources and replace(views.sources, views=pad_views(views.sources.views, multiple))
    return replace(views, cameras=cameras, labels=None, sources=sources, **padded)


def padded_labels(views: Views, padded: tuple[int, int], ignore: int) -> torch.Tensor:
    """Return the labels of views at the size (h, w) that their images are padded to: (V, *padded) int64, `ignore` where
    unknown."""
    height, width = views.cameras.size
    if views.labels is None:
        return torch.full((len(views), *padded), ignore, device=views.images.device)
    return F.pad(views.labels, (0, padded[1] - width, 0, padded[0] - height), value=ignore)
