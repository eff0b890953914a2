"""The whole network: encode the references once, then render any pixels of any query view from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from dataset.views import Batch, Cameras, Tensors, Views
from network import init_net
from network.aggregate_net import AggregateNet
from network.compositing import composite, hit_probabilities
from network.dist_decoder import DistDecoder, visibility_and_hit
from network.geometry import directions_to_cameras, pixel_grid, pixel_rays, project, read_map, to_inverse_depth
from network.image_encoder import image_encoder
from network.sampling import importance_depths, inverse_depth_intervals, uniform_depths
from network.vis_encoder import VisEncoder
from utils.config import Setting, no_effect
from utils.errors import UserError

_AGGREGATION = {
    "label_hidden": [16],  # empty: no logits; the numbers themselves have no effect
    "num_classes": Setting(None, int, minimum=1),  # None: the top level's
    "use_ptrans": True,  # Cross-Reprojection Attention
    "ptrans_first": False,  # across the views first, then along the ray
    **no_effect("sem_only", "use_img_feats", "rp_args", "fuse_type", "neuray_feats"),
}
DEFAULTS = {
    **init_net.DEFAULTS,
    "num_classes": Setting(20, int, minimum=1, maximum=254),
    "render_label": True,
    "use_hierarchical_sampling": True,
    "depth_sample_num": Setting(64, int, minimum=4),
    "fine_depth_sample_num": Setting(64, int, minimum=4),
    "fine_depth_use_all": False,  # keep the coarse samples in the fine pass
    "ray_batch_num": Setting(2048, int, minimum=1),  # rays rendered at once outside training
    "ray_mask_view_num": Setting(2, int, minimum=0),  # a ray is scored if more than `ray_mask_point_num` of its
    "ray_mask_point_num": Setting(8, int, minimum=0),  # samples are seen by more than `ray_mask_view_num` views
    "dist_decoder_cfg": {"use_vis": True},
    "fine_dist_decoder_cfg": {"use_vis": True},
    "agg_net_cfg": _AGGREGATION,
    "fine_agg_net_cfg": _AGGREGATION,
}
PADDING = 16  # the encoders halve the size four times


@dataclass(frozen=True)
class Encoding(Tensors):
    """What is kept of V references: padded images (V, 3, h, w), two maps (V, 32, h/4, w/4), and where the
    images count, (V, 1, h, w) of 0 and 1, or None for everywhere. depth: (V, 1, h/4, w/4) metres if the front
    end predicts it."""

    cameras: Cameras
    images: torch.Tensor
    image_features: torch.Tensor
    ray_features: torch.Tensor
    mask: torch.Tensor | None = None
    depth: torch.Tensor | None = None


@dataclass(frozen=True)
class Rendering(Tensors):
    """Of R rays: color (R, 3), logits (R, K+1) or None, depth (R,) metres, the hit probability (R, S) of each
    sample at depths (R, S), and `scored` (R,) bool: enough samples were seen by enough views."""

    color: torch.Tensor
    logits: torch.Tensor | None
    depth: torch.Tensor
    hit_probability: torch.Tensor
    depths: torch.Tensor
    scored: torch.Tensor


@dataclass(frozen=True)
class Prediction(Tensors):
    """The two passes of one renderer; `fine` is None without hierarchical sampling. reference_depth: metres
    (V, 1, h/4, w/4), if the front end predicts it."""

    coarse: Rendering
    fine: Rendering | None
    reference_depth: torch.Tensor | None = None

    @property
    def final(self) -> Rendering:
        return self.coarse if self.fine is None else self.fine


class Renderer(nn.Module):
    """S-Ray's network. `cfg` has the keys of `DEFAULTS`.

    The order in which modules are made is that of the published code: it orders the optimiser's state.
    """

    def __init__(self, cfg):
        super().__init__()
        self.depth_samples = cfg.depth_sample_num
        self.fine_samples = cfg.fine_depth_sample_num
        self.keep_coarse_samples = cfg.fine_depth_use_all
        self.rays_at_once = cfg.ray_batch_num
        self.scored_views, self.scored_samples = cfg.ray_mask_view_num, cfg.ray_mask_point_num
        fine_length = self.fine_samples + self.depth_samples * self.keep_coarse_samples

        self.vis_encoder = VisEncoder()
        self.dist_decoder = DistDecoder(cfg.dist_decoder_cfg.use_vis)
        self.image_encoder = image_encoder()
        self.agg_net = _aggregate_net(cfg, "agg_net_cfg", self.depth_samples)
        self.fine_dist_decoder = self.fine_agg_net = None
        if cfg.use_hierarchical_sampling:
            self.fine_dist_decoder = DistDecoder(cfg.fine_dist_decoder_cfg.use_vis)
            self.fine_agg_net = _aggregate_net(cfg, "fine_agg_net_cfg", fine_length)
        self.init_net = init_net.build_init_net(cfg)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Prediction:
        """Renders `batch.pixels` of the query; with a generator the fine depths are random (training)."""
        encoding = self.encode(batch.references)
        prediction = self.render_rays(encoding, batch.query.cameras, batch.pixels, generator)
        return replace(prediction, reference_depth=encoding.depth)

    def encode(self, references: Views) -> Encoding:
        """Everything that depends on the references alone."""
        references = pad_views(references, PADDING)
        image_features = self.image_encoder(references.images)
        geometry = self.init_net(references, image_features)
        ray_features = self.vis_encoder(image_features, geometry.features)
        return Encoding(
            references.cameras, references.images, image_features, ray_features, references.mask, geometry.depth
        )

    def render_rays(
        self, encoding: Encoding, camera: Cameras, pixels: torch.Tensor, generator: torch.Generator | None = None
    ) -> Prediction:
        """Pixels (R, 2) of one camera, coarse and fine."""
        depth_range = camera.depth_range[0]
        depths = uniform_depths(depth_range, self.depth_samples).expand(len(pixels), -1)
        coarse = self._render_pass(encoding, camera, pixels, depths, self.dist_decoder, self.agg_net)
        if self.fine_agg_net is None:
            return Prediction(coarse, None)
        fine_depths = importance_depths(depths, coarse.hit_probability, depth_range, self.fine_samples, generator)
        if self.keep_coarse_samples:
            fine_depths = torch.cat([depths, fine_depths], -1).sort(-1).values
        fine = self._render_pass(encoding, camera, pixels, fine_depths, self.fine_dist_decoder, self.fine_agg_net)
        return Prediction(coarse, fine)

    @torch.no_grad()
    def render_view(self, encoding: Encoding, camera: Cameras) -> Rendering:
        """The whole image of one camera, `ray_batch_num` rays at a time; R = height * width, row by row."""
        pixels = pixel_grid(*camera.size, device=encoding.images.device)
        parts = [self.render_rays(encoding, camera, part).final for part in pixels.split(self.rays_at_once)]
        return _concatenate(parts)

    def _render_pass(self, encoding, camera, pixels, depths, dist_decoder, agg_net) -> Rendering:
        centres, directions = pixel_rays(pixels[None], camera.poses, camera.Ks)
        centre, directions = centres[0], directions[0]
        points = (centre + depths[..., None] * directions[:, None]).reshape(-1, 3)
        rays_and_samples = depths.shape

        projection = project(points, encoding.cameras)
        size = encoding.cameras.size
        if encoding.mask is not None:  # what a mask hides is not seen
            counts = read_map(encoding.mask, projection.pixels, size, align_corners=True)[..., 0] > 0.99
            projection = projection._replace(valid=projection.valid & counts)
        mask = projection.valid[..., None]
        color = read_map(encoding.images, projection.pixels, size, align_corners=True) * mask
        ray_features = read_map(encoding.ray_features, projection.pixels, size, align_corners=False) * mask
        image_features = read_map(encoding.image_features, projection.pixels, size, align_corners=False) * mask

        def per_sample(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(1, rays_and_samples)

        valid = per_sample(projection.valid)
        distribution = dist_decoder(ray_features)
        distribution = type(distribution)(*[None if x is None else per_sample(x) for x in distribution])
        inverse_depth = to_inverse_depth(per_sample(projection.depth), encoding.cameras.depth_range)
        intervals = inverse_depth_intervals(depths, camera.depth_range[0])
        visibility, hit = visibility_and_hit(distribution, inverse_depth, intervals)

        values = agg_net(
            per_sample(color),
            per_sample(image_features),
            per_sample(ray_features),
            hit * valid,
            visibility * valid,
            per_sample(directions_to_cameras(points, encoding.cameras)),
            -directions / directions.norm(dim=-1, keepdim=True),
            valid,
        )
        hit_probability = hit_probabilities(values.density)
        logits = None if values.logits is None else composite(hit_probability, values.logits)
        scored = ((valid.sum(0) > self.scored_views).sum(-1)) > self.scored_samples
        return Rendering(
            composite(hit_probability, values.color),
            logits,
            (hit_probability * depths).sum(-1),
            hit_probability,
            depths,
            scored,
        )


def _aggregate_net(cfg, key: str, samples: int) -> AggregateNet:
    """Raises UserError where the section's own number of classes contradicts the top level's."""
    section = cfg[key]
    if section.num_classes not in (None, cfg.num_classes):
        raise UserError(
            f"{key}.num_classes is {section.num_classes} but num_classes is {cfg.num_classes}: "
            f"give both the same, or leave {key}.num_classes out"
        )
    return AggregateNet(
        num_classes=cfg.num_classes,
        samples=samples,
        use_attention=section.use_ptrans,
        views_first=section.ptrans_first,
        with_logits=cfg.render_label and bool(section.label_hidden),
    )


def pad_views(views: Views, multiple: int) -> Views:
    """Pads images and depth at the bottom and right by reflection to a multiple of `multiple` pixels."""
    height, width = views.cameras.size
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return views

    def pad(x):
        return None if x is None else F.pad(x, (0, right, 0, below), mode="reflect")

    cameras = replace(views.cameras, size=(height + below, width + right))
    padded = {name: pad(getattr(views, name)) for name in ("images", "depth", "mask")}
    sources = views.sources and replace(views.sources, views=pad_views(views.sources.views, multiple))
    return replace(views, cameras=cameras, labels=None, sources=sources, **padded)


def _concatenate(parts: list[Rendering]) -> Rendering:
    columns = {name: [getattr(part, name) for part in parts] for name in Rendering.__dataclass_fields__}
    return Rendering(**{name: None if column[0] is None else torch.cat(column) for name, column in columns.items()})
