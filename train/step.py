"""One step of training: losses, gradients, update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from dataset.views import Batch, Views
from network.backend import PRECISIONS, Backend
from network.renderer import Renderer, RunStage
from network.rendering import Prediction
from train import averaging
from train.averaging import AveragedWeights
from train.losses import color_loss, depth_loss, reprojection_loss, semantic_loss, termination_loss
from train.processes import Processes
from train.schedule import NEW_LAYERS, build_optimizer, learning_rate, set_learning_rate
from utils.config import Setting
from utils.errors import UserError

LOSSES = ("render", "semantic")
MOST_SHAPES = 64  # image sizes and numbers of references that a step is recorded for, one by one
DEFAULTS = {
    "loss": ["render", "semantic"],
    "render_loss_scale": Setting(0.75, float, minimum=0),
    "semantic_loss_scale": Setting(0.25, float, minimum=0),
    "use_nr_fine_loss": True,  # colour loss of the fine pass too
    "depth_loss_scale": Setting(1.0, float, minimum=0),  # where the front end predicts depth and is trained
    "termination_loss_scale": Setting(0.0, float, minimum=0),  # rays end at the query's depth, where the scene has it
    "use_ray_mask": True,  # only rays that enough views see have a colour loss
    "max_grad_norm": Setting(None, float, minimum=0),
    **averaging.DEFAULTS,
    "precision": Setting("auto", str, choices=PRECISIONS),  # auto: bf16 where the GPU has it
    "compile": Setting(None, bool),  # fuse the step's kernels, and record it; None: on a GPU that can
}


class StepLog(NamedTuple):
    """Of one step, still on the device: losses and measures by name, gradient norm, and which frame it was.

    measures: psnr and, nan without known depth, `ray_depth_measures`.
    """

    losses: dict[str, torch.Tensor]
    measures: dict[str, torch.Tensor]
    grad_norm: torch.Tensor
    frame: str


class Objective(nn.Module):
    """From the views of a batch to the losses of a network. learns_classes: some of the data have labels."""

    def __init__(self, network: Renderer, cfg, learns_classes: bool):
        super().__init__()
        self.network, self.cfg = network, cfg
        self.learns_classes = learns_classes and cfg.render_label and "semantic" in cfg.loss

    def forward(
        self,
        references: Views,
        query: Views,
        pixels: torch.Tensor,
        draws: torch.Tensor | None,
        stages: Sequence[RunStage] | None = None,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The losses and, of the final pass, the measures by name. pixels: (Q, N, 2) of the Q query views.

        draws, stages: see `Renderer.render_rays`.
        """
        prediction = self.network(references, query.cameras, pixels, draws, stages)
        x, y = pixels.long().unbind(-1)
        view = torch.arange(len(query), device=x.device)[:, None]
        color = query.images[view, :, y, x].flatten(0, 1)
        labels = None if query.labels is None else query.labels[view, y, x].flatten()
        # unknown where the scene has no depth: every step has the same form
        depth = color.new_zeros(len(color)) if query.depth is None else query.depth[view, 0, y, x].flatten()
        losses = {
            **self._pass_losses(prediction, color, labels),
            **self._termination_losses(prediction, depth),
            **self._depth_losses(prediction, references),
        }
        error = (prediction.final.color.detach().clamp(0, 1) - color).square().mean()
        measures = {"psnr": -10 * torch.log10(error.clamp_min(1e-6))}
        return losses, measures | ray_depth_measures(prediction.final.depth.detach(), depth)

    def _pass_losses(self, prediction: Prediction, color, labels) -> dict[str, torch.Tensor]:
        cfg, losses = self.cfg, {}
        scored = self._scored(prediction)
        for name, rendering in zip(self.network.sampler.names, prediction.passes, strict=True):
            first = rendering is prediction.passes[0]
            if "render" in cfg.loss and (first or cfg.use_nr_fine_loss):
                losses[f"color_{name}"] = cfg.render_loss_scale * color_loss(rendering.color, color, scored)
            if self.learns_classes and rendering.logits is not None:
                # a scene without labels among others with: a gradient of zero, so that every step has the same form
                known = torch.full_like(scored, cfg.num_classes, dtype=torch.long) if labels is None else labels
                loss = semantic_loss(rendering.logits, known, cfg.num_classes)
                losses[f"semantic_{name}"] = cfg.semantic_loss_scale * loss
        return losses

    def _scored(self, prediction: Prediction) -> torch.Tensor:
        """Which rays have losses of colour and depth: (R,) bool."""
        scored = prediction.passes[0].scored
        return scored if self.cfg.use_ray_mask else torch.ones_like(scored)

    def _termination_losses(self, prediction: Prediction, depth: torch.Tensor) -> dict[str, torch.Tensor]:
        scale, scored = self.cfg.termination_loss_scale, self._scored(prediction)
        passes = zip(self.network.sampler.names, prediction.passes, strict=True) if scale > 0 else ()
        return {
            f"termination_{name}": scale * termination_loss(x.hit_probability, x.depths, depth, scored)
            for name, x in passes
        }

    def _depth_losses(self, prediction: Prediction, references: Views) -> dict[str, torch.Tensor]:
        """By the sensor where the scene has one, else by how well the references show each other."""
        predicted = prediction.reference_depth
        if predicted is None or not predicted.requires_grad:
            return {}
        padded = self.network.pad(references)
        loss = reprojection_loss(predicted, padded) if padded.depth is None else depth_loss(predicted, padded.depth)
        return {"depth": self.cfg.depth_loss_scale * loss}


