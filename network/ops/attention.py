"""Attention over many short sequences with narrow heads.

The kernel is for four heads of width 4. A program takes 64 rows (or one longer sequence): as many whole sequences as
fit. Rows of other sequences are masked, and so are, head by head, the columns of other heads: all is products of 16
columns and more, which tensor cores take. The weights are computed again in the backward pass instead of being kept.
"""

from __future__ import annotations

import torch

from network.ops.arithmetic import LOG2_E, exp2, split
from network.ops.language import tl, triton

KERNEL_HEADS, KERNEL_INNER = 4, 16
ROWS = 64
LONGEST = 128  # longer sequences do not fit in registers


def attention(qkv: torch.Tensor, query_mask: torch.Tensor, heads: int, along: bool) -> torch.Tensor:
    """Return multi-head attention (A, B, C) of queries, keys and values side by side, (A, B, 3 C), C = heads * width.

    query_mask: (A', B) of 0 and 1, A a multiple of A': 0 makes a query attend uniformly. along: sequences run along the
    second axis; otherwise along the first. Written out: torch's own is up to three times slower for such heads on a CPU.
    """
    query, key, value = qkv.chunk(3, -1)
    scale = (query.shape[-1] // heads) ** -0.5
    query = (query.unflatten(0, (-1, len(query_mask))) * (query_mask * scale)[..., None]).flatten(0, 1)
    return (_along if along else _across)(query, key, value, heads)


def _along(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return (torch.softmax(query @ key.transpose(-1, -2), -1) @ value).transpose(1, 2).flatten(-2)


def _across(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Attend for all B side by side: there are few A."""
    query, key, value = (x.permute(2, 0, 1).unflatten(0, (heads, -1)) for x in (query, key, value))
    weights = torch.softmax((query[:, :, :, None] * key[:, :, None]).sum(1), 2)  # (heads, A, A, B)
    return (weights[:, None] * value[:, :, None]).sum(3).flatten(0, 1).permute(1, 2, 0)


def kernel_takes(qkv: torch.Tensor, heads: int, along: bool) -> bool:
    """Return whether `attention_kernel` was written for such queries, keys and values."""
    length = qkv.shape[1] if along else qkv.shape[0]
    return (heads, qkv.shape[-1]) == (KERNEL_HEADS, 3 * KERNEL_INNER) and length <= LONGEST


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """Compute a product in Triton's own precisions; in "float16"; or in "float32", to its precision by three of
    float16 (see `arithmetic.dot`), which gradients are too small for."""
    if PRECISION == "float16":
        product = tl.dot(a.to(tl.float16), b.to(tl.float16))
    elif PRECISION == "float32":
        high_a, low_a = split(a)
        high_b, low_b = split(b)
        product = tl.dot(high_a, high_b, tl.dot(low_a, high_b, tl.dot(high_a, low_b)))
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


@triton.jit
def find_rows(pid, count, length, other, ALONG: tl.constexpr, PADDED: tl.constexpr, M: tl.constexpr):
    """Return of each of M rows its sequence in this program, its place among all rows of the tensor, and if it is there."""
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
    """Return one head's attention among rows of the same group, (M, M), before it is divided by its sums over the
    columns, their reciprocals, and which columns are the head's. WHOLE: all rows are there, and of one group."""
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
    """Return the softmax of one head's scores (M, M), and which columns are the head's."""
    powers, scale, mine = _powers(q, k, head, group, there, PRECISION, WHOLE)
    return powers * scale, mine


@triton.jit
def attended(q, k, v, group, there, PRECISION: tl.constexpr, WHOLE: tl.constexpr):
    """Return the values of all heads, weighted by each one's attention: (M, 16)."""
    result = tl.zeros([q.shape[0], 16], tl.float32)
    for head in tl.static_range(4):
        powers, scale, mine = _powers(q, k, head, group, there, PRECISION, WHOLE)
        result += product(powers, tl.where(mine, v, 0.0), PRECISION) * scale
    return result


@triton.jit
def _load(qkv, mask, at, first, second, there, masks, other):
    here = at[:, None] * 48 + tl.arange(0, 16)[None, :]
    q = tl.load(qkv + here, there[:, None], 0.0).to(tl.float32)
    k = tl.load(qkv + here + 16, there[:, None], 0.0).to(tl.float32)
    v = tl.load(qkv + here + 32, there[:, None], 0.0).to(tl.float32)
    counts = tl.load(mask + (first % masks) * other + second, there, 0.0).to(tl.float32)
    return q * counts[:, None], k, v, counts


@triton.jit
def _forward_kernel(
    qkv, mask, out, count, length, other, masks,
    ALONG: tl.constexpr, PADDED: tl.constexpr, M: tl.constexpr, PRECISION: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    group, _, at, first, second, there = find_rows(tl.program_id(0), count, length, other, ALONG, PADDED, M)
    q, k, v, _ = _load(qkv, mask, at, first, second, there, masks, other)
    result = attended(q, k, v, group, there, PRECISION, WHOLE)
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
    here = at[:, None] * 48 + column[None, :]
    kind = grad_qkv.dtype.element_ty
    tl.store(grad_qkv + here, (grad_q * counts[:, None]).to(kind), there[:, None])
    tl.store(grad_qkv + here + 16, grad_k.to(kind), there[:, None])
    tl.store(grad_qkv + here + 32, grad_v.to(kind), there[:, None])


def _launch(kernel, qkv: torch.Tensor, mask: torch.Tensor, others: list[torch.Tensor], along: bool) -> None:
    first, second, _ = qkv.shape
    count, length = (first, second) if along else (second, first)
    padded = triton.next_power_of_2(length)
    rows = max(ROWS, padded)
    kernel[(triton.cdiv(count, rows // padded),)](
        qkv, mask, *others, count, length, second, mask.shape[0],
        ALONG=along, PADDED=padded, M=rows, PRECISION="tf32" if qkv.dtype == torch.bfloat16 else "tf32x3",
        WHOLE=length == rows,
    )  # fmt: skip


@torch.library.custom_op("sray::attention", mutates_args=())
def _operation(qkv: torch.Tensor, mask: torch.Tensor, along: bool) -> torch.Tensor:
    out = qkv.new_empty(*qkv.shape[:2], KERNEL_INNER)
    _launch(_forward_kernel, qkv.contiguous(), mask.contiguous(), [out], along)
    return out


@_operation.register_fake
def _(qkv, mask, along):
    return qkv.new_empty(*qkv.shape[:2], KERNEL_INNER)


@torch.library.custom_op("sray::attention_backward", mutates_args=())
def _backward_operation(qkv: torch.Tensor, mask: torch.Tensor, grad: torch.Tensor, along: bool) -> torch.Tensor:
    grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    _launch(_backward_kernel, qkv.contiguous(), mask.contiguous(), [grad.contiguous(), grad_qkv], along)
    return grad_qkv


@_backward_operation.register_fake
def _(qkv, mask, grad, along):
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output):
    *tensors, ctx.along = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    return _backward_operation(*ctx.saved_tensors, grad, ctx.along), None, None


_operation.register_autograd(_differentiate, setup_context=_keep)


def attention_kernel(qkv: torch.Tensor, query_mask: torch.Tensor, heads: int, along: bool) -> torch.Tensor:
    """Run `attention` as a kernel, an operation that torch.compile knows. Only of what `kernel_takes`."""
    return _operation(qkv, query_mask, along)
