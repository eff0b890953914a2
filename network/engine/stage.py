"""A pass over rays made of kernels. Its twin is `network.stage.Stage`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from network.attention import first_places
from network.compositing import composite, modal_depth, seen_rays
from network.cranet import CRANet
from network.engine.attention import Layer
from network.engine.packing import Weights, pack
from network.engine.projection import Sights, see
from network.engine.rays import RaysOutput, end_rays, pack_head
from network.engine.views import ViewsOutput, _views_kernel
from network.ops.language import triton
from network.rendering import CLASSES, CONTEXT, Encoding, Rays, Rendering
from network.sight import ELSEWHERE
from network.stage import Stage

# By the type of the products: rows of samples and views in a program, its warps, and registers of a thread at most.
LAUNCH = {torch.float16: (64, 4, 128), torch.float32: (64, 4, 168)}
NEGLIGIBLE = 1e-6  # a sample that is hit less often than this needs no classes


@dataclass(frozen=True)
class EngineStage:
    """A stage with its weights as kernels read them, as they were when this was made."""

    stage: Stage
    weights: Weights
    geometry: Layer
    head: torch.Tensor
    along: Layer | None
    across: Layer | None

    @classmethod
    def of(cls, stage: Stage, dtype: torch.dtype) -> EngineStage:
        """dtype: of products, float32 or float16."""
        impl = stage.agg_net.agg_impl
        semantic = [
            None if attention is None else Layer(attention, dtype)
            for attention in (impl.sem_rtrans_new, impl.point_attention_new)
        ]
        return cls(stage, pack(stage, dtype), Layer(impl.ray_attention, dtype), pack_head(impl), *semantic)

    @torch.no_grad()
    def __call__(self, encoding: Encoding, rays: Rays, depths: torch.Tensor, density_only: bool = False) -> Rendering:
        """As the stage's, up to the precision of products; the encoding's features are of their type."""
        with torch.autocast(depths.device.type, enabled=False):  # what is not in kernels is little: float32
            seen = see(encoding, rays, depths)
            fused = fuse_views(self.weights, encoding, seen, density_only)
            ends = end_rays(self.stage, self.geometry, self.head, fused.geometry, seen.valid, depths, fused.color)
            heads = {} if density_only else self._heads(fused, seen, ends)
            depth, visible = ends.depth, ends.hit.sum(-1) > 0  # what no view sees is never hit ...
            if self.stage.opaque:  # ... unless every ray ends
                depth, visible = modal_depth(ends.hit, depths), seen_rays(ends.hit, _shown(seen, rays, depths))
            return Rendering(ends.color, heads, depth, ends.hit, depths, ends.scored, visible)

    def _heads(self, fused: ViewsOutput, seen: Sights, ends: RaysOutput) -> dict[str, torch.Tensor]:
        impl = self.stage.agg_net.agg_impl
        if not (impl.with_logits or impl.heads_new):
            return {}
        latent = _latent(self, fused, seen.valid, ends)
        heads = {CLASSES: _logits(impl, latent, ends)} if impl.with_logits else {}
        if CONTEXT in impl.heads_new:
            valid = seen.valid.float()
            support = torch.stack([valid, valid * seen.places[2]]).mean(1).T
            of_ray = composite(ends.hit, torch.cat([fused.features, support], -1).unflatten(0, ends.hit.shape))
            heads[CONTEXT] = torch.cat([of_ray[:, :32], latent, of_ray[:, 32:]], -1)
        return heads


def _shown(seen: Sights, rays: Rays, depths: torch.Tensor) -> torch.Tensor:
    """Return which samples at least one view shows, (R, S) bool: `Sight.shown`."""
    shown = ((seen.valid > 0) & (seen.places[2] > ELSEWHERE)).any(0).view(depths.shape)
    return shown if rays.layers is None else shown | rays.layers.found[:, None]


def fuse_views(weights: Weights, encoding: Encoding, seen: Sights, density_only: bool) -> ViewsOutput:
    """Return what the networks make of all that views see."""
    count, samples = seen.valid.shape
    padded = triton.next_power_of_2(count)
    rows, warps, registers = LAUNCH[encoding.features.dtype]
    per_program = rows // padded
    device, kind = encoding.features.device, encoding.features.dtype
    output = ViewsOutput(
        torch.empty(samples, 16, device=device),
        *[
            None if density_only else torch.empty(shape, device=device, dtype=dtype)
            for shape, dtype in (
                ((count, samples, 32), kind),
                ((count, samples), torch.float32),
                ((samples, 3), torch.float32),
            )
        ],
        torch.empty(samples, 32, device=device) if weights.surfaces and not density_only else None,
    )
    unused = output.geometry
    _views_kernel[(triton.cdiv(samples, per_program),)](
        seen.places, seen.sights, seen.valid, encoding.features, weights.matrices, weights.vectors,
        output.geometry,
        *[unused if x is None else x for x in (output.latent, output.blending, output.color, output.features)],
        samples, count, *encoding.features.shape[1:3],
        M=per_program, VIEWS=padded, USE_VIS=weights.use_vis, DENSITY_ONLY=density_only, SURFACES=weights.surfaces,
        num_warps=warps, maxnreg=registers,
    )  # fmt: skip
    return output


def _latent(own: EngineStage, fused: ViewsOutput, valid: torch.Tensor, ends: RaysOutput) -> torch.Tensor:
    """Return the latents after Cross-Reprojection Attention, blended, of each ray: (R, 32)."""
    need = (ends.hit.flatten() > NEGLIGIBLE).to(torch.int8)
    attended = _attend(own, fused, valid, ends.several, need)
    return torch.bmm(ends.hit[:, None], attended.view(*ends.hit.shape, -1))[:, 0]


def _logits(impl: CRANet, latent: torch.Tensor, ends: RaysOutput) -> torch.Tensor:
    """Return the class logits of each ray: (R, K+1)."""
    first, head = impl.semantic_fc1_new, impl.semantic_fc2_new
    # Both layers are linear: once for the ray instead of for each sample, with the biases as often as the ray ends.
    of_geometry = F.linear(ends.geometry, first.weight) + ends.total * first.bias
    of_ray = torch.cat([of_geometry, ends.hidden, latent], -1)
    return F.linear(of_ray, head.weight) + ends.total * head.bias


def _attend(
    own: EngineStage, fused: ViewsOutput, valid: torch.Tensor, several: torch.Tensor, need: torch.Tensor
) -> torch.Tensor:
    """Apply Cross-Reprojection Attention and return the sum over the views: (N, 32)."""
    latent, impl = fused.latent, own.stage.agg_net.agg_impl
    positions = first_places(impl.semantic_places, several.shape[1])

    def along_rays(x: torch.Tensor) -> torch.Tensor:
        rows = x.view(-1, several.shape[1], x.shape[-1])
        return own.along(rows, several, along=True, encoding=positions).view(x.shape)

    if own.along is None:
        return (fused.blending[..., None] * latent).sum(0)
    if impl.views_first:
        latent = along_rays(own.across(latent, valid, along=False))
        return (fused.blending[..., None] * latent).sum(0)
    return own.across(along_rays(latent), valid, along=False, blending=fused.blending, need=need)
