"""Arithmetic of the kernels: exponentials in few instructions, and products on tensor cores at two precisions.

A tile of activations has one of two types, and every function here follows it. float16: products are of float16 with
sums in float32, and what lies between two of them is computed two numbers at a time. float32: a product is made of three
of float16, to float32's precision.
"""

from __future__ import annotations

import os

from network.ops.language import tl, triton

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
LOG2_E, LN_2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)


@triton.jit
def _approximate(x, INSTRUCTION: tl.constexpr):
    return tl.inline_asm_elementwise(INSTRUCTION, "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def exp2(x):
    """Return 2^x; on a GPU by one instruction, which takes tiny results for 0, where `tl.exp2` spends three more on them."""
    return tl.exp2(x) if INTERPRETED else _approximate(x, "ex2.approx.ftz.f32 $0, $1;")


@triton.jit
def exp(x):
    return exp2(x * LOG2_E)


@triton.jit
def reciprocal(x):
    """Return 1 / x, off by a unit in the last place."""
    return 1 / x if INTERPRETED else _approximate(x, "rcp.approx.ftz.f32 $0, $1;")


@triton.jit
def log(x):
    return tl.log(x) if INTERPRETED else LN_2 * _approximate(x, "lg2.approx.ftz.f32 $0, $1;")


@triton.jit
def acos(x):
    """Return the angle whose cosine is x, off by 2e-8 rad at most (Abramowitz and Stegun, 4.4.46)."""
    size = tl.abs(x)
    total = -0.0012624911 * size + 0.0066700901
    total = total * size - 0.0170881256
    total = total * size + 0.0308918810
    total = total * size - 0.0501743046
    total = total * size + 0.0889789874
    total = total * size - 0.2145988016
    total = total * size + 1.5707963050
    angle = tl.sqrt(1 - size) * total
    return tl.where(x < 0, 3.141592653589793 - angle, angle)


@triton.jit
def softplus(x):
    return tl.where(x > 20, x, log(1 + exp(tl.minimum(x, 20.0))))


@triton.jit
def sigmoid(x):
    return reciprocal(1 + exp(-x))


@triton.jit
def elu(total, bias):
    """Return elu(total + bias), in bias's type; total is float32.

    In float16 eight instructions make two numbers; sums beyond float16's greatest number are taken for that.
    """
    if bias.dtype == tl.float32:
        x = total + bias
        result = tl.maximum(x, exp(tl.minimum(x, 0.0)) - 1)  # e^x - 1 is at least x
    elif INTERPRETED:  # with the roundings of what follows
        x = total.to(tl.float16) + bias
        power = exp(tl.minimum(x.to(tl.float32), 0.0)).to(tl.float16)
        result = tl.maximum(x, (power - 1).to(tl.float16))
    else:
        result = tl.inline_asm_elementwise(
            """{
            .reg .b32 x, y, factor, zero, minus_one;
            mov.b32 factor, 0xBDC5BDC5;  // -log2(e), twice
            mov.b32 zero, 0x80008000;
            mov.b32 minus_one, 0xBC00BC00;
            cvt.rn.satfinite.f16x2.f32 x, $2, $1;
            add.rn.f16x2 x, x, $3;
            fma.rn.relu.f16x2 y, x, factor, zero;
            neg.f16x2 y, y;
            ex2.approx.f16x2 y, y;
            add.rn.f16x2 y, y, minus_one;
            max.f16x2 $0, x, y;
            }""",
            "=r,r,r,r", [total, tl.broadcast_to(bias, total.shape)], dtype=tl.float16, is_pure=True, pack=2,
        )  # fmt: skip
    return result


@triton.jit
def split(x):
    """Split x, float32, into a float16 and what that lacks, a float16 again: together they have float32's precision."""
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def dot(a, b, total, b_low):
    """total plus the product of a and b, float32.

    a float16: b is float16. a float32: b is float16 as well, and b_low what it lacks. Three products of halves (the fourth is
    too small to count) make one to float32's precision; the tensor cores' own float32 has ten bits.
    """
    if a.dtype == tl.float16:
        product = tl.dot(a, b, total)
    else:
        high, low = split(a)
        # The small ones first. (Also, the other way round ptxas 12.8 spoils an address, and the kernel ends.)
        product = tl.dot(low, b, total)
        product = tl.dot(high, b_low, product)
        product = tl.dot(high, b, product)
    return product


@triton.jit
def choose(which, x):
    """Return the product of `which` (N, K), float16 of 0 and 1, and x (K, C): sums of chosen rows, float32."""
    if x.dtype == tl.float16:
        product = tl.dot(which, x)
    else:
        high, low = split(x)
        product = tl.dot(which, high, tl.dot(which, low))
    return product