def ray_depth_measures(rendered: torch.Tensor, true: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what rendered depths (R,) are like where the true ones (R,) are known (not 0), else nan.

    depth_median: the median of |rendered - true| / true. ended_early: the share of rays that end before half their depth,
    as they do while all end at the near plane. Nothing here waits for the device.
    """
    known = true > 0
    count = known.sum()
    error = torch.where(known, (rendered - true).abs() / true.clamp_min(1e-3), torch.inf)
    median = error.sort().values.gather(0, (count - 1).clamp_min(0)[None] // 2)[0]
    early = (known & (rendered < true / 2)).sum() / count
    return {"depth_median": torch.where(count > 0, median, torch.nan), "ended_early": early}


class TrainingStep:
    """Updates a network by one batch after the other. Nothing in a step waits for the device.

    Gradients lie in one tensor, so that several processes average them in one exchange: three million numbers, which
    overlapping with the backward pass, as DistributedDataParallel does, would not make faster; and a recorded step has
    no place for its hooks.
    """

    def __init__(
        self, network: Renderer, cfg, backend: Backend, processes: Processes | None = None, labels: bool = True
    ):
        """processes: average the gradients over them. labels: some of the data have labels."""
        unknown = [name for name in cfg.loss if name not in LOSSES]
        if unknown or not cfg.loss:
            raise UserError(f"`loss` should list some of {', '.join(LOSSES)}, but is {list(cfg.loss)}")
        self.network, self.cfg, self.backend, self.processes = network, cfg, backend, processes
        self.objective = Objective(network, cfg, labels)
        self.optimizer = build_optimizer(network, cfg)
        self.parameters = trained_parameters(network, self.objective.learns_classes, cfg)
        self.gradients = share_gradients(self.parameters)
        self.averaged = AveragedWeights(network, cfg.ema_decay) if cfg.ema_decay else None
        self._differentiate = backend.recorded(self.differentiate, network, MOST_SHAPES)
        self._update = backend.recorded(self.update, network, MOST_SHAPES)

    def __call__(self, batch: Batch, step: int, seed: int) -> StepLog:
        """One update, the `step`-th from 0. Fine depths are drawn from `seed` alone: a resumed run draws the same."""
        set_learning_rate(self.optimizer, learning_rate(step, self.cfg), self.cfg.lr_cfg.scale_new)
        generator = torch.Generator(self.backend.device).manual_seed(seed)
        draws = self.network.sampler.draw(batch.pixels.shape[:2].numel(), generator)
        values = self._differentiate(batch.references, batch.query, batch.pixels, draws).unbind()
        if self.processes is not None:
            self.processes.average(self.gradients)
        norm = self._update()
        if self.averaged is not None:
            self.averaged.update(step)
        count = len(self._losses)
        losses = dict(zip(self._losses, values[:count], strict=True))
        measures = dict(zip(self._measures, values[count:], strict=True))
        return StepLog(losses, measures, norm, f"{batch.scene}, frame {batch.frame}")

    def differentiate(self, references: Views, query: Views, pixels: torch.Tensor, draws: torch.Tensor | None):
        """Fills `gradients`; returns the losses and the measures as one tensor."""
        self.gradients.zero_()
        with self.backend.at_work(self.network):
            with self.backend.autocast():
                losses, measures = self.objective(references, query, pixels, draws, self.backend.stages(self.network))
            sum(losses.values()).backward()
        self._losses, self._measures = tuple(losses), tuple(measures)  # the same ones in every step
        return torch.stack([*losses.values(), *measures.values()]).detach()

    def update(self) -> torch.Tensor:
        """Clips the gradients and moves the weights; returns the norm that the gradients had."""
        norm = clip_grad_norm_(self.parameters, self.cfg.max_grad_norm or math.inf)
        self.optimizer.step()
        return norm


def trained_parameters(network: Renderer, learns_classes: bool, cfg) -> list[nn.Parameter]:
    """The parameters that a loss reaches. The others are frozen: Adam's weight decay alone would ruin them."""
    if not learns_classes:
        for name, parameter in network.named_parameters():
            if NEW_LAYERS in name and "agg_net" in name:
                parameter.requires_grad_(False)
    if not (learns_classes or ("render" in cfg.loss and cfg.use_nr_fine_loss)) and network.fine_agg_net is not None:
        network.fine_agg_net.requires_grad_(False)
        network.fine_dist_decoder.requires_grad_(False)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def share_gradients(parameters: list[nn.Parameter]) -> torch.Tensor:
    """Makes the parameters' gradients parts of one tensor, and returns it."""
    gradients = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    parts = gradients.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return gradients
