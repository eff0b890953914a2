"""Renders whole views with a trained network: as fast as the device can, and within the memory that is free."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from dataset.views import Cameras, Views
from network import plain, rewritten
from network.geometry import pixel_grid
from network.renderer import Passes, Renderer
from network.rendering import Encoding, Rays, RenderedView, Rendering, camera_rays
from utils.capture import Captured
from utils.config import Setting
from utils.devices import compiles_for_cpu, runs_triton
from utils.errors import UserError
from utils.logging import say_once, warn
from utils.recent import Recent

try:
    from network.kernels import rendering as kernels
except ImportError:  # no Triton here
    kernels = None

DEFAULTS = {
    # plain: as the papers have it; exact: the same up to rounding; fast: products in float16 where a GPU can, exact and
    # compiled on a CPU; auto: fast, on a CPU exact where compiling takes longer than it saves
    "renderer": Setting("auto", str, choices=("auto", "plain", "exact", "fast")),
    "ray_batch_num": Setting(None, int, minimum=1),  # rays rendered at once; None: by the memory that is free
}
FEWEST_RAYS = 64
# Samples times views at once: what a CPU's caches like. With sixteen times as many it takes twice as long.
CPU_ROWS = 2**16
WORTH_COMPILING = 2**25  # samples times views of a whole view: half a minute's compiling is saved within the view
BATCH_BYTES = 2**29  # that a batch of rays takes on a GPU: more is no faster ...
PLAIN_BATCH_BYTES = 2**32  # ... unless each of its many small kernels has to be started
MEMORY_SHARE = 0.5  # of what is free, if that is less
LARGE_VIEW = 2**20  # pixels; results of larger views are gathered on the host
MOST_IMAGES = 64  # whose features are kept
MOST_SHAPES = 8  # sizes of views and numbers of references for which a GPU's work is kept as a recording


class ViewRenderer:
    """`encode` references, then `render` any number of views from them. Nothing in between waits for the device."""

    def __init__(self, network: Renderer, renderer: str = "auto", rays_at_once: int | None = None):
        """renderer: as the config's. The network's weights are read when this is made."""
        self.network = network.eval()
        self.device = next(network.parameters()).device
        on_gpu = self.device.type == "cuda"
        self.name = "fast" if renderer == "auto" and on_gpu else renderer
        self.has_kernels = kernels is not None and runs_triton(self.device)
        self.rays_at_once = rays_at_once
        self.halves = self.name == "fast" and self.has_kernels
        self.dtype = torch.float16 if self.halves else torch.float32
        self._encode = Captured(network.encode, MOST_SHAPES) if on_gpu and self.name != "plain" else network.encode
        self._images: Recent[str, torch.Tensor] = Recent(MOST_IMAGES)

    @torch.no_grad()
    def encode(self, references: Views, names: Sequence[str] | None = None) -> Encoding:
        """Everything that depends on the references alone.

        names: of their images; what is known of an image by itself is kept under its name, for other sets of references.
        """
        with exact_convolutions():
            known = () if names is None else (self._image_features(references, names),)
            encoding = self._encode(references, *known)
        return replace(encoding, features=encoding.features.to(self.dtype))

    def _image_features(self, references: Views, names: Sequence[str]) -> torch.Tensor:
        """Of each image its own features, made once."""
        features = {name: self._images[name] for name in names if name in self._images}
        new = [i for i, name in enumerate(names) if name not in features]
        if new:
            images = references.images[new]
            made = self.network.encode_images(Views(references.cameras, images))
            features.update((names[i], feature) for i, feature in zip(new, made, strict=True))
        self._images.update(features)
        return torch.stack([features[name] for name in names])

    @torch.no_grad()
    def render(self, encoding: Encoding, camera: Cameras) -> RenderedView:
        """The whole image of one camera. Raises UserError if the device's memory is too small for anything."""
        rays = camera_rays(camera, pixel_grid(*camera.size, device=encoding.images.device)[None])
        passes = self._passes(encoding, len(rays))
        render_batch = self._replay if in_kernels(passes) else self._renderer(passes)
        batches = math.ceil(len(rays) / self._rays_at_once(encoding, passes))
        count, start, parts = math.ceil(len(rays) / batches), 0, []
        while start < len(rays):
            begin = max(min(start, len(rays) - count), 0)  # all batches have one size: what is compiled is so once
            try:
                part = render_batch(encoding, rays[begin : begin + count])[start - begin :]
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if count <= FEWEST_RAYS:
                    raise UserError(
                        f"the GPU has no memory for {count} rays from {len(encoding.cameras)} references; "
                        "free some, lower train_dataset_cfg.min_wn, or set device=cpu"
                    ) from None
                count = max(count // 2, FEWEST_RAYS)
                continue
            parts.append(part.to("cpu") if len(rays) > LARGE_VIEW else part)
            start = begin + count
        return RenderedView.join(parts)

    def _renderer(self, passes: Passes) -> Callable[[Encoding, Rays], RenderedView]:
        """`render_rays` of this network. It does not hold this object, which is so freed, recordings and all, once unused."""
        return functools.partial(render_rays, self.network, passes, self.halves)

    def _passes(self, encoding: Encoding, rays: int) -> Passes:
        """How to render a view of so many rays."""
        stages = self.network.coarse_stage, self.network.fine_stage
        if self.name == "plain" or (self.device.type == "cuda" and not self.has_kernels):
            return Passes(plain.render_pass, *stages)
        if self.has_kernels and kernels.supports(encoding, self._samples()):
            return self._kernel_passes
        if self._compiles(rays * self._samples() * len(encoding.cameras)):
            return Passes(self._compiled_pass, *stages)
        return Passes(rewritten.render_pass, *stages)

    def _compiles(self, work: int) -> bool:
        """Whether a CPU renders a view of so many samples times views by a compiled pass."""
        wanted = self.name == "fast" or (self.name == "auto" and work >= WORTH_COMPILING)
        return wanted and self.device.type == "cpu" and compiles_for_cpu()

    @functools.cached_property
    def _compiled_pass(self) -> Callable[..., Rendering]:
        say_once("compiling for this processor, which takes half a minute the first time")
        chosen = rewritten.fused_pass()

        def render_pass(*inputs) -> Rendering:
            nonlocal chosen
            try:
                return chosen(*inputs)
            except torch._dynamo.exc.TorchDynamoException as error:
                warn(f"it cannot be compiled, and runs as it is ({str(error).splitlines()[0]})")
                chosen = rewritten.render_pass
                return chosen(*inputs)

        return render_pass

    def _samples(self) -> int:
        """Of a ray, in the pass that has more."""
        stages = [stage for stage in (self.network.coarse_stage, self.network.fine_stage) if stage is not None]
        return max(len(stage.agg_net.agg_impl.geometry_encoding) for stage in stages)

    @functools.cached_property
    def _kernel_passes(self) -> Passes:
        say_once("compiling kernels for this GPU, which takes a minute the first time")
        stages = [
            None if stage is None else kernels.PackedStage.of(stage, self.dtype)
            for stage in (self.network.coarse_stage, self.network.fine_stage)
        ]
        return Passes(kernels.render_pass, *stages)

    @functools.cached_property
    def _replay(self) -> Captured:
        """`render_rays` in kernels, as a recording: the host would start them hardly faster than they run."""
        return Captured(self._renderer(self._kernel_passes), MOST_SHAPES)

    def _rays_at_once(self, encoding: Encoding, passes: Passes) -> int:
        """As many as fit into the memory that is free: what a sample takes in a view, and by itself."""
        if self.rays_at_once is not None:
            return self.rays_at_once
        if self.device.type != "cuda":
            return max(FEWEST_RAYS, CPU_ROWS // (self._samples() * len(encoding.cameras)))
        free, _ = torch.cuda.mem_get_info(self.device)
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        in_view = 40 * self.dtype.itemsize + 21 if in_kernels(passes) else 4000  # bytes: `Sights`, `ViewsOutput`
        of_ray = self._samples() * (len(encoding.cameras) * in_view + 300)
        most = BATCH_BYTES if in_kernels(passes) else PLAIN_BATCH_BYTES
        return max(FEWEST_RAYS, int(min(most, free * MEMORY_SHARE) / of_ray))


def render_rays(network: Renderer, passes: Passes, halves: bool, encoding: Encoding, rays: Rays) -> RenderedView:
    """The final pass of some rays. halves: products in half precision."""
    with torch.autocast(rays.directions.device.type, torch.bfloat16, enabled=halves):
        final = network.render_rays(encoding, rays, passes=passes, final_only=True).final
    return RenderedView(final.color, final.logits, final.depth, final.deviation, final.scored)


def in_kernels(passes: Passes) -> bool:
    return kernels is not None and passes.render is kernels.render_pass


@contextlib.contextmanager
def exact_convolutions() -> Iterator[None]:
    """In here cuDNN does not round what it multiplies to ten bits, as it does by default.

    Features would be off by a percent, which costs a rendering more than all products of float16.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
