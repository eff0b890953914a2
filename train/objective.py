"""The training objective: a sum of terms, each a loss between the output of a pass and the truth at the rendered
pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from dataset.views import Views
from network.renderer import REFINED, Renderer, RunStage
from network.rendering import Prediction, Rendering
from train.losses import (
    color_loss,
    consistency_loss,
    depth_loss,
    entropy_loss,
    reprojection_loss,
    semantic_loss,
    ssim_loss,
    termination_loss,
)
from utils.errors import UserError

REFERENCE_STRIDE = 4  # of the feature maps
LOSSES = ("render", "semantic")  # values of the config's `loss`
WITHOUT_HEADS = ("color", "termination", "ssim")  # terms that read no heads


@dataclass(frozen=True)
class Term:
    """`weight` times a loss of each pass over R = Q * N rays.

    target: (query views, pixels (Q, N, 2)) -> target of each ray, (R, …); never None. loss: (rendering of a pass,
    target) -> scalar. It should count only the rays of `rendering.scored`. first_pass_only, last_pass_only: apply it to
    that pass alone. refined: apply it to the output of the query decoder too.
    """

    name: str
    weight: float
    target: Callable[[Views, torch.Tensor], torch.Tensor]
    loss: Callable[[Rendering, torch.Tensor], torch.Tensor]
    first_pass_only: bool = False
    last_pass_only: bool = False
    refined: bool = True


def at_pixels(images: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Return the values of images (Q, h, w, …) at integer pixels (Q, N, 2) of x, y: (Q * N, …)."""
    x, y = pixels.long().unbind(-1)
    view = torch.arange(len(images), device=x.device)[:, None]
    return images[view, y, x].flatten(0, 1)


def true_colors(query: Views, pixels: torch.Tensor) -> torch.Tensor:
    """Return the true colours, (R, 3)."""
    return at_pixels(query.images.permute(0, 2, 3, 1), pixels)


def true_classes(query: Views, pixels: torch.Tensor, ignore: int) -> torch.Tensor:
    """Return the true classes, (R,) int64. For a scene without labels all are `ignore`, so that every step has the same
    form."""
    if query.labels is None:
        return torch.full((pixels.shape[:2].numel(),), ignore, device=pixels.device)
    return at_pixels(query.labels, pixels)


def true_depths(query: Views, pixels: torch.Tensor) -> torch.Tensor:
    """Return the true depths, (R,) metres, 0 where unknown; all 0 if the query has no depth."""
    if query.depth is None:
        return torch.zeros(pixels.shape[:2].numel(), device=pixels.device)
    return at_pixels(query.depth[:, 0], pixels)


