"""Reading of weights from checkpoints of this and other programs. No code in a file is executed."""

from __future__ import annotations

import _codecs
import json
import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from utils.errors import UserError
from utils.files import find_file

SAFETENSORS = ".safetensors"
LIGHTNING_PREFIX = "model."  # of MVSNet's published weights
# Published checkpoints hold their best metric as a numpy scalar. To rebuild one is safe.
_NUMPY_SCALARS = [
    (np._core.multiarray.scalar if hasattr(np, "_core") else np.core.multiarray.scalar, name)
    for name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
]
_NUMPY_NUMBERS = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
_SAFE = [*_NUMPY_SCALARS, np.dtype, *_NUMPY_NUMBERS, _codecs.encode]


@dataclass(frozen=True)
class Checkpoint:
    """Content of a weights file. config and classes (their names) are None in published files, optimizer in
    safetensors.

    trained: the weights to go on training with, where those of `network` are averages of them; else None.
    """

    path: Path
    network: dict[str, torch.Tensor]
    optimizer: dict[str, Any] | None
    step: int
    samples: int
    best: float
    config: dict | None
    classes: tuple[str, ...] | None = None
    trained: dict[str, torch.Tensor] | None = None

    @property
    def averaged(self) -> dict[str, torch.Tensor] | None:
        """Return the averaged weights, if the file has any."""
        return None if self.trained is None else self.network

    def as_trained(self) -> Checkpoint:
        """Return the same with the weights to go on training with as its network."""
        return self if self.trained is None else replace(self, network=self.trained)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, .pth or .safetensors, onto the CPU. Raise UserError for anything else."""
    path = Path(path)
    if path.suffix == SAFETENSORS:
        tensors, about = _read_safetensors(path)
        step = int(about.get("step", 0))
        return Checkpoint(
            path=path,
            network=tensors,
            optimizer=None,
            step=step,
            samples=step,
            best=float(about.get("best_para", 0)),
            config=json.loads(about["config"]) if "config" in about else None,
            classes=tuple(json.loads(about["classes"])) if "classes" in about else None,
        )
    content = read_pickle(path)
    if not isinstance(content, dict) or not isinstance(content.get("network_state_dict"), dict):
        other = isinstance(content, dict) and "state_dict" in content
        whose = "its `state_dict` is another program's, such as PyTorch Lightning" if other else "there is none"
        raise UserError(f"{path}: not a checkpoint of this network, which has a `network_state_dict` ({whose})")
    step = int(content.get("step", 0))
    return Checkpoint(
        path=path,
        network={unwrapped(name): value for name, value in content["network_state_dict"].items()},
        optimizer=content.get("optimizer_state_dict"),
        step=step,
        samples=int(content.get("samples", step)),
        best=float(content.get("best_para", 0.0)),
        config=content.get("config"),
        classes=tuple(content["classes"]) if content.get("classes") else None,
        trained=content.get("trained_state_dict"),
    )


def unwrapped(name: str) -> str:
    """Return a parameter's name without the prefixes of torch.compile (`_orig_mod.`) and DataParallel (`module.`)."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def read_mvsnet(path: Path) -> dict[str, torch.Tensor]:
    """Read MVSNet's weights by their names in `network.front_ends.mvsnet`, from the published Lightning checkpoint or
    safetensors."""
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)[0]
    content = read_pickle(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path}: not a checkpoint of MVSNet (it has no state_dict)")
    return {
        name.removeprefix(LIGHTNING_PREFIX): value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


def find_weights(key: str, name: str, without: str) -> Path:
    """Return the file that a config key names. Raise UserError if there is none; without: what happens if the key is
    null."""
    try:
        return find_file(name)
    except UserError:
        raise UserError(f"`{key}`: there is no file {name}; {key}=null {without}") from None


def read_pickle(path: Path) -> Any:
    """Read the content of a torch file: tensors, numbers, text and containers of them, and nothing else.

    Raise UserError if it is none, or holds anything that would have to be called.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if start != b"PK" and not start.startswith(b"\x80"):
        raise UserError(f"{path}: not a checkpoint")
    if start == b"PK" and _is_damaged(path):
        raise UserError(f"{path}: not a checkpoint, or cut short, or some of its bytes have changed")
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path}: holds code or objects besides tensors and numbers; it was not loaded") from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError):
        raise UserError(f"{path}: not a checkpoint, or cut short") from None


def _is_damaged(path: Path) -> bool:
    """Return whether a zip file, as torch writes it, differs from its checksums, which torch does not verify."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
        return True


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None


def _front_end(state: dict[str, torch.Tensor]) -> str:
    """Infer the front end from the first layer that is found: learned_depth has the layers of depth too."""
    layers = {"sweep_new.match.weight": "learned_depth", "depth_skip.0.weight": "depth"}
    return next((name for layer, name in layers.items() if f"init_net.{layer}" in state), "cost_volume")


def infer_config(state: dict[str, torch.Tensor]) -> dict:
    """Infer the config keys that follow from a state dict. The order of the attentions (ptrans_first) does not."""

    def aggregation(prefix: str) -> dict:
        return {"use_ptrans": f"{prefix}.agg_impl.point_attention_new.fc.weight" in state}

    semantic = state.get("agg_net.agg_impl.semantic_fc2_new.bias")
    config = {
        "init_net_type": _front_end(state),
        "use_hierarchical_sampling": "fine_agg_net.prob_embed.0.weight" in state,
        "dist_decoder_cfg": {"use_vis": "dist_decoder.vis_decoder.0.weight" in state},
        "fine_dist_decoder_cfg": {"use_vis": "fine_dist_decoder.vis_decoder.0.weight" in state},
        "agg_net_cfg": aggregation("agg_net"),
        "fine_agg_net_cfg": aggregation("fine_agg_net"),
    }
    return config if semantic is None else {**config, "num_classes": len(semantic) - 1}
