"""The weights that come with the repository, and the config inside a file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from network.init_net import needs
from network.weights import load_checkpoint
from train.settings import SCHEMA
from utils.config import complete_config
from utils.errors import UserError
from utils.files import find_file

FOLDER = "data/model/sray_plus"
MODEL = f"{FOLDER}/model.safetensors"
MODEL_WITHOUT_DEPTH = f"{FOLDER}/model_nodepth.safetensors"  # for scenes without depth, if MODEL needs depth


def shipped_model(depth: bool) -> Path:
    """Return the file of weights for scenes with, or without, depth. Raise UserError if it is missing."""
    model = _find(MODEL, "that come with the repository")
    if depth or not needs(model_config(model)).depth:
        return model
    return _find(MODEL_WITHOUT_DEPTH, "for scenes without depth")


def _find(name: str, which: str) -> Path:
    try:
        return find_file(name)
    except UserError:
        raise UserError(
            f"{name}: the weights {which} are not there; restore the file, or name a model of your own (--model-path)"
        ) from None


def model_config(path: str | Path, overrides: Sequence[str] = ()) -> EasyDict:
    """Return the config inside a file of weights, with `key=value` overrides. `name` is that of the file's folder.

    Raise UserError if the file has no config.
    """
    config = load_checkpoint(path).config
    if config is None:
        raise UserError(f"{path}: has no config inside; name the one it was trained with (--cfg)")
    return complete_config({"name": Path(path).resolve().parent.name, **config}, SCHEMA, overrides, str(path))
