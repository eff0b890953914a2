"""The weights that come with the repository, and the config inside a file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from network.init_net import needs
from network.weights import Checkpoint, load_checkpoint
from train.settings import SCHEMA
from utils.config import complete_config
from utils.errors import UserError
from utils.files import find_file

FOLDER = "data/model/sray_plus"
MODEL = f"{FOLDER}/model.safetensors"
FLOOR = "floor"  # name of the class
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
    checkpoint = load_checkpoint(path)
    if checkpoint.config is None:
        raise UserError(f"{path}: has no config inside; name the one it was trained with (--cfg)")
    config = {"name": Path(path).resolve().parent.name, **_floor(checkpoint), **checkpoint.config}
    return complete_config(config, SCHEMA, overrides, str(path))


def _floor(checkpoint: Checkpoint) -> dict[str, int]:
    """Return `floor_class` as a default for weights that render surfaces and classes, one of them floors."""
    classes = checkpoint.classes or ()
    shows_it = checkpoint.config.get("sampler") == "surfaces" and checkpoint.config.get("render_label", True)
    return {"floor_class": classes.index(FLOOR)} if shows_it and FLOOR in classes else {}
