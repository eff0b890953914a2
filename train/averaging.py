"""Exponential moving average of the weights over training, which renders better than the weights of the last step."""

from __future__ import annotations

import copy

import torch
from torch import nn

from utils.config import Setting

DEFAULTS = {
    # decay per step of the moving average of the weights, which is validated and saved; 0: no averaging
    "ema_decay": Setting(0.0, float, minimum=0, maximum=0.99999)
}


class AveragedWeights:
    """A copy of a network with averaged weights (Polyak and Juditsky 1992).

    The decay after t steps is at most (1 + t) / (10 + t), so that the first steps are forgotten soon.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network, self.decay = copy.deepcopy(network).requires_grad_(False), decay
        own, theirs = self.network.state_dict(), network.state_dict()  # views of the networks' memory
        weights = [name for name in own if own[name].is_floating_point()]
        self._own, self._theirs = [own[name] for name in weights], [theirs[name] for name in weights]
        self._counters = [(own[name], theirs[name]) for name in own if name not in weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step `step` (from 0) to the average, without waiting for the device."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._own, self._theirs, 1 - decay)
        for own, theirs in self._counters:
            own.copy_(theirs)

    def restart(self, weights: dict[str, torch.Tensor] | None, network: nn.Module) -> None:
        """Set the average to `weights`; None: to the weights of the trained network."""
        self.network.load_state_dict(network.state_dict() if weights is None else weights)
