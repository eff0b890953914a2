"""Objects that all commands build from a config: device, run folder, network, test sets, colours of classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dataset.database import configured_scene, list_scenes
from dataset.few_labels import FewLabels
from dataset.render_dataset import TestSet
from dataset.scene import Scene
from network import renderer
from network.init_net import needs
from network.renderer import Renderer
from network.weights import Checkpoint, load_checkpoint
from train.checkpoint import load_network
from utils.colors import distinct_colors
from utils.config import plain
from utils.devices import keep_freed_memory
from utils.errors import UserError
from utils.logging import warn


def choose_device(cfg) -> torch.device:
    """Return the config's device, and make it the current one. Raise UserError if it is not available."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(
            f"`device`: '{name}' is not there; auto uses a GPU where there is one, cpu always works"
        ) from None
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)  # Triton launches kernels on the current device, not on that of their tensors
    return device


def run_folder(cfg) -> Path:
    """Return <output_root>/<name>, the folder of all files that a run writes."""
    if not cfg.name or cfg.name in (".", "..") or "/" in cfg.name:
        raise UserError(f"`name` should be a folder name, but is {cfg.name!r}")
    return Path(cfg.output_root) / cfg.name


def build_network(cfg, device, **parts) -> Renderer:
    """Build the network of a config, with weights drawn from its seed. parts: further arguments of `Renderer`."""
    torch.manual_seed(cfg.seed)
    return Renderer(cfg, **parts).to(device)


def load_trained(
    cfg, device, model_path: str, build: Callable[..., Renderer] = build_network
) -> tuple[Renderer, Checkpoint]:
    """Build the network of a config and load the weights of a checkpoint. Raise UserError if they do not fit; warn of
    keys that differ from the training's."""
    checkpoint = load_checkpoint(model_path)
    network = build(cfg, device)
    load_network(network, checkpoint)
    warn_of_other_settings(cfg, checkpoint)
    return network, checkpoint


def test_sets(cfg, validating: bool = False) -> list[TestSet]:
    """Return the test sets of `val_set_list`. validating: with the frames of `validation_frames` in place of the test
    frames.

    Raise UserError for classes that contradict the config.
    """
    needed, count, labels = needs(cfg), cfg.train_dataset_cfg.min_wn, cfg.baselines
    reads_labels = labels or needed.known_labels
    sets = []
    for name in list_scenes(cfg.val_set_list, "val_set_list"):
        scene = configured_scene(name, cfg, needed.reads_depth)
        few = FewLabels.of(scene, cfg) if reads_labels else None
        split = scene.validation_split(cfg.validation_frames) if validating and cfg.validation_frames else None
        sets.append(TestSet(scene, count, needed, labels, few, split))
    require_classes(cfg, [test.scene for test in sets])
    return sets


def require_classes(cfg, scenes: list[Scene]) -> None:
    """Raise UserError unless all scenes with labels have the same classes, as many as the network predicts."""
    if cfg.ignore_label not in (None, cfg.num_classes):
        raise UserError(
            f"`ignore_label` is {cfg.ignore_label}, but the ignored class comes after the last one: {cfg.num_classes}"
        )
    labelled = [scene for scene in scenes if scene.labels is not None]
    for scene in labelled:
        if cfg.render_label and scene.labels.ignore != cfg.num_classes:
            raise UserError(f"{scene.name}: has {scene.labels.ignore} classes, but num_classes is {cfg.num_classes}")
        for number, (name, first) in enumerate(zip(scene.labels.names, labelled[0].labels.names, strict=False)):
            if name != first:
                raise UserError(
                    f"{scene.name}: its class {number} is '{name}', but '{first}' in {labelled[0].name}; "
                    "one run has one set of classes: map the labels before, or train on one of them"
                )


def class_names(scenes: list[Scene]) -> tuple[str, ...]:
    """Return the classes of the first scene that has labels; () if none has."""
    return next((scene.labels.names for scene in scenes if scene.labels is not None), ())


def require_classes_of(checkpoint: Checkpoint, scenes: list[Scene]) -> None:
    """Raise UserError if the class names of a scene differ from those in the checkpoint, where it has any."""
    for scene in scenes:
        ours = () if scene.labels is None else scene.labels.names
        for number, (name, theirs) in enumerate(zip(ours, checkpoint.classes or (), strict=False)):
            if name != theirs:
                raise UserError(
                    f"{scene.name}: its class {number} is '{name}', but {checkpoint.path} was trained with '{theirs}'; "
                    "map the labels before, or take a checkpoint of these classes"
                )


def class_colors(cfg, scenes: list[Scene]) -> np.ndarray:
    """Return the colours of the classes, (K+1, 3) uint8: `semantic_color_map`, or those of the first scene with
    labels."""
    if cfg.semantic_color_map is not None:
        try:
            colors = np.array(cfg.semantic_color_map, dtype=np.uint8)
        except (ValueError, OverflowError, TypeError):
            colors = np.empty(0)
        if colors.shape != (cfg.num_classes + 1, 3):
            raise UserError(f"`semantic_color_map` should be {cfg.num_classes + 1} colours of 3 numbers from 0 to 255")
        return colors
    known = next((scene.labels for scene in scenes if scene.labels is not None), None)
    return distinct_colors(cfg.num_classes + 1) if known is None else known.colors


def warn_of_other_settings(cfg, checkpoint: Checkpoint) -> None:
    """Warn of config keys of the network whose values differ from those that the checkpoint was trained with."""
    if checkpoint.config is None:
        return
    for key in (*renderer.DEFAULTS, "depth_range"):
        ours, theirs = plain(cfg[key]), checkpoint.config.get(key)
        if key not in renderer.UNTRAINED_KEYS and theirs is not None and ours != theirs:
            warn(f"{checkpoint.path} was trained with {key}: {theirs}, but the config says {ours}")
