"""Checkpoints: written whole or not at all, and fitted into a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from network.weights import Checkpoint
from train.schedule import NEW_LAYERS
from utils.config import plain
from utils.errors import UserError
from utils.files import atomic_write

# Entries of a NeuRay checkpoint that S-Ray has no use for.
NEURAY_EXTRAS = ("sph_fitter.",)


def save_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, step: int, best: float, config: dict
) -> None:
    """Writes the published entries and the config; an interrupted or failed write leaves the old file as it was."""
    content = {
        "network_state_dict": network.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "step": step,
        "best_para": float(best),
        "config": plain(config),
    }
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's zip writer reports a full disk as one
            raise UserError(
                f"{path}: could not be written ({str(error).splitlines()[0]}); is the disk full? "
                "The file of before is still good"
            ) from None


@dataclass(frozen=True)
class LoadReport:
    """Names that were loaded, that the file lacks, and that it has besides."""

    loaded: list[str]
    missing: list[str]
    left_over: list[str]

    def __str__(self) -> str:
        def some(names):
            shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
            return f"{len(names)}" + (f" ({shown})" if names else "")

        return f"loaded {len(self.loaded)}, missing {some(self.missing)}, left over {some(self.left_over)}"


def load_network(network: nn.Module, checkpoint: Checkpoint, allow_new_layers: bool = False) -> LoadReport:
    """Loads a checkpoint's parameters, all of them; with `allow_new_layers` S-Ray's own may be missing and
    NeuRay's extras left over. Raises UserError for any other difference, and then changes nothing."""
    own = network.state_dict()
    theirs = checkpoint.network
    _require_same_classes(own, checkpoint)
    report = LoadReport(
        [name for name in own if name in theirs],
        [name for name in own if name not in theirs],
        [name for name in theirs if name not in own],
    )
    wrong = [
        f"{name} is {tuple(theirs[name].shape)} instead of {tuple(own[name].shape)}"
        for name in report.loaded
        if theirs[name].shape != own[name].shape
    ]
    wrong += [f"{name} is missing" for name in report.missing if not (allow_new_layers and NEW_LAYERS in name)]
    wrong += [
        f"{name} is not in this network"
        for name in report.left_over
        if not (allow_new_layers and name.startswith(NEURAY_EXTRAS))
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"{checkpoint.path}: does not fit the network of this config: {wrong[0]}{more}")
    network.load_state_dict({name: theirs[name] for name in report.loaded}, strict=False)
    return report


def _require_same_classes(own: dict[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    name = "agg_net.agg_impl.semantic_fc2_new.bias"
    if name in own and name in checkpoint.network and own[name].shape != checkpoint.network[name].shape:
        theirs, ours = len(checkpoint.network[name]) - 1, len(own[name]) - 1
        raise UserError(
            f"{checkpoint.path}: was trained for {theirs} classes, but the config asks for {ours} (num_classes)"
        )
