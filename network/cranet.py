"""Aggregation of the views' features: density, colour and, by Cross-Reprojection Attention, classes.

Geometry and colour are IBRNet's aggregation with NeuRay's visibility. Classes are S-Ray's (section 3.3): attention
along the ray inside each view, then across the views of each sample.

Tensors of views and samples are rows (V, N, C), N = R * S; the samples of a ray are consecutive. For speed, layers of
inputs that all views share run once a sample, and linear layers after a weighted sum run once a ray. Geometry, softmax,
sums and products along the ray are float32 under autocast too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import nn

from network.attention import SelfAttention, first_places, sine_encoding
from network.compositing import composite, end_at_last, hit_probabilities
from network.linear import MLP, Linear, RayLinear, wide
from network.rendering import CLASSES
from network.sight import Sight

INVALID_LOGIT = -1e9
PLACES = 256  # samples of a ray for which position encodings are precomputed
SHARPNESS = 10.0  # with blend_by_angle a view's weight falls by a factor of e for each 1/10 rad


class RayValues(NamedTuple):
    """Results for R rays: hit probabilities (R, S) of their samples, colour (R, 3), and name of a head -> its values
    (R, …).

    If only densities are computed, color is None and there are no heads.
    """

    hit_probability: torch.Tensor
    color: torch.Tensor | None
    heads: dict[str, torch.Tensor]


class SampleFeatures(NamedTuple):
    """Input of a head: features of R rays of S samples seen by V views; N = R * S.

    hit_probability: (R, S). geometry: (R, S, G), after attention along the ray. hidden: (R, S, G), the layer before
    density. semantic: (V, N, L), each view's latent after Cross-Reprojection Attention. blending: (V, N, 1), weights
    that blend the views' colours. sight: the projections of the samples into the views.
    """

    hit_probability: torch.Tensor
    geometry: torch.Tensor
    hidden: torch.Tensor
    semantic: torch.Tensor
    blending: torch.Tensor
    sight: Sight

    def blended(self) -> torch.Tensor:
        """Return the mean of the views' latents, weighted by `blending`: (R, S, L)."""
        return (self.blending * self.semantic).sum(0).unflatten(0, self.hit_probability.shape)


class HeadWidths(NamedTuple):
    """Channels of a head's input. geometry: of `geometry` and `hidden`. semantic: of the views' latents."""

    geometry: int
    semantic: int


# Builds a head: a module from SampleFeatures to values of each ray, (R, …).
HeadFactory = Callable[[HeadWidths], nn.Module]


def weighted_mean_and_variance(x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sum(w x) and sum(w (x - mean)^2) over the views (first axis). The weights are not normalised here."""
    mean = (x * weights).sum(0)
    return mean, (weights * (x - mean) ** 2).sum(0)


@dataclass(frozen=True)
class Widths:
    """Channels of a `CRANet`; the defaults are the published ones. Raise ValueError for what is not a positive integer.

    image_channels, embedding: of the inputs. latent: of what is known of a sample in one view. geometry: of a sample.
    hidden: inside base_fc and geometry_fc; direction_hidden: inside ray_dir_fc; blending_hidden: of the two hidden
    layers of rgb_fc; trust_hidden: inside neuray_fc. attention_heads: of all attentions, each of head_width channels.
    """

    image_channels: int = 32
    embedding: int = 32
    latent: int = 32
    geometry: int = 16
    hidden: int = 64
    direction_hidden: int = 16
    blending_hidden: tuple[int, int] = (16, 8)
    trust_hidden: int = 8
    attention_heads: int = 4
    head_width: int = 4

    def __post_init__(self):
        for field in fields(self):
            width = getattr(self, field.name)
            for value in width if isinstance(width, tuple) else (width,):
                if type(value) is not int or value < 1:
                    raise ValueError(f"CRANet: {field.name} should be a positive whole number, but is {width}")

    @property
    def attention(self) -> dict[str, int]:
        """Return the keywords that `SelfAttention` takes."""
        return {"heads": self.attention_heads, "head_width": self.head_width}


def _kaiming(*networks: nn.Sequential) -> None:
    """Initialise as IBRNet does: normal weights of ReLU's gain, zero biases."""
    for network in networks:
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)


