"""Attention over many short sequences with heads of width 4, forward and backward.

A program takes 64 rows (or one longer sequence): as many whole sequences as fit. Rows of other sequences are masked,
and so are, head by head, the columns of other heads: all is products of 16 columns and more, which tensor cores take.
The weights are computed again in the backward pass instead of being kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from network.attention import HEAD_WIDTH, HEADS, SelfAttention
from network.kernels.arithmetic import LOG2_E, exp2, split

INNER = HEADS * HEAD_WIDTH
ROWS = 64
LONGEST = 128  # longer sequences do not fit in registers


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """A product in Triton's own precisions; in "half", float16; or in "halves", to float32's precision by three of
    float16 (see `arithmetic.dot`), which gradients are too small for."""
    if PRECISION == "half":
        product = tl.dot(a.to(tl.float16), b.to(tl.float16))
    elif PRECISION == "halves":
        high_a, low_a = split(a)
        high_b, low_b = split(b)
        product = tl.dot(high_a, high_b, tl.dot(low_a, high_b, tl.dot(high_a, low_b)))
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


@triton.jit
def find_rows(pid, count, length, other, ALONG: tl.constexpr, PADDED: tl.constexpr, M: tl.constexpr):
    """Of each of M rows: its sequence in this program, its place among all rows of the tensor, and if it is there."""
    row = tl.arange(0, M)
    group = row // PADDED
    place = row % PADDED
    sequence = pid * (M // PADDED) + group
    there = (sequence < count) & (place < length)
    first = sequence if ALONG else place
    second = place if ALONG else sequence
    return group, place, first.to(tl.int64) * other + second, first, second, there


@triton.jit
def _powers(q, k, head, group, there, PRECISION: tl.constexpr, WHOLE: tl.constexpr):
    """One head's attention among rows of the same group, (M, M), before it is divided by its sums over the columns, their
    reciprocals, and which columns are the head's. WHOLE: all rows are there, and of one group."""
    column = tl.arange(0, q.shape[1])
    mine = (column // 4 == head)[None, :]
    # half the product, as a power of 2
    scores = product(tl.where(mine, q * (0.5 * LOG2_E), 0.0), tl.trans(k), PRECISION)
    if not WHOLE:
        scores = tl.where((group[:, None] == group[None, :]) & there[None, :], scores, -1e30)
    powers = exp2(scores - tl.max(scores, 1)[:, None])
    return powers, (1 / tl.sum(powers, 1))[:, None], mine


@triton.jit
def _weights(q, k, head, group, there, PRECISION: tl.constexpr, WHOLE: tl.constexpr):
    """Softmax of one head's scores (M, M), and which columns are the head's."""
    powers, scale, mine = _powers(q, k, head, group, there, PRECISION, WHOLE)
    return powers * scale, mine


@triton.jit
def _attended(q, k, v, group, there, PRECISION: tl.constexpr, WHOLE: tl.constexpr):
    """The values of all heads, weighted by each one's attention: (M, 16)."""
    result = tl.zeros([q.shape[0], 16], tl.float32)
    for head in tl.static_range(4):
        powers, scale, mine = _powers(q, k, head, group, there, PRECISION, WHOLE)
        result += product(powers, tl.where(mine, v, 0.0), PRECISION) * scale
    return result


@triton.jit
def _load(qkv, mask, at, first, second, there, masks, other):
    column = tl.arange(0, 16)
    here = qkv + at[:, None] * 48 + column[None, :]
    q = tl.load(here, there[:, None], 0.0).to(tl.float32)
    k = tl.load(here + 16, there[:, None], 0.0).to(tl.float32)
    v = tl.load(here + 32, there[:, None], 0.0).to(tl.float32)
    counts = tl.load(mask + (first % masks) * other + second, there, 0.0).to(tl.float32)
    return q * counts[:, None], k, v, counts


@triton.jit
def _forward_kernel(
    qkv, mask, out, count, length, other, masks,
    ALONG: tl.constexpr, PADDED: tl.constexpr, M: tl.constexpr, PRECISION: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    group, _, at, first, second, there = find_rows(tl.program_id(0), count, length, other, ALONG, PADDED, M)
    q, k, v, _ = _load(qkv, mask, at, first, second, there, masks, other)
    result = _attended(q, k, v, group, there, PRECISION, WHOLE)
    column = tl.arange(0, 16)
    tl.store(out + at[:, None] * 16 + column[None, :], result.to(out.dtype.element_ty), there[:, None])


@triton.jit
def _backward_kernel(
    qkv, mask, grad, grad_qkv, count, length, other, masks,
    ALONG: tl.constexpr, PADDED: tl.constexpr, M: tl.constexpr, PRECISION: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    group, _, at, first, second, there = find_rows(tl.program_id(0), count, length, other, ALONG, PADDED, M)
    q, k, v, counts = _load(qkv, mask, at, first, second, there, masks, other)
    column = tl.arange(0, 16)
    g = tl.load(grad + at[:, None] * 16 + column[None, :], there[:, None], 0.0).to(tl.float32)
    grad_q = tl.zeros([M, 16], tl.float32)
    grad_k = tl.zeros([M, 16], tl.float32)
    grad_v = tl.zeros([M, 16], tl.float32)
    for head in tl.static_range(4):
        weights, mine = _weights(q, k, head, group, there, PRECISION, WHOLE)
        head_grad = tl.where(mine, g, 0.0)
        grad_v += product(tl.trans(weights), head_grad, PRECISION)
        grad_weights = product(head_grad, tl.trans(v), PRECISION)
        grad_scores = weights * (grad_weights - tl.sum(grad_weights * weights, 1)[:, None]) * 0.5
        grad_q += product(grad_scores, tl.where(mine, k, 0.0), PRECISION)
        grad_k += product(tl.trans(grad_scores), tl.where(mine, q, 0.0), PRECISION)
    here = grad_qkv + at[:, None] * 48 + column[None, :]
    kind = grad_qkv.dtype.element_ty
    tl.store(here, (grad_q * counts[:, None]).to(kind), there[:, None])
    tl.store(here + 16, grad_k.to(kind), there[:, None])
    tl.store(here + 32, grad_v.to(kind), there[:, None])


def _launch(kernel, qkv: torch.Tensor, mask: torch.Tensor, tensors: list[torch.Tensor], along: bool) -> None:
    first, second, _ = qkv.shape
    count, length = (first, second) if along else (second, first)
    padded = triton.next_power_of_2(length)
    rows = max(ROWS, padded)
    grid = (triton.cdiv(count, rows // padded),)
    kernel[grid](
        qkv, mask, *tensors, count, length, second, mask.shape[0],
        ALONG=along, PADDED=padded, M=rows, PRECISION="tf32" if qkv.dtype == torch.bfloat16 else "tf32x3",
        WHOLE=length == rows,
    )  # fmt: skip


def forward(qkv: torch.Tensor, mask: torch.Tensor, along: bool) -> torch.Tensor:
    """qkv (A, B, 48) queries, keys and values; mask (A', B) of 0 and 1 with A a multiple of A': 0 makes a query attend
    uniformly. Sequences run along the second axis, or else along the first. Returns (A, B, 16)."""
    qkv, mask = qkv.contiguous(), mask.contiguous()
    out = torch.empty_like(qkv[..., :INNER], memory_format=torch.contiguous_format)
    _launch(_forward_kernel, qkv, mask, [out], along)
    return out


def backward(qkv: torch.Tensor, mask: torch.Tensor, grad: torch.Tensor, along: bool) -> torch.Tensor:
    """The gradient with respect to `qkv`."""
    qkv, mask, grad = qkv.contiguous(), mask.contiguous(), grad.contiguous()
    grad_qkv = torch.empty_like(qkv)
    _launch(_backward_kernel, qkv, mask, [grad, grad_qkv], along)
    return grad_qkv


@torch.library.custom_op("sray::attention", mutates_args=())
def attention(qkv: torch.Tensor, mask: torch.Tensor, along: bool) -> torch.Tensor:
    """`forward` with a gradient. Its twin is `network.rewritten.short_attention`."""
    return forward(qkv, mask, along)


@attention.register_fake
def _(qkv, mask, along):
    return qkv.new_empty(*qkv.shape[:2], INNER)


@torch.library.custom_op("sray::attention_backward", mutates_args=())
def _attention_backward(qkv: torch.Tensor, mask: torch.Tensor, grad: torch.Tensor, along: bool) -> torch.Tensor:
    return backward(qkv, mask, grad, along)


@_attention_backward.register_fake
def _(qkv, mask, grad, along):
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output):
    qkv, mask, ctx.along = inputs
    ctx.save_for_backward(qkv, mask)


def _differentiate(ctx, grad):
    qkv, mask = ctx.saved_tensors
    return _attention_backward(qkv, mask, grad, ctx.along), None, None


attention.register_autograd(_differentiate, setup_context=_keep)


@triton.jit
def attend(tile, counts, group, there, matrices, norm, eps, PRECISION: tl.constexpr, WHOLE: tl.constexpr):
    """`SelfAttention` of rows (M, C) among those of the same group that are there; queries times `counts`, of 0 and 1.

    WHOLE: all rows are there, and of one group.
    """
    C: tl.constexpr = tile.shape[1]
    wide, column = tl.arange(0, C), tl.arange(0, 16)
    inward = matrices + wide[:, None] * 16 + column[None, :]
    q = product(tile, tl.load(inward), PRECISION) * counts[:, None]
    k = product(tile, tl.load(inward + C * 16), PRECISION)
    v = product(tile, tl.load(inward + C * 32), PRECISION)
    outward = tl.load(matrices + C * 48 + column[:, None] * C + wide[None, :])
    result = _attended(q, k, v, group, there, PRECISION, WHOLE)
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
    """A `SelfAttention` with its weights as the kernel reads them; only renders. Its twin is `rewritten.attend`."""

    def __init__(self, attention: SelfAttention, dtype: torch.dtype):
        """dtype: float32 for products to its precision, or float16 for fast ones."""
        inward = [attention.w_qs.weight, attention.w_ks.weight, attention.w_vs.weight]
        parts = [*[weight.T.reshape(-1) for weight in inward], attention.fc.weight.T.reshape(-1)]
        self.matrices = torch.cat(parts).detach().float()
        self.precision = "half" if dtype == torch.float16 else "halves"
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
        """x (A, B, C), which is overwritten; mask (A', B) and `along` as in `forward`; encoding (B, C) is added to x.

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
            C=channels, ENCODED=encoding is not None, POOLED=pooled, ALONG=along, PADDED=padded, M=rows, PRECISION=self.precision, WHOLE=length == rows,
        )  # fmt: skip
        return out
