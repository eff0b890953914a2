"""What a device can do."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether it computes with bfloat16 in hardware: NVIDIA's GPUs from 2020 on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def runs_triton(device: torch.device) -> bool:
    """Whether our Triton kernels, and those that torch.compile makes, run there.

    They need tensor cores as of 2020, Triton, and a C compiler for the code that launches them.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return has_bf16(device) and importlib.util.find_spec("triton") is not None and compiler is not None
