"""Adaptation of the layers that have an entry for each class to another set of classes."""

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
    """Layers that were adapted to other classes, classes whose weights were kept, and classes that are new.

    If the names of the classes are unknown on one side, kept and new are empty: all classes are new.
    """

    layers: tuple[str, ...]
    kept: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    def __str__(self) -> str:
        classes = f"with {', '.join(self.kept)} as they were" if self.kept else "with all classes new"
        new = f" and {', '.join(self.new)} new" if self.kept and self.new else ""
        return f"fitted to other classes {', '.join(self.layers)}, {classes}{new}"


def to_other_classes(own: State, checkpoint: Checkpoint, names: Sequence[str]) -> tuple[Checkpoint, CarriedOver | None]:
    """Return a checkpoint adapted to the classes of a network with parameters `own`, and a report.

    Classes that the checkpoint has too, by name, keep their weights, and so does "invalid"; new classes have those of
    `own`. names: of the network's classes; () if unknown. Return the checkpoint unchanged, and None, if the classes are
    the same as far as their names are known.
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
    """Return `own` with the entries that belong to no class, and those of the classes `kept`, copied from `theirs`.

    kept: pairs of class numbers (ours, theirs). counts: number of classes of both, without "invalid". Return `theirs`
    unchanged if the two differ in more than their classes.
    """
    first, their_first = own.shape[axis] - counts[0] - 1, theirs.shape[axis] - counts[1] - 1
    if first != their_first or own.ndim != theirs.ndim:
        return theirs
    others = [(i, i) for i in range(first)]
    to, source = torch.tensor([*others, *[(first + i, first + j) for i, j in kept]]).T
    rows = theirs.index_select(axis, source).to(own)
    if rows.select(axis, 0).shape != own.select(axis, 0).shape:
        return theirs
    return own.clone().index_copy_(axis, to.to(own.device), rows)
