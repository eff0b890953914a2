"""Attention over the samples of a ray or over the views of a sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from network.linear import is_untouched
from network.ops import NO_KERNELS, Kernels
from network.ops.attention import attention, attention_kernel, kernel_takes


def sine_encoding(length: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Return the position encoding (length, width) of "Attention is all you need", section 3.5, positions from 0."""
    position = torch.arange(length, dtype=torch.float64, device=device)[:, None]
    column = torch.arange(width, device=device)
    angle = position / 10000 ** (2 * (column // 2) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def first_places(table: torch.Tensor, length: int) -> torch.Tensor:
    """Return the encoding of `length` positions, (length, width), from a precomputed table if it is long enough.

    Without the table torch.compile would fuse its computation in float64 into the kernels that add it to every row.
    """
    return table[:length] if length <= len(table) else sine_encoding(length, table.shape[1], table.device)


class Projection(nn.Linear):
    """A linear layer without bias whose result can be stored with channels first."""

    def __init__(self, width: int, out: int):
        super().__init__(width, out, bias=False)

    def forward(self, x: torch.Tensor, channels_first: bool = False) -> torch.Tensor:
        return project(x, self.weight, channels_first)


def project(x: torch.Tensor, weight: torch.Tensor, channels_first: bool) -> torch.Tensor:
    """Return x (…, C) times the transpose of weight (out, C): (…, out). channels_first: memory layout of the result."""
    if not channels_first:
        return F.linear(x, weight)
    return (weight @ x.flatten(0, -2).T).T.view(*x.shape[:-1], -1)


class SelfAttention(nn.Module):
    """Multi-head self-attention with a residual and a layer norm: (A, B, width) -> (A, B, width).

    along: sequences run along the second axis; otherwise along the first.
    """

    kernels: Kernels = NO_KERNELS

    def __init__(self, width: int, along: bool, heads: int = 4, head_width: int = 4):
        super().__init__()
        self.along, self.heads = along, heads
        inner = heads * head_width
        self.w_qs = Projection(width, inner)
        self.w_ks = Projection(width, inner)
        self.w_vs = Projection(width, inner)
        self.fc = nn.Linear(inner, width, bias=False)
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor, query_mask: torch.Tensor) -> torch.Tensor:
        """query_mask: (A', B), A a multiple of A', 0 where a query attends uniformly to all.

        The published network masks query rows instead of keys; a zero query has the same uniform attention.
        """
        channels_first = not self.along and not x.is_cuda  # the layout that is fastest in torch on a CPU
        qkv = self._project(x, channels_first)
        in_kernel = self.kernels.attention and kernel_takes(qkv, self.heads, self.along)
        attend = attention_kernel if in_kernel else attention
        attended = attend(qkv, query_mask.to(x.dtype), self.heads, self.along)
        return self.layer_norm(self.fc(attended) + x).to(x.dtype)  # under autocast it would be float32

    def _project(self, x: torch.Tensor, channels_first: bool) -> torch.Tensor:
        """Return queries, keys and values side by side, (A, B, 3 inner), by one product if their layers are
        unmodified."""
        layers = self.w_qs, self.w_ks, self.w_vs
        if all(type(layer) is Projection for layer in layers) and is_untouched(*layers):
            return project(x, torch.cat([layer.weight for layer in layers]), channels_first)
        return torch.cat([layer(x, channels_first) for layer in layers], -1)
