"""The networks that the engine was built for."""

from __future__ import annotations

import functools
from dataclasses import fields

import torch
from torch import nn

from network.aggregate_net import AggregateNet
from network.dist_decoder import DistDecoder
from network.heads import ContextHead
from network.ops.attention import LONGEST
from network.renderer import Renderer
from network.rendering import CONTEXT, Encoding
from network.stage import Stage

MOST_VIEWS = 16
IMAGE_CHANNELS, CHANNELS = 32, 64  # of an encoding: image features, and ray features after them
KNOWN = {"cameras", "images", "features", "image_channels", "mask", "depth", "surfaces", "shown"}  # of an encoding
TAKEN = {"views_first": False, "with_logits": True}  # settings of `CRANet` that the engine has both ways
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def reason_against(network: Renderer, encoding: Encoding) -> str | None:
    """Return None if the engine renders what the network's own modules would; otherwise the reason against it.

    It was built for passes of at most LONGEST samples a ray and MOST_VIEWS views with 32 image and 32 ray features, of
    exactly the modules that `DistDecoder` and `AggregateNet` are made of: of these classes, widths and settings (heads of
    attention, how colours are blended, …), and as their classes have them: no hooks, no parametrizations, no forward of their
    own. Networks with surfaces have no `DistDecoder`, blend by angle and may have a `ContextHead`; others have no further heads.
    """
    views, channels = len(encoding.cameras), (encoding.image_channels, encoding.features.shape[-1])
    if views > MOST_VIEWS:
        return f"there are {views} views, more than {MOST_VIEWS}"
    if network.sampler.most_samples > LONGEST:
        return f"a ray has {network.sampler.most_samples} samples, more than {LONGEST}"
    if channels != (IMAGE_CHANNELS, CHANNELS):
        return (
            f"the encoding has {channels[0]} of {channels[1]} channels for images, not {IMAGE_CHANNELS} of {CHANNELS}"
        )
    for field in fields(encoding):
        if field.name not in KNOWN and getattr(encoding, field.name) is not None:
            return f"the encoding has {field.name}"
    names = {module: name for name, module in network.named_children()}
    for stage in network.stages:
        if (stage.dist_decoder is None) != (encoding.surfaces is not None):
            return "it takes networks with surfaces and without a decoder of distributions, or the other way round"
        for module, expected in zip((stage.dist_decoder, stage.agg_net), _built_for(stage), strict=True):
            reason = None if expected is None else _difference(names[module], module, expected)
            if reason is not None:
                return reason
    return None


def _built_for(stage: Stage) -> tuple[nn.Module | None, nn.Module]:
    """Return the networks that the engine expects where these are, which may differ in their settings. A decoder is none
    where the stage has surfaces."""
    use_vis = getattr(stage.dist_decoder, "vis_decoder", None) is not None
    impl = getattr(stage.agg_net, "agg_impl", None)
    classes = getattr(getattr(impl, "semantic_fc2_new", None), "out_features", 1) - 1
    softplus = isinstance(getattr(impl, "out_geometry_fc", [None])[-1], nn.Softplus)
    taken = tuple((name, getattr(impl, name, default)) for name, default in TAKEN.items())
    own = use_vis, classes, getattr(impl, "sem_rtrans_new", None) is not None, softplus, taken
    return _expected(*own, stage.dist_decoder is None, CONTEXT in getattr(impl, "heads_new", ()))


@functools.lru_cache(maxsize=8)
def _expected(
    use_vis: bool, classes: int, use_attention: bool, softplus: bool, taken: tuple[tuple[str, bool], ...],
    surfaces: bool, context: bool,
) -> tuple[nn.Module | None, nn.Module]:  # fmt: skip
    own = (
        {"opaque": True, "blend_by_angle": True, "heads": {CONTEXT: ContextHead} if context else {}} if surfaces else {}
    )
    with torch.device("meta"):
        decoder = None if surfaces else DistDecoder(use_vis)
        aggregation = AggregateNet(num_classes=classes, use_attention=use_attention, **dict(taken), **own)
    if softplus:
        aggregation.agg_impl.out_geometry_fc[-1] = nn.Softplus()
    return decoder, aggregation


def _difference(name: str, module: nn.Module, expected: nn.Module) -> str | None:
    """Return how a module differs from the expected one, in words."""
    if type(module) is not type(expected):
        return f"{name} is a {type(module).__name__}, not a {type(expected).__name__}"
    if "forward" in vars(module) or any(getattr(module, kind) for kind in HOOKS):
        return f"{name} has hooks, or a forward of its own"
    own, theirs = (dict(x.named_parameters(recurse=False)) for x in (module, expected))
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in theirs.items()}:
        return f"{name} has other parameters than it was built for"
    own, theirs = _settings(module), _settings(expected)
    other = next((key for key in own | theirs if own.get(key) != theirs.get(key)), None)
    if other is not None:
        return f"{name}.{other} is {own.get(other)}, not {theirs.get(other)}"
    own, theirs = (dict(x.named_children()) for x in (module, expected))
    if own.keys() != theirs.keys():
        return f"{name} has other parts than it was built for"
    return next(
        (reason for key in own if (reason := _difference(f"{name}.{key}", own[key], theirs[key])) is not None), None
    )


def _settings(module: nn.Module) -> dict[str, object]:
    """Return what a module was made with that shows in no parameter, such as heads of attention: they change what it
    computes."""
    return {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and type(value) in (bool, int, float, str, tuple)
    }
