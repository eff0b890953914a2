"""Averaged weights: an exponential moving average over the steps of training, which renders better than the last step's."""

from __future__ import annotations

import copy

import torch
from torch import nn

from utils.config import Setting

DEFAULTS = {
    # decay a step of the moving average of the weights, which is validated and saved; 0: the last step's weights
    "ema_decay": Setting(0.0, float, minimum=0, maximum=0.99999)
}


class AveragedWeights:
    """A copy of a network whose weights follow those of the one that is trained.

    Polyak and Juditsky 1992; the first steps, which would stay in the average for long, count less: after t steps the
    decay is at most (1 + t) / (10 + t).
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network, self.decay = copy.deepcopy(network).requires_grad_(False), decay
        own, theirs = self.network.state_dict(), network.state_dict()  # they share the networks' memory
        weights = [name for name in own if own[name].is_floating_point()]
        self._own, self._theirs = [own[name] for name in weights], [theirs[name] for name in weights]
        self._counters = [(own[name], theirs[name]) for name in own if name not in weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow what the `step`-th step from 0 has made of the weights. A few kernels, which wait for nothing."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._own, self._theirs, 1 - decay)
        for own, theirs in self._counters:
            own.copy_(theirs)

    def restart(self, weights: dict[str, torch.Tensor] | None, network: nn.Module) -> None:
        """Go on from averaged weights, or if there are none from those of the network that is trained."""
        self.network.load_state_dict(network.state_dict() if weights is None else weights)
