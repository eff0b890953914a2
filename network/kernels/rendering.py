"""A rendering pass made of kernels, for evaluation: no gradients. Its twin is `rewritten.render_pass`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton

from network.kernels.attention import LONGEST, Layer
from network.kernels.packing import Weights, pack
from network.kernels.rays import RaysOutput, end_rays, pack_head
from network.kernels.sight import Sights, see
from network.kernels.views import ViewsOutput, _views_kernel
from network.rendering import Encoding, Rays, Rendering, Stage

# By the type of the products: rows of samples and views in a program, its warps, and registers of a thread at most.
LAUNCH = {torch.float16: (64, 4, 128), torch.float32: (64, 4, 168)}
MOST_VIEWS = 16
NEGLIGIBLE = 1e-6  # a sample that is hit less often than this needs no classes


@dataclass(frozen=True)
class PackedStage:
    """A stage with its weights as kernels read them."""

    stage: Stage
    weights: Weights
    geometry: Layer
    head: torch.Tensor
    along: Layer | None
    across: Layer | None

    @classmethod
    def of(cls, stage: Stage, dtype: torch.dtype) -> PackedStage:
        """dtype: of products, float32 or float16."""
        impl = stage.agg_net.agg_impl
        semantic = [
            None if attention is None else Layer(attention, dtype)
            for attention in (impl.sem_rtrans_new, impl.point_attention_new)
        ]
        return cls(stage, pack(stage, dtype), Layer(impl.ray_attention, dtype), pack_head(impl), *semantic)


def supports(encoding: Encoding, samples: int) -> bool:
    """Whether the kernels can render samples of so many a ray from these references."""
    return len(encoding.cameras) <= MOST_VIEWS and samples <= LONGEST


@torch.no_grad()
def render_pass(
    packed: PackedStage, encoding: Encoding, rays: Rays, depths: torch.Tensor, density_only: bool = False
) -> Rendering:
    """Like `rewritten.render_pass`, which it equals up to the precision of products."""
    with torch.autocast(depths.device.type, enabled=False):  # what is not in kernels is little: float32
        return _render_pass(packed, encoding, rays, depths, density_only)


def _render_pass(packed: PackedStage, encoding: Encoding, rays: Rays, depths, density_only) -> Rendering:
    seen = see(encoding, rays, depths)
    fused = fuse_views(packed.weights, encoding, seen, density_only)
    ends = end_rays(packed.stage, packed.geometry, packed.head, fused.geometry, seen.valid, depths, fused.color)
    logits = None
    if not density_only and packed.stage.agg_net.agg_impl.with_logits:
        logits = _logits(packed, fused, seen.valid, ends)
    return Rendering(ends.color, logits, ends.depth, ends.hit, depths, ends.scored)


def fuse_views(weights: Weights, encoding: Encoding, seen: Sights, density_only: bool) -> ViewsOutput:
    """What the networks make of all that views see."""
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
    )
    unused = output.geometry
    _views_kernel[(triton.cdiv(samples, per_program),)](
        seen.places, seen.sights, encoding.features, weights.matrices, weights.vectors,
        output.geometry, *[unused if out is None else out for out in (output.latent, output.blending, output.color)],
        samples, count, *encoding.features.shape[1:3],
        M=per_program, VIEWS=padded, USE_VIS=weights.use_vis, DENSITY_ONLY=density_only,
        num_warps=warps, maxnreg=registers,
    )  # fmt: skip
    return output


def _logits(packed: PackedStage, fused: ViewsOutput, valid: torch.Tensor, ends: RaysOutput) -> torch.Tensor:
    """Class logits of each ray: (R, K+1)."""
    impl, hit = packed.stage.agg_net.agg_impl, ends.hit
    need = (hit.flatten() > NEGLIGIBLE).to(torch.int8)
    attended = _attend(packed, fused, valid, ends.several, need)
    attended = torch.bmm(hit[:, None], attended.view(*hit.shape, -1))[:, 0]
    first, head = impl.semantic_fc1_new, impl.semantic_fc2_new
    # Both layers are linear: once for the ray instead of for each sample, with the biases as often as the ray ends.
    of_geometry = F.linear(ends.geometry, first.weight) + ends.total * first.bias
    of_ray = torch.cat([of_geometry, ends.hidden, attended], -1)
    return F.linear(of_ray, head.weight) + ends.total * head.bias


def _attend(
    packed: PackedStage, fused: ViewsOutput, valid: torch.Tensor, several: torch.Tensor, need: torch.Tensor
) -> torch.Tensor:
    """Cross-Reprojection Attention, and the sum over the views: (N, 32)."""
    latent, impl = fused.latent, packed.stage.agg_net.agg_impl

    def along_rays(x: torch.Tensor) -> torch.Tensor:
        rows = x.view(-1, several.shape[1], x.shape[-1])
        return packed.along(rows, several, along=True, encoding=impl.semantic_encoding).view(x.shape)

    if packed.along is None:
        return (fused.blending[..., None] * latent).sum(0)
    if impl.views_first:
        latent = along_rays(packed.across(latent, valid, along=False))
        return (fused.blending[..., None] * latent).sum(0)
    return packed.across(along_rays(latent), valid, along=False, blending=fused.blending, need=need)
