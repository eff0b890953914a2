"""Losses: what was rendered, what is there -> a number."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def color_loss(color: torch.Tensor, target: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """Squared error summed over channels (R, 3), mean over the scored rays (R,) bool; 0 if there are none."""
    error = (color - target).square().sum(-1)
    return (error * scored).sum() / scored.sum().clamp_min(1)


def semantic_loss(logits: torch.Tensor, target: torch.Tensor, ignore: int) -> torch.Tensor:
    """Cross entropy of logits (R, K+1) where target (R,) is not `ignore`; 0 if it is everywhere."""
    total = F.cross_entropy(logits, target, ignore_index=ignore, reduction="sum")
    return total / (target != ignore).sum().clamp_min(1)
