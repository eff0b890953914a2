"""A session: a trained network that renders views of one scene."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from easydict import EasyDict

from dataset.database import configured_scene
from dataset.labels import SCANNET_CLASSES, SCANNET_COLORS
from dataset.render_dataset import Needs, read_references
from dataset.scene import Scene
from dataset.view_selection import require_frames
from dataset.views import Cameras
from network.backend import Backend
from network.front_ends import at_size
from network.init_net import needs
from network.renderer import Renderer
from network.rendering import CLASSES, Encoding, RenderedView
from network.view_renderer import ViewRenderer
from network.weights import Checkpoint
from train.run import choose_device, class_colors, load_trained, require_classes, require_classes_of
from utils.config import plain
from utils.errors import UserError
from utils.logging import warn
from utils.recent import Recent
from viewing.references import Mix

ENCODINGS = 6  # sets of references whose encodings are cached


@dataclass(frozen=True)
class Classes:
    """names of K classes and "invalid"; colors (K+1, 3) uint8."""

    names: tuple[str, ...]
    colors: np.ndarray


class Session:
    """Renders views of a scene. Encodings of recent sets of references are cached."""

    def __init__(
        self,
        renderer: ViewRenderer,
        scene: Scene,
        needs: Needs,
        references: int,
        classes: Classes | None,
        origin: dict | None = None,
    ):
        """references: number of references of one view, at most that of the frames. classes: None for a network
        without. origin: identifies the network's weights and config."""
        require_frames(scene.name, len(scene), 1 if needs.depth else 2, "usable frames")
        if len(scene) < references:
            warn(f"{scene.name}: has {len(scene)} usable frames, so that {references} references cannot be used")
        self.renderer, self.scene, self.needs = renderer, scene, needs
        self.references = min(references, len(scene))
        self.classes, self.origin = classes, origin or {}
        self.device = renderer.device
        self._encodings: Recent[tuple[str, ...], Encoding] = Recent(ENCODINGS)

    @torch.no_grad()
    def render(self, camera: Cameras, mix: Mix) -> RenderedView:
        """Render one camera's view, on the device, from a mix of references."""
        camera = camera.to(self.device)
        parts = [(weight, self.renderer.render(self._encode(frames), camera)) for weight, frames in mix]
        return parts[0][1] if len(parts) == 1 else blend(parts)

    @torch.no_grad()
    def frame_depth(self, frame: str, others: tuple[str, ...]) -> torch.Tensor:
        """Return the depth of a frame of the capture, (h, w) metres, 0 where unknown: measured, or predicted by the
        front end from the frame and `others`. Raise UserError if the front end predicts none."""
        if self.needs.reads_depth and self.scene.has_depth:
            return self.scene.views([frame], depth=True).to(self.device).depth[0, 0]
        frames = (frame, *[other for other in others if other != frame][: self.references - 1])
        encoding = self._encode(frames)
        if encoding.depth is None:
            raise UserError("--depth frames: this front end predicts no depth; use --depth rendered")
        height, width = self.scene.size
        return at_size(encoding.depth[:1], encoding.cameras.size)[0, 0, :height, :width]

    def _encode(self, frames: tuple[str, ...]) -> Encoding:
        if frames not in self._encodings:
            views = read_references(self.scene, list(frames), self.scene.frame_ids, self.needs)
            self._encodings[frames] = self.renderer.encode(views.to(self.device), frames)
        return self._encodings[frames]


def blend(parts: list[tuple[float, RenderedView]]) -> RenderedView:
    """Return the weighted mean of views of one camera. At each pixel only the views in which it is seen count, if there
    are any. Classes are averaged as probabilities."""
    views = [view for _, view in parts]
    given = torch.tensor([[weight] for weight, _ in parts], device=views[0].depth.device)
    counted = given * torch.stack([view.seen for view in views])
    seen = counted.sum(0) > 0
    weights = torch.where(seen, counted, given)
    weights = weights / weights.sum(0)

    def mean(values: list[torch.Tensor]) -> torch.Tensor:
        return sum(
            weight.view(-1, *[1] * (part.dim() - 1)) * part for weight, part in zip(weights, values, strict=True)
        )

    heads = {name: mean([view.heads[name] for view in views]) for name in views[0].heads}
    if CLASSES in heads:
        heads[CLASSES] = mean([view.logits.softmax(-1) for view in views]).clamp_min(1e-30).log()
    means = {name: mean([getattr(view, name) for view in views]) for name in ("color", "depth", "deviation")}
    return RenderedView(heads=heads, seen=seen, **means)


@dataclass(frozen=True)
class Model:
    """A trained network with its config and the checkpoint of its weights."""

    cfg: EasyDict
    network: Renderer
    checkpoint: Checkpoint

    @property
    def needs(self) -> Needs:
        """Return the fields that its references must have."""
        return needs(self.cfg)

    def session(self, scene: Scene) -> Session:
        """Open a session with a scene. Raise UserError if classes or depth of the scene do not fit."""
        cfg, checkpoint = self.cfg, self.checkpoint
        require_classes(cfg, [scene])
        require_classes_of(checkpoint, [scene])
        if self.needs.depth and not scene.has_depth:
            raise UserError(
                f"{scene.name}: has no depth, which init_net_type: depth reads; "
                "use a model trained with learned_depth or cost_volume"
            )
        device = next(self.network.parameters()).device
        renderer = ViewRenderer(self.network, Backend.for_rendering(cfg.renderer, device), cfg.ray_batch_num)
        has_classes = self.network.agg_net.agg_impl.with_logits
        classes = _classes(cfg, scene, checkpoint.classes) if has_classes else None
        origin = {"model": f"{checkpoint.path.resolve()} {checkpoint.path.stat().st_mtime_ns}", "config": plain(cfg)}
        return Session(renderer, scene, self.needs, cfg.train_dataset_cfg.min_wn, classes, origin)


def load_model(cfg, path: str | Path) -> Model:
    """Load the network of a config with the weights of a file. Raise UserError if they do not fit."""
    return Model(cfg, *load_trained(cfg, choose_device(cfg), path))


def open_session(cfg, model_path: str | Path, scene_name: str) -> Session:
    """Load a model and open a session with a scene: a database name, or a folder with a transforms.json.

    Raise UserError if something does not fit.
    """
    model = load_model(cfg, model_path)
    return model.session(configured_scene(scene_name, cfg, model.needs.reads_depth))


def _classes(cfg, scene: Scene, trained: tuple[str, ...] | None) -> Classes:
    """Return the classes of the scene; for a capture without labels those in the checkpoint.

    Published checkpoints name no classes: if they have as many as ScanNet, ScanNet's are assumed, with a warning.
    """
    colors, scannet = class_colors(cfg, [scene]), tuple(SCANNET_CLASSES)
    names = trained if scene.labels is None else scene.labels.names
    if names is None and cfg.num_classes == len(scannet):
        names = scannet
        warn("the model names no classes; its 20 are taken for ScanNet's")
    if names is None:
        names = tuple(f"class {number}" for number in range(cfg.num_classes))
    if scene.labels is None and names == scannet and cfg.semantic_color_map is None:
        colors = SCANNET_COLORS
    return Classes((*names, "invalid"), colors)
