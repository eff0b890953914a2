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
from network.renderer import Renderer
from train import averaging
from train.averaging import AveragedWeights
from train.objective import LOSSES, WITHOUT_HEADS, Objective, Term
from train.processes import Processes
from train.schedule import NEW_LAYERS, build_optimizer, learning_rate, set_learning_rate
from utils.config import Setting
from utils.errors import UserError

MOST_SHAPES = 64  # recordings of a step: one for each image size and number of references
DEFAULTS = {
    "loss": ["render", "semantic"],  # what is learned: colour (render), classes (semantic)
    "render_loss_scale": Setting(0.75, float, minimum=0),  # weight of the colour loss
    "semantic_loss_scale": Setting(0.25, float, minimum=0),  # weight of the classes' cross entropy
    "use_nr_fine_loss": True,  # apply the colour loss to the fine pass too
    "depth_loss_scale": Setting(1.0, float, minimum=0),  # weight of the depth loss of front ends that predict depth
    # weight of the loss that makes rays end at the query's measured depth, if the scene has it
    "termination_loss_scale": Setting(0.0, float, minimum=0),
    # weight of 1 - SSIM of the final colours; needs train_dataset_cfg.patch
    "ssim_loss_scale": Setting(0.0, float, minimum=0),
    # weight of the cross entropy of the references' own classes, with reference_classes
    "reference_semantic_loss_scale": Setting(0.25, float, minimum=0),
    # weight of the entropy of rendered classes where there is no label
    "entropy_loss_scale": Setting(0.0, float, minimum=0),
    # weight of the difference between rendered classes and the references' own, blended, where there is no label; with
    # reference_classes
    "consistency_loss_scale": Setting(0.0, float, minimum=0),
    # probability from which on the rendered class is a pseudo label where there is no label; null: no pseudo labels
    "pseudo_labels": Setting(None, float, minimum=0, maximum=1),
    "use_ray_mask": True,  # apply the colour loss only to rays that enough references see, see ray_mask_view_num
    "max_grad_norm": Setting(None, float, minimum=0),  # norm to which gradients are clipped; null: no clipping
    **averaging.DEFAULTS,
    # precision of matrix products in training; auto: bf16 if the GPU supports it
    "precision": Setting("auto", str, choices=PRECISIONS),
    "compile": Setting(None, bool),  # compile the step, and record it as a CUDA graph; null: if the GPU supports it
}


class StepLog(NamedTuple):
    """Results of one step, still on the device: losses and measures by name, gradient norm, and the frame, for
    messages.

    measures: psnr, and those of `ray_depth_measures` (nan without known depth).
    """

    losses: dict[str, torch.Tensor]
    measures: dict[str, torch.Tensor]
    grad_norm: torch.Tensor
    frame: str


class TrainingStep:
    """Computes the gradients of one batch and updates the weights. A step does not wait for the device.

    All gradients are views of one tensor of three million numbers, which several processes average in one exchange. To
    overlap it with the backward pass, as DistributedDataParallel does, is not faster, and needs hooks, which a CUDA
    graph cannot call.
    """

    def __init__(
        self,
        network: Renderer,
        cfg,
        backend: Backend,
        processes: Processes | None = None,
        has_labels: bool = True,
        terms: Sequence[Term] = (),
    ):
        """processes: average the gradients over them. has_labels: some scenes have labels. terms: further terms of the
        objective."""
        unknown = [name for name in cfg.loss if name not in LOSSES]
        if unknown or not cfg.loss:
            raise UserError(f"`loss` should list some of {', '.join(LOSSES)}, but is {list(cfg.loss)}")
        self.network, self.cfg, self.backend, self.processes = network, cfg, backend, processes
        self.objective = Objective(network, cfg, has_labels, terms)
        self.optimizer = build_optimizer(network, cfg)
        self.parameters = trained_parameters(self.objective)
        self.gradients = share_gradients(self.parameters)
        self.averaged = AveragedWeights(network, cfg.ema_decay) if cfg.ema_decay else None
        self._differentiate = backend.recorded(self.differentiate, MOST_SHAPES, network)
        self._update = backend.recorded(self.update, MOST_SHAPES)

    def __call__(self, batch: Batch, step: int, seed: int) -> StepLog:
        """Make update number `step` (from 0). The sampler's random numbers depend on `seed` alone, so that resumed runs
        draw the same."""
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
        """Fill `gradients`, and return the losses and the measures as one tensor."""
        self.gradients.zero_()
        with self.backend.at_work(self.network):
            with self.backend.autocast():
                losses, measures = self.objective(references, query, pixels, draws, self.backend.stages(self.network))
            sum(losses.values()).backward()
        self._losses, self._measures = tuple(losses), tuple(measures)  # names, the same in every step
        return torch.stack([*losses.values(), *measures.values()]).detach()

    def update(self) -> torch.Tensor:
        """Clip the gradients and update the weights. Return the norm of the gradients before clipping."""
        norm = clip_grad_norm_(self.parameters, self.cfg.max_grad_norm or math.inf)
        self.optimizer.step()
        return norm


def trained_parameters(objective: Objective) -> list[nn.Parameter]:
    """Return the parameters that a loss reaches, and freeze the others: weight decay alone would shrink them to
    zero."""
    network, terms = objective.network, objective.terms
    if not objective.learns_classes:
        others = any(term.name not in WITHOUT_HEADS for term in terms)
        unreached = "semantic_fc" if others else NEW_LAYERS
        for name, parameter in network.named_parameters():
            if "agg_net" in name and NEW_LAYERS in name and unreached in name:
                parameter.requires_grad_(False)
    if all(term.first_pass_only for term in terms) and network.fine_agg_net is not None:
        network.fine_agg_net.requires_grad_(False)
        network.fine_dist_decoder.requires_grad_(False)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def share_gradients(parameters: list[nn.Parameter]) -> torch.Tensor:
    """Make the gradients of all parameters views of one tensor, and return it."""
    gradients = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    parts = gradients.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return gradients
