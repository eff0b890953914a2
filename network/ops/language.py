"""Triton where it is installed. Elsewhere files with kernels can be imported all the same, for their torch versions."""

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # not on this platform

    class _Absent:
        """Decorators and constants do nothing: `@triton.jit`, with or without arguments, and `tl.constexpr(3)`."""

        @staticmethod
        def jit(function=None, **_):
            return function if function is not None else lambda decorated: decorated

        @staticmethod
        def constexpr(value):
            return value

    triton = tl = _Absent()

__all__ = ["tl", "triton"]