def known_of_blocks(labels: torch.Tensor, block: int, ignore: int) -> torch.Tensor:
    """Return one label for each block of `block` pixels a side: (V, h // block, w // block) of labels (V, h, w).

    It is the label of the central pixel or, if that is `ignore`, the first known one, so that sparse labels are not
    lost.
    """
    height, width = (side // block for side in labels.shape[1:])
    blocks = labels[:, : height * block, : width * block].unflatten(2, (width, block)).unflatten(1, (height, block))
    values = blocks.transpose(2, 3).flatten(3)
    # Writing a single entry would be a copy from the host, which a CUDA graph cannot record.
    preference = 1.0 + (torch.arange(block * block, device=labels.device) == block // 2 * (block + 1))
    chosen = ((values != ignore) * preference).argmax(-1, keepdim=True)
    return values.gather(-1, chosen)[..., 0]


def color_term(cfg) -> Term:
    def loss(rendering: Rendering, target: torch.Tensor) -> torch.Tensor:
        return color_loss(rendering.color, target, rendering.scored)

    return Term("color", cfg.render_loss_scale, true_colors, loss, first_pass_only=not cfg.use_nr_fine_loss)


def semantic_term(cfg) -> Term:
    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return semantic_loss(logits, target, cfg.num_classes)

    return class_term("semantic", cfg.semantic_loss_scale, cfg.num_classes, loss)


def entropy_term(cfg) -> Term:
    """Return the term that minimises the entropy of the classes where there is no label."""

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return entropy_loss(logits, target == cfg.num_classes)

    return class_term("entropy", cfg.entropy_loss_scale, cfg.num_classes, loss)


def class_term(
    name: str, weight: float, ignore: int, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> Term:
    """Return a term of class logits (R, K+1) and true classes (R,). It is 0 for passes without classes."""

    def of_rendering(rendering: Rendering, target: torch.Tensor) -> torch.Tensor:
        return rendering.depth.new_zeros(()) if rendering.logits is None else loss(rendering.logits, target)

    return Term(name, weight, partial(true_classes, ignore=ignore), of_rendering)


def termination_term(cfg) -> Term:
    def loss(rendering: Rendering, target: torch.Tensor) -> torch.Tensor:
        return termination_loss(rendering.hit_probability, rendering.depths, target, rendering.scored)

    return Term("termination", cfg.termination_loss_scale, true_depths, loss, refined=False)


def ssim_term(cfg) -> Term:
    """Return the SSIM term, of the last pass alone."""
    shape = tuple(cfg.train_dataset_cfg.patch)

    def loss(rendering: Rendering, target: torch.Tensor) -> torch.Tensor:
        return ssim_loss(*(x.view(-1, *shape, 3).permute(0, 3, 1, 2) for x in (rendering.color, target)))

    return Term("ssim", cfg.ssim_loss_scale, true_colors, loss, last_pass_only=True)


class Objective(nn.Module):
    """Renders the queries of a batch and computes all losses."""

    def __init__(self, network: Renderer, cfg, has_labels: bool, terms: Sequence[Term] = ()):
        """has_labels: some scenes have labels. terms: further terms, beside those of the config."""
        super().__init__()
        self.network, self.cfg = network, cfg
        self.learns_classes = has_labels and cfg.render_label and "semantic" in cfg.loss
        patch = cfg.train_dataset_cfg.patch
        self.patch = None if patch is None else tuple(patch)
        if patch is None and (network.query_decoder_new is not None or cfg.ssim_loss_scale > 0):
            raise UserError("query_decoder and ssim_loss_scale need train_dataset_cfg.patch, for example [128, 160]")
        if cfg.consistency_loss_scale > 0 and network.reference_classes_new is None:
            raise UserError("consistency_loss_scale needs reference_classes: true and render_label: true")
        configured = [color_term(cfg)] * ("render" in cfg.loss) + [semantic_term(cfg)] * self.learns_classes
        if cfg.entropy_loss_scale > 0 and self.learns_classes:
            configured.append(entropy_term(cfg))
        if cfg.termination_loss_scale > 0:
            configured.append(termination_term(cfg))
        if cfg.ssim_loss_scale > 0:
            configured.append(ssim_term(cfg))
        self.terms = (*configured, *terms)

    def forward(
        self,
        references: Views,
        query: Views,
        pixels: torch.Tensor,
        draws: torch.Tensor | None,
        stages: Sequence[RunStage] | None = None,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return losses by name, and measures of the final pass by name. pixels: (Q, N, 2) of the Q query views.

        draws, stages: see `Renderer.render_rays`.
        """
        prediction = self.network(references, query.cameras, pixels, draws, stages, self.patch)
        losses = {
            **self._pass_losses(prediction, query, pixels),
            **self._reference_losses(prediction, references),
            **self._consistency_losses(prediction, query, pixels),
            **self._pseudo_losses(prediction, query, pixels),
            **self._depth_losses(prediction, references),
        }
        error = (prediction.final.color.detach().clamp(0, 1) - true_colors(query, pixels)).square().mean()
        measures = {"psnr": -10 * torch.log10(error.clamp_min(1e-6))}
        return losses, measures | ray_depth_measures(prediction.final.depth.detach(), true_depths(query, pixels))

    def _pass_losses(self, prediction: Prediction, query: Views, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        scored = prediction.passes[0].scored  # for all passes
        scored = scored if self.cfg.use_ray_mask else torch.ones_like(scored)
        names, losses = self.network.pass_names, {}
        targets = [term.target(query, pixels) for term in self.terms]
        for number, (name, rendering) in enumerate(zip(names, prediction.passes, strict=True)):
            for term, target in zip(self.terms, targets, strict=True):
                if self._applies(term, number, name):
                    loss = term.loss(replace(rendering, scored=scored), target)
                    losses[f"{term.name}_{name}"] = term.weight * loss
        return losses

    def _applies(self, term: Term, number: int, name: str) -> bool:
        """Return whether a term is applied to pass `number`."""
        if term.last_pass_only:
            return number + 1 == len(self.network.pass_names)
        if name == REFINED:
            return term.refined
        return number == 0 or not term.first_pass_only

    def _reference_losses(self, prediction: Prediction, references: Views) -> dict[str, torch.Tensor]:
        """Return the cross entropy of the references' classes, at the size of their feature maps."""
        logits = prediction.reference_logits
        if logits is None or not self.learns_classes:
            return {}
        height, width = references.cameras.size
        labels = references.labels
        if labels is None:
            labels = torch.full((len(references), height, width), self.cfg.num_classes, device=logits.device)
        known = known_of_blocks(labels, REFERENCE_STRIDE, self.cfg.num_classes)
        logits = logits[:, : known.shape[1], : known.shape[2]].flatten(0, 2)
        loss = semantic_loss(logits, known.flatten(), self.cfg.num_classes)
        return {"semantic_references": self.cfg.reference_semantic_loss_scale * loss}

    def _consistency_losses(
        self, prediction: Prediction, query: Views, pixels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the divergence of the rendered classes and the blended classes of the references, where there is no
        label."""
        if self.cfg.consistency_loss_scale == 0 or not self.learns_classes:
            return {}
        rays = prediction.passes[-2]  # the last before it is refined
        blended = self.network.blended_reference_logits(rays.heads)
        unknown = true_classes(query, pixels, self.cfg.num_classes) == self.cfg.num_classes
        return {"consistency": self.cfg.consistency_loss_scale * consistency_loss(rays.logits, blended, unknown)}

    def _pseudo_losses(self, prediction: Prediction, query: Views, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the cross entropy of each pass with pseudo labels: confident classes of the final pass where there is
        no label."""
        threshold, ignore = self.cfg.pseudo_labels, self.cfg.num_classes
        if threshold is None or not self.learns_classes or prediction.final.logits is None:
            return {}
        sureness, guess = prediction.final.logits.detach().softmax(-1)[:, :ignore].max(-1)
        unknown = true_classes(query, pixels, ignore) == ignore
        target = torch.where(unknown & (sureness >= threshold), guess, ignore)
        return {
            f"pseudo_{name}": self.cfg.semantic_loss_scale * semantic_loss(rendering.logits, target, ignore)
            for name, rendering in zip(self.network.pass_names, prediction.passes, strict=True)
            if rendering.logits is not None
        }

    def _depth_losses(self, prediction: Prediction, references: Views) -> dict[str, torch.Tensor]:
        """Return the loss of predicted depth: against measured depth if the scene has it, else the reprojection
        loss."""
        predicted = prediction.reference_depth
        if predicted is None or not predicted.requires_grad:
            return {}
        padded = self.network.pad(references)
        loss = reprojection_loss(predicted, padded) if padded.depth is None else depth_loss(predicted, padded.depth)
        return {"depth": self.cfg.depth_loss_scale * loss}


def ray_depth_measures(rendered: torch.Tensor, true: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return measures of rendered depths (R,) over the rays whose true depth (R,) is known (not 0); nan if there are
    none.

    depth_median: the median of |rendered - true| / true. ended_early: the share of rays that end before half their
    depth, which is 1 as long as a network ends all rays at the near plane. Does not wait for the device.
    """
    known = true > 0
    count = known.sum()
    error = torch.where(known, (rendered - true).abs() / true.clamp_min(1e-3), torch.inf)
    median = error.sort().values.gather(0, (count - 1).clamp_min(0)[None] // 2)[0]
    early = (known & (rendered < true / 2)).sum() / count
    return {"depth_median": torch.where(count > 0, median, torch.nan), "ended_early": early}
