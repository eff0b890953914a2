"""Capabilities of a device."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt


def has_bf16(device: torch.device) -> bool:
    """Return whether it computes with bfloat16 in hardware: NVIDIA's GPUs from 2020 on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@functools.cache
def runs_triton(device: torch.device) -> bool:
    """Return whether our Triton kernels, and those that torch.compile makes, run there.

    They need tensor cores as of 2020, Triton, and a C compiler for the code that launches them.
    """
    return has_bf16(device) and importlib.util.find_spec("triton") is not None and _has("CC", "cc", "gcc", "clang")


def compiles_for_cpu() -> bool:
    """Return whether torch.compile has the C++ compiler that it needs for a CPU."""
    return _has("CXX", "g++", "clang++")


def _has(variable: str, *programs: str) -> bool:
    """Return whether one of the programs is there, or an environment variable names another one."""
    return bool(os.environ.get(variable)) or any(shutil.which(program) for program in programs)


@functools.cache
def keep_freed_memory() -> None:
    """Make this process keep from here on the memory that CPU tensors free, for the next ones.

    glibc would give large blocks back at once, and the system clear each new one page by page, which takes a quarter
    of the time that a CPU renders. Where there is no glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
