"""What a device can do."""

from __future__ import annotations

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether it computes with bfloat16 in hardware: NVIDIA's GPUs from 2020 on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
