"""Linear layers of rows: their inputs come in parts, and their products have the widths that a GPU is fast with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Linear(nn.Linear):
    """A linear layer of several inputs: `forward(*parts)` is that of the parts side by side, (..., C_i) -> (..., out).

    Parts that lack the first axis, the views, are the same for all of them: they are multiplied once, and the product
    is added for every view.
    """

    def __init__(self, *widths: int, out: int):
        """widths: of the parts."""
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
    """A linear layer of sums over the samples of rays, moved behind the sum: its bias counts as often as the weights do."""

    def forward(self, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """x: (R, C), sums with weights of which `total` (R, 1) is the sum -> (R, out), at least float32."""
        return wide(F.linear(x, self.weight)) + total * self.bias


class MLP(nn.Sequential):
    """Layers one after the other, of which the first takes several parts."""

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
    """Apply a linear layer to parts side by side. On a GPU zeros make all widths multiples of 8: matrix units are slow
    on others."""
    x, out = parts[0] if len(parts) == 1 else torch.cat(parts, -1), len(weight)
    columns, rows = (-x.shape[-1] % 8, -out % 8) if x.is_cuda else (0, 0)
    if columns:
        x = F.pad(x, (0, columns))
    if columns or rows:
        weight = F.pad(weight, (0, columns, 0, rows))
        bias = None if bias is None else F.pad(bias, (0, rows))
    return F.linear(x, weight, bias)[..., :out]


def untouched(network: nn.Module) -> bool:
    """Return True if no module of a network has hooks, a forward of its own, or computed weights.

    Only then may their weights be used without calling them.
    """
    return not any(
        "forward" in vars(module)
        or "parametrizations" in module._modules  # weights that are computed, as by a low-rank adapter
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in parts(network)
    )


def parts(network: nn.Module) -> list[nn.Module]:
    """Return a network and all modules in it. `network.modules()` also makes up names, which takes several times as long, and
    the host looks at all modules in every frame and step."""
    found = [network]
    for module in found:
        found += [part for part in module._modules.values() if part is not None]
    return found


def is_untouched(*networks: nn.Module) -> bool:
    """Return True if all networks are `untouched`. What is compiled is: `Backend.stages` sees to it, and a compiler cannot look."""
    return torch.compiler.is_compiling() or all(untouched(network) for network in networks)