class DensityNet(nn.Sequential):
    """Geometry (R, S, G) -> density (R, S), and the hidden layer before it (R, S, G), from which classes are computed
    too."""

    def __init__(self, width: int):
        super().__init__(nn.Linear(width, width), nn.ELU(), nn.Linear(width, 1), nn.ReLU())

    def forward(self, geometry: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, activation, last, positive = self
        hidden = activation(first(geometry))
        return positive(wide(last(hidden)))[..., 0], hidden


class CRANet(nn.Module):
    """IBRNet's aggregation with Cross-Reprojection Attention: projections of samples into views -> `RayValues`."""

    def __init__(
        self,
        num_classes: int,
        use_attention: bool = True,
        views_first: bool = False,
        with_logits: bool = True,
        heads: dict[str, HeadFactory] | None = None,
        opaque: bool = False,
        blend_by_angle: bool = False,
        **widths,
    ):
        """use_attention, views_first: of Cross-Reprojection Attention. heads: what to render besides colour and
        classes.

        opaque: every ray ends, at its last sample at the latest. blend_by_angle: the blending weights of the views
        start from the angles between their rays and the query's; the learned scores are added. widths: fields of
        `Widths`.
        """
        super().__init__()
        channels = Widths(**widths)
        self.views_first, self.with_logits = views_first, with_logits
        self.latent, self.opaque, self.blend_by_angle = channels.latent, opaque, blend_by_angle
        self._add_geometry_and_color(channels)
        self._add_semantics(channels, num_classes, use_attention, heads or {})

    def _add_geometry_and_color(self, widths: Widths) -> None:
        """Add the layers that NeuRay has too. Their order is that of the published optimiser's state."""
        latent, geometry, hidden = widths.latent, widths.geometry, widths.hidden
        own, direction = 3 + widths.image_channels, 4
        self.ray_dir_fc = nn.Sequential(
            Linear(direction, out=widths.direction_hidden), nn.ELU(), Linear(widths.direction_hidden, out=own), nn.ELU()
        )
        statistics = [own] * 4  # mean and variance by trust, and with all views alike
        first = Linear(*statistics, own, widths.embedding, out=hidden)
        self.base_fc = MLP(first, nn.ELU(), nn.Linear(hidden, latent), nn.ELU())
        self.vis_fc = nn.Sequential(nn.Linear(latent, latent), nn.ELU(), Linear(latent, out=latent + 1), nn.ELU())
        self.vis_fc2 = nn.Sequential(nn.Linear(latent, latent), nn.ELU(), Linear(latent, out=1), nn.Sigmoid())
        first = Linear(latent, latent, 1, out=hidden)
        self.geometry_fc = MLP(first, nn.ELU(), nn.Linear(hidden, geometry), nn.ELU())
        self.ray_attention = SelfAttention(geometry, along=True, **widths.attention)
        self.register_buffer("geometry_places", sine_encoding(PLACES, geometry), persistent=False)
        self.register_buffer("semantic_places", sine_encoding(PLACES, latent), persistent=False)
        self.out_geometry_fc = DensityNet(geometry)
        wider, narrower = widths.blending_hidden
        first = Linear(latent, 1, direction, out=wider)
        self.rgb_fc = MLP(first, nn.ELU(), nn.Linear(wider, narrower), nn.ELU(), Linear(narrower, out=1))
        trust = nn.Linear(widths.embedding, widths.trust_hidden)
        self.neuray_fc = nn.Sequential(trust, nn.ELU(), Linear(widths.trust_hidden, out=1))
        _kaiming(self.base_fc, self.vis_fc, self.vis_fc2, self.geometry_fc, self.rgb_fc, self.neuray_fc)

    def _add_semantics(
        self, widths: Widths, num_classes: int, use_attention: bool, heads: dict[str, HeadFactory]
    ) -> None:
        """Add S-Ray's own layers and the heads. Names with `_new` are absent from a NeuRay checkpoint, and trained in a
        parameter group of their own."""
        latent, geometry, attention = widths.latent, widths.geometry, widths.attention
        self.point_attention_new = SelfAttention(latent, along=False, **attention) if use_attention else None
        self.sem_rtrans_new = SelfAttention(latent, along=True, **attention) if use_attention else None
        self.semantic_fc1_new = nn.Linear(geometry, geometry)
        self.semantic_fc2_new = RayLinear(2 * geometry + latent, num_classes + 1)
        given = HeadWidths(geometry=geometry, semantic=latent)
        self.heads_new = nn.ModuleDict({name: make(given) for name, make in heads.items()})

    def forward(self, sight: Sight, embedding: torch.Tensor, density_only: bool = False) -> RayValues:
        """Aggregate the views' features. embedding: (V, N, C) of the ray distributions."""
        latent = self._fuse_views(sight, embedding)
        refined, visibility = self._refine_visibility(latent, sight)
        geometry = self._ray_geometry(refined, visibility, sight)
        density, hidden = self.out_geometry_fc(geometry)
        hit_probability = hit_probabilities(density.masked_fill(~sight.seen, 0))
        if self.opaque:
            hit_probability = end_at_last(hit_probability)
        if density_only:
            return RayValues(hit_probability, None, {})
        blending = self._blending_weights(refined, visibility, sight)
        color = composite(hit_probability, (blending * sight.color).sum(0).unflatten(0, sight.shape))
        if not (self.with_logits or self.heads_new):
            return RayValues(hit_probability, color, {})
        semantic = self._attend(latent, sight)
        features = SampleFeatures(hit_probability, geometry, hidden, semantic, blending, sight)
        heads = {CLASSES: self._classes(features)} if self.with_logits else {}
        return RayValues(
            hit_probability, color, heads | {name: head(features) for name, head in self.heads_new.items()}
        )

    def _fuse_views(self, sight: Sight, embedding: torch.Tensor) -> torch.Tensor:
        """Return each view's features joined with their mean and variance over all views: (V, N, latent)."""
        features = sight.image_features
        x = torch.cat([sight.color.to(features.dtype), features], -1) + self.ray_dir_fc(sight.direction)
        trusted = torch.sigmoid(self.neuray_fc(embedding)) * sight.uniform
        statistics = [*weighted_mean_and_variance(x, trusted), *weighted_mean_and_variance(x, sight.uniform)]
        return self.base_fc(*statistics, x, embedding)

    def _refine_visibility(self, latent: torch.Tensor, sight: Sight) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latent with a residual added, (V, N, latent), and the visibility of the sample in each view, (V,
        N, 1)."""
        residual, visibility = self.vis_fc(latent * sight.uniform).split([self.latent, 1], -1)
        refined = latent + residual
        visibility = torch.sigmoid(visibility) * sight.mask
        return refined, self.vis_fc2(refined * visibility) * sight.mask

    def _ray_geometry(self, refined: torch.Tensor, visibility: torch.Tensor, sight: Sight) -> torch.Tensor:
        """Return the geometry of each sample after attention along its ray: (R, S, geometry)."""
        weights = visibility / (visibility.sum(0) + 1e-8)
        mean, variance = weighted_mean_and_variance(refined, weights)
        geometry = self.geometry_fc(mean, variance, weights.mean(0)).unflatten(0, sight.shape)
        return self.ray_attention(_with_places(geometry, self.geometry_places), sight.seen_by_several)

    def _blending_weights(self, refined: torch.Tensor, visibility: torch.Tensor, sight: Sight) -> torch.Tensor:
        """Return the softmax over the views, zero where a view does not see the sample: (V, N, 1)."""
        scores = wide(self.rgb_fc(refined, visibility.to(refined.dtype), sight.direction.to(refined.dtype)))
        if self.blend_by_angle:
            scores = scores + angle_scores(sight)
        return torch.softmax(scores.masked_fill(~sight.valid[..., None], INVALID_LOGIT), 0)

    def _attend(self, latent: torch.Tensor, sight: Sight) -> torch.Tensor:
        """Apply Cross-Reprojection Attention: (V, N, latent) -> (V, N, latent)."""
        if self.sem_rtrans_new is None:
            return latent
        steps = [self._attend_along_rays, self._attend_across_views]
        for step in reversed(steps) if self.views_first else steps:
            latent = step(latent, sight)
        return latent

    def _attend_along_rays(self, latent: torch.Tensor, sight: Sight) -> torch.Tensor:
        """Apply intra-view radial attention over S. Samples seen by at most one view attend uniformly."""
        rows = _with_places(latent.unflatten(1, sight.shape), self.semantic_places).flatten(0, 1)
        return self.sem_rtrans_new(rows, sight.seen_by_several).view(latent.shape)

    def _attend_across_views(self, latent: torch.Tensor, sight: Sight) -> torch.Tensor:
        """Apply cross-view sparse attention over V. Views that do not see the sample attend uniformly."""
        return self.point_attention_new(latent, sight.mask[..., 0])

    def _classes(self, features: SampleFeatures) -> torch.Tensor:
        """Return the class logits of each ray, (R, K+1). The class layer is linear, so it is applied after the sums
        over views and samples."""
        hit_probability = features.hit_probability
        of_sample = torch.cat([self.semantic_fc1_new(features.geometry), features.hidden, features.blended()], -1)
        return self.semantic_fc2_new(composite(hit_probability, of_sample), hit_probability.sum(-1, keepdim=True))


def angle_scores(sight: Sight) -> torch.Tensor:
    """Return logarithms of blending weights (V, N, 1): they fall with the angle between the view's ray and the query's,
    and with the disagreement of the view's depth, if it is known."""
    angle = torch.acos(sight.direction[..., 3:].clamp(-1 + 1e-6, 1 - 1e-6))
    scores = -SHARPNESS * angle
    return scores if sight.evidence is None else scores + (sight.evidence.hit[..., None] + 0.05).log()


def _with_places(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Return features (..., S, C) of samples along rays, with the position encoding added."""
    return x + first_places(table, x.shape[-2]).to(x.dtype)
