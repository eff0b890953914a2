"""Posed images with their cameras, depth and labels, as typed values that travel from disk to network.

Arrays leave the loader in the smallest type that holds them (uint8 colour, uint16 depth, uint8
classes); `.to(device)` moves them and turns them into what the network computes with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch


class Tensors:
    """Base of frozen dataclasses of tensors: moves and pins all of them, in nested dataclasses and dictionaries too."""

    def _map(self, function):
        changes = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor | Tensors):
                changes[field.name] = function(value)
            elif isinstance(value, dict):
                changes[field.name] = {key: function(part) for key, part in value.items()}
        return replace(self, **changes)

    def to(self, device):
        """Return a copy on a device. The copy to a GPU is asynchronous if the memory is pinned."""
        return self._map(
            lambda value: (
                value.to(device, non_blocking=_is_gpu(device)) if isinstance(value, torch.Tensor) else value.to(device)
            )
        )

    def pin_memory(self):
        return self._map(lambda value: value.pin_memory())


class Rows(Tensors):
    """Tensors with a common first axis; an index is applied to all of them."""

    def __getitem__(self, which):
        return self._map(lambda tensor: tensor[which])


def _is_gpu(device) -> bool:
    return torch.device(device).type == "cuda"


@dataclass(frozen=True)
class Cameras(Rows):
    """V pinhole cameras that share an image size.

    poses: (V, 3, 4) world-to-camera, OpenCV axes, metres.
    Ks: (V, 3, 3) intrinsics in pixels of `size`, pixel centres at integers.
    depth_range: (V, 2) near and far in metres.
    size: (height, width) in pixels.
    """

    poses: torch.Tensor
    Ks: torch.Tensor
    depth_range: torch.Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.poses.shape[0]

    def one(self, index: int) -> Cameras:
        """Return camera `index` alone, as `Cameras` with V = 1."""
        part = slice(index, index + 1)
        return self[part]

    def centres(self) -> torch.Tensor:
        """Return camera centres in the world, (V, 3)."""
        return -(self.poses[:, :, :3] * self.poses[:, :, 3:]).sum(1)


@dataclass(frozen=True)
class Views(Tensors):
    """V posed images with what is known of them.

    images: (V, 3, h, w) uint8, or float in [0, 1] after `.to(device)`.
    depth: (V, 1, h, w) uint16 millimetres, or float metres after `.to(device)`; 0 where unknown.
    labels: (V, h, w) uint8 classes, or int64 after `.to(device)`; `K` where ignored.
    mask: (V, 1, h, w) uint8, 0 where the image is invalid (outside of an undistorted image, a person).
    sources: neighbouring views of each view, for front ends that predict depth by matching.
    complete: whether depth is known everywhere; None: not determined.
    A field is None if the scene does not have it or it was not read.
    """

    cameras: Cameras
    images: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    sources: Sources | None = None
    complete: bool | None = None

    def __len__(self) -> int:
        return len(self.cameras)

    def to(self, device) -> Views:
        """Move everything to `device` and convert storage types to those that the network computes with."""
        moved = super().to(device)
        changes = {}
        if moved.images is not None and moved.images.dtype == torch.uint8:
            changes["images"] = moved.images.contiguous().float() / 255
        if moved.depth is not None and moved.depth.dtype == torch.uint16:
            changes["depth"] = moved.depth.float() / 1000
        if moved.labels is not None:
            changes["labels"] = moved.labels.long()
        if moved.mask is not None:
            changes["mask"] = moved.mask.float()
        return replace(moved, **changes)


@dataclass(frozen=True)
class Sources(Tensors):
    """Neighbours of V views. views: N of them. index: (V, n), those of each of the V views."""

    views: Views
    index: torch.Tensor


@dataclass(frozen=True)
class Batch(Tensors):
    """Q query views (one except in training), their references, and the pixels of the queries to render.

    pixels: (Q, N, 2) integer x, y; None for all of them.
    scene, frame: of the (first) query, for messages and file names.
    problems: errors of unreadable samples that this one replaces.
    labelled: the nearest frames that have labels, for baselines with `few_labels`; else None.
    """

    references: Views
    query: Views
    pixels: torch.Tensor | None
    scene: str
    frame: str
    problems: tuple[str, ...] = ()
    labelled: Views | None = None
