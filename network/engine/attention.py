"""A whole layer of attention in one kernel, for rendering: no gradients. Its twin is `network.attention.SelfAttention`."""

from __future__ import annotations

import torch

from network.attention import SelfAttention
from network.ops.attention import ROWS, attended, find_rows, product
from network.ops.language import tl, triton


@triton.jit
def attend(tile, counts, group, there, matrices, norm, eps, PRECISION: tl.constexpr, WHOLE: tl.constexpr):
    """Apply `SelfAttention` to rows (M, C) among those of the same group that are there; queries times `counts`, of 0 and 1.

    WHOLE: all rows are there, and of one group.
    """
    C: tl.constexpr = tile.shape[1]
    wide, column = tl.arange(0, C), tl.arange(0, 16)
    inward = matrices + wide[:, None] * 16 + column[None, :]
    q = product(tile, tl.load(inward), PRECISION) * counts[:, None]
    k = product(tile, tl.load(inward + C * 16), PRECISION)
    v = product(tile, tl.load(inward + C * 32), PRECISION)
    outward = tl.load(matrices + C * 48 + column[:, None] * C + wide[None, :])
    result = attended(q, k, v, group, there, PRECISION, WHOLE)
    tile += product(result, outward, PRECISION)
    tile -= (tl.sum(tile, 1) / C)[:, None]
    deviation = tl.sqrt(tl.sum(tile * tile, 1) / C + eps)
    return tile / deviation[:, None] * tl.load(norm + wide)[None, :] + tl.load(norm + C + wide)[None, :]


@triton.jit
def _layer_kernel(
    x, encoding, mask, matrices, norm, need, blending, out, count, length, other, masks, eps,
    C: tl.constexpr, ENCODED: tl.constexpr, POOLED: tl.constexpr,
    ALONG: tl.constexpr, PADDED: tl.constexpr, M: tl.constexpr, PRECISION: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    group, place, at, first, second, there = find_rows(tl.program_id(0), count, length, other, ALONG, PADDED, M)
    wide = tl.arange(0, C)
    sequence = tl.program_id(0) * (M // PADDED) + tl.arange(0, M // PADDED)
    if POOLED:  # sequences that nobody needs are left as they are
        wanted = tl.load(need + sequence, sequence < count, 0)
        if tl.max(wanted.to(tl.int32), 0) == 0:
            return
    tile = tl.load(x + at[:, None] * C + wide[None, :], there[:, None], 0.0).to(tl.float32)
    if ENCODED:
        tile += tl.load(encoding + place[:, None] * C + wide[None, :], there[:, None], 0.0)
    counts = tl.load(mask + (first % masks) * other + second, there, 0).to(tl.float32)
    tile = attend(tile, counts, group, there, matrices, norm, eps, PRECISION, WHOLE)
    if POOLED:
        tile *= tl.load(blending + at, there, 0.0)[:, None]
        pooled = tl.sum(tl.reshape(tile, (M // PADDED, PADDED, C)), 1)
        tl.store(out + sequence[:, None] * C + wide[None, :], pooled, (sequence < count)[:, None])
    else:
        tl.store(out + at[:, None] * C + wide[None, :], tile.to(out.dtype.element_ty), there[:, None])


class Layer:
    """A `SelfAttention` with its weights as the kernel reads them; only renders."""

    def __init__(self, attention: SelfAttention, dtype: torch.dtype):
        """dtype: float32 for products to its precision, or float16 for fast ones."""
        inward = [attention.w_qs.weight, attention.w_ks.weight, attention.w_vs.weight]
        parts = [*[weight.T.reshape(-1) for weight in inward], attention.fc.weight.T.reshape(-1)]
        self.matrices = torch.cat(parts).detach().float()
        self.precision = "float16" if dtype == torch.float16 else "float32"
        self.norm = torch.cat([attention.layer_norm.weight, attention.layer_norm.bias]).detach().float()
        self.eps = attention.layer_norm.eps

    def __call__(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        along: bool,
        encoding: torch.Tensor | None = None,
        blending: torch.Tensor | None = None,
        need: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x (A, B, C), which is overwritten; mask (A', B) and `along` as in `ops.attention`; encoding (B, C) is added to x.

        With blending (A, B) and need (B,) of 0 and 1 the rows are summed over A by these weights: float32 (B, C), of
        which rows that are not needed may be anything finite.
        """
        first, second, channels = x.shape
        count, length = (first, second) if along else (second, first)
        padded = triton.next_power_of_2(length)
        rows = max(ROWS, padded)
        pooled = blending is not None
        out = x.new_zeros(second, channels, dtype=torch.float32) if pooled else x
        nothing = self.norm
        _layer_kernel[(triton.cdiv(count, rows // padded),)](
            x, nothing if encoding is None else encoding, mask, self.matrices, self.norm,
            need if pooled else nothing, blending if pooled else nothing, out,
            count, length, second, mask.shape[0], self.eps,
            C=channels, ENCODED=encoding is not None, POOLED=pooled, ALONG=along, PADDED=padded, M=rows,
            PRECISION=self.precision, WHOLE=length == rows,
        )  # fmt: skip
        return out
