"""Linear layers whose input comes in several parts, with products padded to widths that are fast on a GPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Linear(nn.Linear):
    """A linear layer of several inputs: `forward(*parts)` applies it to their concatenation, (..., C_i) -> (..., out).

    Parts without the first axis (the views) are shared by all views: they are multiplied once, and the product is added
    to every view.
    """

    def __init__(self, *widths: int, out: int):
        """widths: channels of each part."""
        super().__init__(sum(widths), out)
        self.widths = widths

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        axes = max(part.dim() for part in parts)
        own = [part.dim() == axes for part in parts]
        if all(own):
            return product(parts, self.weight, self.bias)
        columns = self.weight.split(self.widths, 1)

        def added(wanted: bool, bias: torch.Tensor | None) -> torch.Tensor:
            chosen = [i for i, is_own in enumerate(own) if is_own == wanted]
            return product([parts[i] for i in chosen], torch.cat([columns[i] for i in chosen], 1), bias)

        return added(True, self.bias) + added(False, None)


class RayLinear(nn.Linear):
    """A linear layer applied after a weighted sum over the samples of a ray instead of before it: the bias is
    multiplied by the sum of the weights."""

    def forward(self, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """x: (R, C), sums with weights of which `total` (R, 1) is the sum -> (R, out), at least float32."""
        return wide(F.linear(x, self.weight)) + total * self.bias


class MLP(nn.Sequential):
    """A sequence of layers whose first one takes several parts."""

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        first, *others = self
        x = first(*parts)
        for layer in others:
            x = layer(x)
        return x


def wide(x: torch.Tensor) -> torch.Tensor:
    """Convert to at least float32."""
    return x if x.dtype == torch.float64 else x.float()


def product(parts, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Apply a linear layer to the concatenation of parts. On a GPU all widths are padded to multiples of 8, as tensor
    cores need."""
    x, out = parts[0] if len(parts) == 1 else torch.cat(parts, -1), len(weight)
    columns, rows = (-x.shape[-1] % 8, -out % 8) if x.is_cuda else (0, 0)
    if columns:
        x = F.pad(x, (0, columns))
    if columns or rows:
        weight = F.pad(weight, (0, columns, 0, rows))
        bias = None if bias is None else F.pad(bias, (0, rows))
    return F.linear(x, weight, bias)[..., :out]


def untouched(network: nn.Module) -> bool:
    """Return True if no module of a network has hooks, a replaced forward, or parametrized weights.

    Only then may weights be used without calling the modules that own them.
    """
    return not any(
        "forward" in vars(module)
        or "parametrizations" in module._modules  # such as a low-rank adapter
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in parts(network)
    )


def parts(network: nn.Module) -> list[nn.Module]:
    """Return a network and all modules in it. `network.modules()` builds names too and is several times slower, which
    matters since all modules are checked in every frame and step."""
    found = [network]
    for module in found:
        found += [part for part in module._modules.values() if part is not None]
    return found


def is_untouched(*networks: nn.Module) -> bool:
    """Return True if all networks are `untouched`. While compiling they are: `Backend.stages` has checked it."""
    return torch.compiler.is_compiling() or all(untouched(network) for network in networks)
