"""Bilinear reading of maps between their pixels, as rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def read_rows(
    maps: torch.Tensor, pixels: torch.Tensor, mask: torch.Tensor, image_size: tuple[int, int], align_corners: bool
) -> torch.Tensor:
    """Apply `geometry.read_map` to maps with channels last (V, H, W, C), times mask (V, N, 1): (V, N, C)."""
    count, height, width, channels = maps.shape
    index, weights = bilinear_corners((height, width), pixels, image_size, align_corners)
    index = index + (torch.arange(count, device=maps.device) * (height * width))[:, None, None]
    weights = (weights * mask).to(maps.dtype)
    index, weights, entries = index.view(-1, 4), weights.view(-1, 4), maps.reshape(-1, channels)
    if maps.is_cuda:  # compiled to one kernel; on a CPU it would be ten
        rows = sum(entries[index[:, i]] * weights[:, i : i + 1] for i in range(4))
    else:
        rows = F.embedding_bag(index, entries, mode="sum", per_sample_weights=weights)
    return rows.view(count, -1, channels)


def bilinear_corners(
    map_size: tuple[int, int], pixels: torch.Tensor, image_size: tuple[int, int], align_corners: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the four entries of a map (H * W) that a pixel (V, N, 2) lies between, and their weights: (V, N, 4) each."""
    (height, width), (image_height, image_width) = map_size, image_size
    # align_corners=False maps -1 and 1 to the outer borders of the outer pixels, True to their centres
    spread = 0 if align_corners else 1
    x = pixels[..., 0] * ((width - 1 + spread) / (image_width - 1)) - spread / 2
    y = pixels[..., 1] * ((height - 1 + spread) / (image_height - 1)) - spread / 2
    x = x.nan_to_num().clamp(0, width - 1)
    y = y.nan_to_num().clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    right_part, low_part = x - left, y - top
    left, top = left.long(), top.long()
    right, low = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    index = torch.stack([top * width + left, top * width + right, low * width + left, low * width + right], -1)
    weights = [
        (1 - low_part) * (1 - right_part),
        (1 - low_part) * right_part,
        low_part * (1 - right_part),
        low_part * right_part,
    ]
    return index, torch.stack(weights, -1)
