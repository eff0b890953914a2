"""Attention over the samples of a ray or over the views of a sample."""

from __future__ import annotations

import torch
from torch import nn

HEADS, HEAD_WIDTH = 4, 4


def sine_encoding(length: int, width: int) -> torch.Tensor:
    """Position encoding (length, width) of "Attention is all you need", section 3.5, positions from 0."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    column = torch.arange(width)
    angle = position / 10000 ** (2 * (column // 2) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


class SelfAttention(nn.Module):
    """Multi-head self-attention with a residual and a layer norm: (..., L, width) -> (..., L, width)."""

    def __init__(self, width: int):
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.w_qs = nn.Linear(width, inner, bias=False)
        self.w_ks = nn.Linear(width, inner, bias=False)
        self.w_vs = nn.Linear(width, inner, bias=False)
        self.fc = nn.Linear(inner, width, bias=False)
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor, query_mask: torch.Tensor) -> torch.Tensor:
        """x: (..., L, width); query_mask: (..., L), broadcastable, False where a query attends uniformly to all.

        The published network masks query rows instead of keys; a zero query has the same uniform attention.
        """
        query = _split_heads(self.w_qs(x) * query_mask[..., None])
        key, value = _split_heads(self.w_ks(x)), _split_heads(self.w_vs(x))
        weights = torch.softmax(query @ key.transpose(-1, -2) / HEAD_WIDTH**0.5, -1)
        attended = (weights @ value).transpose(-2, -3).flatten(-2)
        return self.layer_norm(self.fc(attended) + x)


def _split_heads(x: torch.Tensor) -> torch.Tensor:
    """(..., L, HEADS * HEAD_WIDTH) -> (..., HEADS, L, HEAD_WIDTH)."""
    return x.unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(-2, -3)
