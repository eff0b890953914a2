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
    """Return whether the device supports bfloat16 in hardware: NVIDIA's GPUs from 2020 on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@functools.cache
def runs_triton(device: torch.device) -> bool:
    """Return whether Triton kernels, ours and those of torch.compile, run on the device.

    They need tensor cores of 2020 or later, Triton, and a C compiler for their launchers.
    """
    return has_bf16(device) and importlib.util.find_spec("triton") is not None and _has("CC", "cc", "gcc", "clang")


def compiles_for_cpu() -> bool:
    """Return whether torch.compile has the C++ compiler that it needs for a CPU."""
    return _has("CXX", "g++", "clang++")


def _has(variable: str, *programs: str) -> bool:
    """Return whether one of the programs is installed, or an environment variable names another one."""
    return bool(os.environ.get(variable)) or any(shutil.which(program) for program in programs)


@functools.cache
def keep_freed_memory() -> None:
    """Make this process keep memory that CPU tensors free, for later tensors. Without glibc this does nothing.

    By default glibc returns large blocks to the system at once, and the system clears each new block page by page: a
    quarter of the time of rendering on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
