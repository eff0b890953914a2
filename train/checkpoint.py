"""Checkpoints of a run: written atomically, and loaded into networks that match fully or in part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from network.renderer import Renderer
from network.weights import Checkpoint, load_checkpoint
from train.class_layers import CLASS_LAYER, CarriedOver, to_other_classes
from train.schedule import NEW_LAYERS, optimizer_state
from utils.config import plain
from utils.errors import UserError
from utils.files import atomic_write
from utils.logging import warn

# Entries of a NeuRay checkpoint that S-Ray has no use for.
NEURAY_EXTRAS = ("sph_fitter.",)


class Checkpoints:
    """The checkpoint files of a run: the latest, `keep` earlier ones, and the best. Each is written atomically."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self.latest, self.best = folder / "model.pth", folder / "model_best.pth"
        self._step: int | None = None  # step of the latest checkpoint, None if it is missing or cannot be read

    def earlier(self) -> list[Path]:
        """Return the earlier checkpoints that were kept, newest first."""
        return sorted(self.folder.glob("model_[0-9]*.pth"), reverse=True)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that can be read; None if there are no files. Raise UserError if all are
        unreadable."""
        errors = []
        for path in [path for path in (self.latest, *self.earlier()) if path.is_file()]:
            try:
                checkpoint = load_checkpoint(path)
            except UserError as error:
                errors.append(error)
                continue
            if errors:
                warn(f"{errors[0]}; goes back to {path.name}")
            else:
                self._step = checkpoint.step
            return checkpoint
        if errors:
            raise UserError(f"{errors[0]}; no earlier one can be read either. Remove it to start anew")
        return None

    def save(self, content: dict) -> None:
        """Write `content` as the latest checkpoint; the one before it becomes an earlier one."""
        if self.keep and self._step is not None and self._step != content["step"] and self.latest.is_file():
            earlier = self.folder / f"model_{self._step:08d}.pth"
            if not earlier.exists():
                _link(self.latest, earlier)
        save_checkpoint(self.latest, content)
        self._step = content["step"]
        for path in self.earlier()[self.keep :]:
            path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def checkpoint_content(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    samples: int,
    best: float,
    config: dict,
    classes: Sequence[str] = (),
    trained: nn.Module | None = None,
) -> dict:
    """Return the content of a checkpoint: the published entries, the config, the names of the classes, and the number
    of training samples used so far.

    trained: the network that training continues with, if `network` has averaged weights.
    """
    return {
        **({} if trained is None else {"trained_state_dict": trained.state_dict()}),
        "network_state_dict": network.state_dict(),
        "optimizer_state_dict": optimizer_state(optimizer),
        "step": step,
        "samples": samples,
        "best_para": float(best),
        "config": plain(config),
        "classes": list(classes),
    }


def save_checkpoint(path: Path, content: dict) -> None:
    """Write a checkpoint. An interrupted or failed write leaves the old file as it was."""
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's zip writer reports a full disk as one
            raise UserError(
                f"{path}: could not be written ({str(error).splitlines()[0]}); is the disk full? "
                "The previous file is unchanged"
            ) from None


@dataclass(frozen=True)
class LoadReport:
    """Parameters that were loaded, that the file lacks, and that only the file has. classes: of layers for other
    classes."""

    loaded: list[str]
    missing: list[str]
    left_over: list[str]
    classes: CarriedOver | None = None

    def __str__(self) -> str:
        def some(names):
            shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
            return f"{len(names)}" + (f" ({shown})" if names else "")

        loaded = f"loaded {len(self.loaded)}, missing {some(self.missing)}, left over {some(self.left_over)}"
        return loaded if self.classes is None else f"{loaded}; {self.classes}"


def load_pretrained(network: Renderer, checkpoint: Checkpoint, classes: Sequence[str] = ()) -> LoadReport:
    """Load the weights that a training starts from. Raise UserError for a checkpoint that does not fit.

    From a checkpoint of the same network or of NeuRay all parameters are loaded; from S-Ray into S-Ray+ those that
    match. classes: names of the network's classes; if those of the checkpoint differ, see `to_other_classes`.
    """
    checkpoint, carried = to_other_classes(network.state_dict(), checkpoint, classes)
    faithful = any(name.startswith("dist_decoder.") for name in checkpoint.network)
    if network.dist_decoder is None and faithful:
        report = load_matching(network, checkpoint)
    else:
        report = load_network(network, checkpoint, allow_new_layers=True)
    return replace(report, classes=carried)


def load_matching(network: nn.Module, checkpoint: Checkpoint) -> LoadReport:
    """Load the parameters of another network whose names and shapes match, such as those of S-Ray into S-Ray+.

    Raise UserError if none match.
    """
    own, theirs = network.state_dict(), checkpoint.network
    loaded = [name for name, value in own.items() if name in theirs and theirs[name].shape == value.shape]
    if not loaded:
        raise UserError(f"{checkpoint.path}: has no parameter that agrees with the network of this config")
    network.load_state_dict({name: theirs[name] for name in loaded}, strict=False)
    taken = set(loaded)
    return LoadReport(
        loaded=loaded,
        missing=[name for name in own if name not in taken],
        left_over=[name for name in theirs if name not in taken],
    )


def load_network(network: nn.Module, checkpoint: Checkpoint, allow_new_layers: bool = False) -> LoadReport:
    """Load all parameters of a checkpoint. allow_new_layers: S-Ray's own layers may be missing, and NeuRay's extra
    entries left over. Raise UserError for any other difference; the network is then unchanged."""
    own = network.state_dict()
    theirs = checkpoint.network
    _require_same_classes(own, checkpoint)
    report = LoadReport(
        loaded=[name for name in own if name in theirs],
        missing=[name for name in own if name not in theirs],
        left_over=[name for name in theirs if name not in own],
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
    if CLASS_LAYER in own and CLASS_LAYER in checkpoint.network:
        theirs, ours = len(checkpoint.network[CLASS_LAYER]) - 1, len(own[CLASS_LAYER]) - 1
        if theirs == ours:
            return
        raise UserError(
            f"{checkpoint.path}: was trained for {theirs} classes, but the config asks for {ours} (num_classes)"
        )
