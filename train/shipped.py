"""The weights that come with the repository, and the config that a file of weights holds."""

from __future__ import annotations

from pathlib import Path

from easydict import EasyDict

from dataset.render_dataset import has_depth
from network.weights import load_checkpoint
from train.settings import SCHEMA
from utils.config import complete_config, load_config
from utils.errors import UserError
from utils.files import find_file

FOLDER = "data/model/sray_plus"
MODEL = f"{FOLDER}/model.safetensors"
MODEL_WITHOUT_DEPTH = f"{FOLDER}/model_nodepth.safetensors"  # if there is one, for scenes without depth


def shipped_model(depth: bool) -> Path:
    """Return the file of weights for scenes with depth, or for those without. Raises UserError if it is not there."""
    for name in (MODEL,) if depth else (MODEL_WITHOUT_DEPTH, MODEL):
        try:
            return find_file(name)
        except UserError:
            continue
    raise UserError(
        f"{MODEL}: the weights that come with the repository are not there; restore the file, or name a model of your own "
        "(--model-path)"
    )


def model_config(path: Path, overrides: list[str] = ()) -> EasyDict:
    """Return the config inside a file of weights, with `key=value` overrides; its run is named like the file's folder.

    Raises UserError if there is no config in the file.
    """
    config = load_checkpoint(path).config
    if config is None:
        raise UserError(f"{path}: has no config inside; name the one it was trained with (--cfg)")
    return complete_config({"name": path.resolve().parent.name, **config}, SCHEMA, list(overrides), str(path))


def choose_model(
    cfg_path: str | None, model_path: str | None, scene: str, overrides: list[str] = ()
) -> tuple[EasyDict, Path]:
    """Return the config and the file of weights to render a scene with.

    cfg_path: None for the config inside the file. model_path: None for the weights that come with the repository.
    """
    if cfg_path is None:
        cfg = complete_config({}, SCHEMA, list(overrides), "the command line")
    else:
        cfg = load_config(cfg_path, SCHEMA, overrides)
    model = shipped_model(has_depth(scene, cfg.data_root)) if model_path is None else Path(model_path)
    return (model_config(model, overrides) if cfg_path is None else cfg), model
