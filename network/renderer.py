"""The whole network: encode the references once, then render any pixels of any query view from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from dataset.views import Cameras, Views
from network import init_net, rewritten
from network.aggregate_net import AggregateNet
from network.depth_init_net import Geometry
from network.dist_decoder import DistDecoder
from network.image_encoder import image_encoder
from network.rendering import Encoding, Prediction, Rays, Rendering, Stage, camera_rays
from network.sampling import SPACINGS, importance_depths, uniform_depths
from network.vis_encoder import VisEncoder
from utils.capture import concurrently
from utils.config import Setting, no_effect
from utils.errors import UserError

DENSITY_ACTIVATIONS = {"relu": nn.ReLU, "softplus": nn.Softplus}
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
    "sample_spacing": Setting("inverse", str, choices=SPACINGS),  # of the coarse samples; inverse: as published
    "density_activation": Setting(
        "relu", str, choices=tuple(DENSITY_ACTIVATIONS)
    ),  # relu, as published, may die: where
    # no density is positive nothing is learned any more
    "density_bias": Setting(None, float),  # of the density layer at the start; None: drawn, as published
    "fine_depth_use_all": False,  # keep the coarse samples in the fine pass
    "ray_mask_view_num": Setting(2, int, minimum=0),  # a ray is scored if more than `ray_mask_point_num` of its
    "ray_mask_point_num": Setting(8, int, minimum=0),  # samples are seen by more than `ray_mask_view_num` views
    "dist_decoder_cfg": {"use_vis": True},
    "fine_dist_decoder_cfg": {"use_vis": True},
    "agg_net_cfg": _AGGREGATION,
    "fine_agg_net_cfg": _AGGREGATION,
}
PADDING = 16  # the encoders halve the size four times


class Passes(NamedTuple):
    """A way to render: `render(stage, encoding, rays, depths, density_only)`, and the stages that it takes."""

    render: Callable[..., Rendering]
    coarse: Any
    fine: Any


class Renderer(nn.Module):
    """S-Ray's network. `cfg` has the keys of `DEFAULTS`.

    The order in which modules are made is that of the published code: it orders the optimiser's state.
    """

    def __init__(self, cfg):
        super().__init__()
        self.depth_samples, self.sample_spacing = cfg.depth_sample_num, cfg.sample_spacing
        self.fine_samples = cfg.fine_depth_sample_num
        self.keep_coarse_samples = cfg.fine_depth_use_all
        self.render_pass = rewritten.render_pass
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
        scoring = cfg.ray_mask_view_num, cfg.ray_mask_point_num
        self.coarse_stage = Stage(self.dist_decoder, self.agg_net, *scoring)
        self.fine_stage = Stage(self.fine_dist_decoder, self.fine_agg_net, *scoring) if self.fine_agg_net else None

    def forward(
        self, references: Views, query: Cameras, pixels: torch.Tensor, draws: torch.Tensor | None = None
    ) -> Prediction:
        """Renders pixels (Q, N, 2) of Q query cameras: R = Q * N rays. draws: see `render_rays`."""
        encoding = self.encode(references)
        prediction = self.render_rays(encoding, camera_rays(query, pixels), draws)
        return replace(prediction, reference_depth=encoding.depth)

    def draw(self, rays: int, generator: torch.Generator) -> torch.Tensor:
        """Random draws (rays, fine samples) for `render_rays`."""
        return torch.rand(rays, self.fine_samples, generator=generator, device=generator.device)

    def encode_images(self, references: Views) -> torch.Tensor:
        """What each image is by itself, whatever it stands next to: (V, 32, h/4, w/4)."""
        return self.image_encoder(pad_views(references, PADDING).images)

    def encode(self, references: Views, image_features: torch.Tensor | None = None) -> Encoding:
        """Everything that depends on the references alone. image_features: what `encode_images` made of them.

        In float32 under autocast too, but for its result: bfloat16 would put features off by 5%.
        """
        references = pad_views(references, PADDING)
        device = references.images.device.type
        with torch.autocast(device, enabled=False):
            image_features, geometry = self._read(references, image_features)
            ray_features = self.vis_encoder(image_features, geometry.features)
            features = torch.cat([image_features, ray_features], 1).permute(0, 2, 3, 1).contiguous()
        if torch.is_autocast_enabled(device):
            features = features.to(torch.get_autocast_dtype(device))
        return Encoding(references.cameras, references.images, features, references.mask, geometry.depth)

    def _read(self, references: Views, image_features: torch.Tensor | None) -> tuple[torch.Tensor, Geometry]:
        """Image features (V, 32, h/4, w/4), made unless they are given, and what the front end finds."""
        images = references.images
        if image_features is None and not self.init_net.reads_image_features:
            return concurrently(images.device, lambda: self.image_encoder(images), lambda: self.init_net(references))
        image_features = self.image_encoder(images) if image_features is None else image_features
        return image_features, self.init_net(references, image_features)

    def render_rays(
        self,
        encoding: Encoding,
        rays: Rays,
        draws: torch.Tensor | None = None,
        passes: Passes | None = None,
        final_only: bool = False,
    ) -> Prediction:
        """The coarse and the fine pass. draws: (R, fine samples) in [0, 1) make the fine depths random (training).

        passes: how to render, None for what training uses. final_only: of a coarse pass that a fine one follows, only
        what the fine one needs.
        """
        passes = passes or Passes(self.render_pass, self.coarse_stage, self.fine_stage)
        depths = uniform_depths(rays.depth_range, self.depth_samples, self.sample_spacing)
        density_only = final_only and passes.fine is not None
        coarse = passes.render(passes.coarse, encoding, rays, depths, density_only)
        if passes.fine is None:
            return Prediction(coarse, None)
        fine_depths = importance_depths(depths, coarse.hit_probability, rays.depth_range, self.fine_samples, draws)
        if self.keep_coarse_samples:
            fine_depths = torch.cat([depths, fine_depths], -1).sort(-1).values
        return Prediction(coarse, passes.render(passes.fine, encoding, rays, fine_depths))


def _aggregate_net(cfg, key: str, samples: int) -> AggregateNet:
    """Raises UserError where the section's own number of classes contradicts the top level's."""
    section = cfg[key]
    if section.num_classes not in (None, cfg.num_classes):
        raise UserError(
            f"{key}.num_classes is {section.num_classes} but num_classes is {cfg.num_classes}: "
            f"give both the same, or leave {key}.num_classes out"
        )
    network = AggregateNet(
        num_classes=cfg.num_classes,
        samples=samples,
        use_attention=section.use_ptrans,
        views_first=section.ptrans_first,
        with_logits=cfg.render_label and bool(section.label_hidden),
    )
    density = network.agg_impl.out_geometry_fc
    density[-1] = DENSITY_ACTIVATIONS[cfg.density_activation]()
    if cfg.density_bias is not None:
        nn.init.constant_(density[-2].bias, cfg.density_bias)
    return network


def pad_views(views: Views, multiple: int) -> Views:
    """Pads images and depth at the bottom and right by reflection to a multiple of `multiple` pixels.

    Raises UserError where a side is not longer than that: nothing would be left to reflect.
    """
    height, width = views.cameras.size
    if min(height, width) <= multiple:
        raise UserError(
            f"images of {width}x{height} are too small: the network needs more than {multiple} pixels a side"
        )
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return views

    def pad(x):
        return None if x is None else F.pad(x, (0, right, 0, below), mode="reflect")

    cameras = replace(views.cameras, size=(height + below, width + right))
    padded = {name: pad(getattr(views, name)) for name in ("images", "depth", "mask")}
    sources = views.sources and replace(views.sources, views=pad_views(views.sources.views, multiple))
    return replace(views, cameras=cameras, labels=None, sources=sources, **padded)
