"""The layers of a network that have an entry for each class, carried over to other classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from network.weights import Checkpoint

CLASS_LAYER = "agg_net.agg_impl.semantic_fc2_new.bias"  # has an entry for each class, and one for "invalid"
# End of a parameter's name -> the axis whose last K+1 entries are the classes and "invalid".
CLASS_AXES = {
    "semantic_fc2_new.weight": 0,
    "semantic_fc2_new.bias": 0,
    "reference_classes_new.weight": 0,
    "reference_classes_new.bias": 0,
    "query_decoder_new.stem.weight": 1,
    "query_decoder_new.out.weight": 0,
    "query_decoder_new.out.bias": 0,
}
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class CarriedOver:
    """Of K classes: the layers that were fitted, the classes whose weights were taken over, and those that are new.

    The classes' names are empty where those of one side are unknown: then all are new.
    """

    layers: tuple[str, ...]
    kept: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    def __str__(self) -> str:
        classes = f"with {', '.join(self.kept)} as they were" if self.kept else "with all classes new"
        new = f" and {', '.join(self.new)} new" if self.kept and self.new else ""
        return f"fitted to other classes {', '.join(self.layers)}, {classes}{new}"


def to_other_classes(own: State, checkpoint: Checkpoint, names: Sequence[str]) -> tuple[Checkpoint, CarriedOver | None]:
    """Return a checkpoint for the classes of a network, whose parameters `own` are those of classes that are new.

    names: of the network's classes; () where they are unknown. Classes that the checkpoint names too keep their weights, and so
    does "invalid". The checkpoint as it is, and None, where both have the same classes as far as they say.
    """
    if CLASS_LAYER not in own or CLASS_LAYER not in checkpoint.network:
        return checkpoint, None
    ours, theirs = len(own[CLASS_LAYER]) - 1, len(checkpoint.network[CLASS_LAYER]) - 1
    known = checkpoint.classes or ()
    named = len(names) == ours and len(known) == theirs
    if ours == theirs and (not named or tuple(names) == tuple(known)):
        return checkpoint, None
    kept = [(i, known.index(name)) for i, name in enumerate(names) if name in known] if named else []
    network = dict(checkpoint.network)
    for name in [name for name in network if name in own]:
        axis = next((axis for end, axis in CLASS_AXES.items() if name.endswith(end)), None)
        if axis is not None:
            network[name] = _carry_over(own[name], network[name], axis, [*kept, (ours, theirs)], (ours, theirs))
    layers = tuple(
        dict.fromkeys(name.rpartition(".")[0] for name in network if network[name] is not checkpoint.network[name])
    )
    taken = {i for i, _ in kept}
    new = [name for i, name in enumerate(names) if i not in taken]
    carried = CarriedOver(layers, tuple(names[i] for i, _ in kept), tuple(new if named else ()))
    return replace(checkpoint, network=network), carried


def _carry_over(
    own: torch.Tensor, theirs: torch.Tensor, axis: int, kept: list[tuple[int, int]], counts: tuple[int, int]
) -> torch.Tensor:
    """Return `own` with what belongs to no class, and the classes `kept` (ours, theirs), from `theirs`; `theirs` itself where
    the two differ in more than their classes. counts: of the classes of both, without "invalid"."""
    first, their_first = own.shape[axis] - counts[0] - 1, theirs.shape[axis] - counts[1] - 1
    if first != their_first or own.ndim != theirs.ndim:
        return theirs
    others = [(i, i) for i in range(first)]
    to, source = torch.tensor([*others, *[(first + i, first + j) for i, j in kept]]).T
    rows = theirs.index_select(axis, source).to(own)
    if rows.select(axis, 0).shape != own.select(axis, 0).shape:
        return theirs
    return own.clone().index_copy_(axis, to.to(own.device), rows)
