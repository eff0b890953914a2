"""Renders whole views with a trained network: as fast as the device can, and within the memory that is free."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace

import torch

from dataset.views import Cameras, Views
from network.backend import RENDERERS, Backend
from network.engine.requirements import reason_against
from network.engine.stage import EngineStage
from network.exposure import balanced
from network.floor import Floor, find_floor, with_floor
from network.geometry import pixel_grid
from network.linear import parts, untouched
from network.renderer import Renderer, RunStage
from network.rendering import CLASSES, Encoding, Rays, RenderedView, camera_rays
from utils.config import Setting
from utils.errors import UserError
from utils.logging import say_once
from utils.recent import Recent

DEFAULTS = {
    # plain: the modules as they are, float32; exact: the same up to rounding; fast: products in float16 where a GPU
    # can, exact and compiled on a CPU; auto: fast, on a CPU exact where compiling takes longer than it saves
    "renderer": Setting("auto", str, choices=RENDERERS),
    # rays rendered at once; null: by the free memory, on a CPU by the size of its caches
    "ray_batch_num": Setting(None, int, minimum=1),
}
FEWEST_RAYS = 64  # in a batch, even if memory is short
CPU_ROWS = 2**16  # samples times views in a batch that fit into a CPU's caches; 16 times as many take twice as long
BATCH_BYTES = 2**29  # memory of a batch on a GPU: larger batches are no faster ...
MODULES_BATCH_BYTES = 2**32  # ... unless the modules' many small kernels are launched one by one
MEMORY_SHARE = 0.5  # of the free memory that a batch may take, if that is less
# Memory of a sample in one view: in the engine (`Sights`, `ViewsOutput`) this many values of the products' type and
# further bytes; in the modules bytes. And of a sample by itself.
ENGINE_VALUES, ENGINE_BYTES, MODULES_BYTES, SAMPLE_BYTES = 40, 21, 4000, 300
LARGE_VIEW = 2**20  # pixels; results of larger views are gathered on the host
MOST_IMAGES = 64  # whose features are kept
SMALLEST_ROOM = 16  # recordings have room for at least 1/16 of the rays in the group with all samples
MOST_SHAPES = 8  # recordings of a GPU's work that are kept: one for each size of views and number of references


class ViewRenderer:
    """`encode` references, then `render` any number of views from them.

    The host waits for the device twice: to know whether the references' depth is complete, and how many rays need all
    samples.
    """

    def __init__(self, network: Renderer, backend: Backend | None = None, rays_at_once: int | None = None):
        """backend: None for the fastest one. The engine reads the network's weights once, when it is first used."""
        self.network = network.eval()
        self.device = next(network.parameters()).device
        self.backend = backend or Backend.for_rendering("auto", self.device)
        self.rays_at_once = rays_at_once
        self._encode = self.backend.recorded(functools.partial(encode, network, self.backend), MOST_SHAPES, network)
        self._images: Recent[str, torch.Tensor] = Recent(MOST_IMAGES)
        self._reasons: Recent[tuple, str | None] = Recent(MOST_SHAPES)  # against the engine
        self._last_floor: tuple[weakref.ref[Encoding] | None, Floor | None] = None, None  # of which references

    @torch.no_grad()
    def encode(self, references: Views, names: Sequence[str] | None = None) -> Encoding:
        """Encode the references: everything that depends on them alone.

        names: of their images. Image features are cached by these names and reused in other sets of references.
        """
        if self.network.init_net.measured_depth and references.depth is not None:
            references = replace(references, complete=bool((references.depth > 0).all()))
        known = () if names is None else (self._image_features(references, names),)
        return self._encode(references, *known)

    def _image_features(self, references: Views, names: Sequence[str]) -> torch.Tensor:
        """Return the features of each image, from the cache where it has them."""
        features = {name: self._images[name] for name in names if name in self._images}
        new = [i for i, name in enumerate(names) if name not in features]
        if new:
            images = references.images[new]
            with self.backend.at_work(self.network), self.backend.encoding(self.network):
                made = self.network.encode_images(Views(references.cameras, images))
            features.update((names[i], feature) for i, feature in zip(new, made, strict=True))
        self._images.update(features)
        return torch.stack([features[name] for name in names])

    @torch.no_grad()
    def render(self, encoding: Encoding, camera: Cameras) -> RenderedView:
        """Render the whole image of one camera. Raise UserError if the device's memory is too small for FEWEST_RAYS
        rays."""
        view = self._shown(encoding, camera)
        floor = self._floor(encoding)
        return view if floor is None else self._with_floor(view, floor, camera)

    def _floor(self, encoding: Encoding) -> Floor | None:
        """Return the floor in the depth of the references, found once; None without `floor_class` or a floor."""
        if self.network.floor_class is None:
            return None
        known, floor = self._last_floor
        if known is None or known() is not encoding:
            floor = find_floor(encoding.surfaces[..., 0], encoding.cameras)
            self._last_floor = weakref.ref(encoding), floor
        return floor

    def _with_floor(self, view: RenderedView, floor: Floor, camera: Cameras) -> RenderedView:
        """Return a view whose classes agree with the height of each point above the floor (`floor_class`)."""
        rays = camera_rays(camera, pixel_grid(*camera.size, device=camera.poses.device)[None])
        points = rays.points(view.depth.to(camera.poses)[:, None])
        logits = with_floor(view.logits, points, floor, self.network.floor_class)
        return replace(view, heads={**view.heads, CLASSES: logits})

    def _shown(self, encoding: Encoding, camera: Cameras) -> RenderedView:
        """Render a whole image, by kernels or modules."""
        in_engine = self._in_engine(encoding)
        if in_engine:
            encoding = replace(encoding, features=encoding.features.to(self._product_type))
        if self.network.balances_exposure:
            encoding = self._balanced(encoding, camera)
        # Recording pays where there are many small kernels. The engine without surfaces has a few long ones.
        many_kernels = not in_engine or self.network.sampler.reads_surfaces
        if self.backend.record and many_kernels and math.prod(camera.size) <= LARGE_VIEW:
            rays = self._recorded_rays(encoding, camera)
            return self._recorded_render(encoding, rays, camera.size, self._room(rays), in_engine)
        return self._render(encoding, self._rays(encoding, camera), camera.size, None, in_engine)

    def _rays(self, encoding: Encoding, camera: Cameras) -> Rays:
        pixels = pixel_grid(*camera.size, device=encoding.images.device)[None]
        return self.network.sampler.rays(encoding, camera, pixels)

    @functools.cached_property
    def _balanced(self) -> Callable[[Encoding, Cameras], Encoding]:
        return self.backend.recorded(balanced, MOST_SHAPES)

    @functools.cached_property
    def _recorded_rays(self) -> Callable[[Encoding, Cameras], Rays]:
        this = weakref.proxy(self)  # a strong reference would be a cycle: renderer, recording, renderer
        return self.backend.recorded(lambda *inputs: this._rays(*inputs), MOST_SHAPES, self.network)

    @functools.cached_property
    def _recorded_render(self) -> Callable[..., RenderedView]:
        """`_render` where its kernels are many and small."""
        this = weakref.proxy(self)
        return self.backend.recorded(lambda *inputs: this._render(*inputs), MOST_SHAPES, self.network)

    def _room(self, rays: Rays) -> int | None:
        """Return the `room` of `Sampler.groups`: the number of rays halved as often as possible, since each size needs
        a recording of its own. None if all rays need the same number of samples."""
        count = self.network.sampler.count_full(rays)
        if count is None:
            return None
        needed, room = int(count), len(rays)
        while room // 2 >= max(needed, len(rays) // SMALLEST_ROOM):
            room //= 2
        return room

    def _render(
        self, encoding: Encoding, rays: Rays, size: tuple[int, int], room: int | None, in_engine: bool
    ) -> RenderedView:
        """Render all rays of a view of `size` (h, w), group by group and batch by batch."""
        work = len(rays) * self._samples() * len(encoding.cameras)
        grouped = self.network.sampler.reads_surfaces
        if in_engine and not grouped:
            render_batch = self._recorded_engine
        else:
            # Passes are compiled for one number of rays and samples, but the size of a group varies.
            modules = self.network.stages if grouped else self.backend.stages(self.network, work)
            stages = self._engine if in_engine else modules
            render_batch = functools.partial(render_rays, self.network, self.backend, stages)
        view = None
        for places, group in self.network.sampler.groups(rays, room):
            for begin, part in self._batches(render_batch, encoding, group, in_engine):
                if view is None:
                    # One allocation for all rays: small results of each batch would lie between the batches' large
                    # tensors and fragment the memory, so that the process would grow with every batch.
                    view = part.blank(len(rays), "cpu" if len(rays) > LARGE_VIEW else self.device)
                batch = slice(begin, begin + len(part.depth))
                view.fill(batch if places is None else places[batch].to(view.depth.device), part)
        return self._refine(view, size) if self.network.refines else view

    def _batches(
        self, render_batch: Callable, encoding: Encoding, rays: Rays, in_engine: bool
    ) -> Iterator[tuple[int, RenderedView]]:
        """Yield the results of batches of rays, each with the index of its first ray."""
        batches = math.ceil(len(rays) / self._rays_at_once(encoding, in_engine))
        count, start = math.ceil(len(rays) / batches), 0
        while start < len(rays):
            begin = max(min(start, len(rays) - count), 0)  # batches may overlap: one size is compiled once
            try:
                part = render_batch(encoding, rays[begin : begin + count])
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if count <= FEWEST_RAYS:
                    raise UserError(
                        f"the GPU has no memory for {count} rays from {len(encoding.cameras)} references; "
                        "free some, lower train_dataset_cfg.min_wn, or set device=cpu"
                    ) from None
                count = max(count // 2, FEWEST_RAYS)
                continue
            yield begin, part
            start = begin + count

    def _refine(self, view: RenderedView, size: tuple[int, int]) -> RenderedView:
        with self.backend.at_work(self.network), self.backend.autocast():
            return self.network.refine(view, (1, *size))

    def _in_engine(self, encoding: Encoding) -> bool:
        if not self.backend.engine:
            return False
        # Comparing all modules takes milliseconds: the result is kept as long as they are the same, without hooks.
        network, channels = self.network, encoding.features.shape[-1]
        others = tuple(field.name for field in fields(encoding) if getattr(encoding, field.name) is not None)
        key = tuple(map(id, parts(network))), len(encoding.cameras), channels, encoding.image_channels, others
        if not untouched(network) or key not in self._reasons:
            self._reasons[key] = reason_against(network, encoding)
        reason = self._reasons[key]
        if reason is not None:
            say_once(f"the network's own modules render, slower than the engine, which does not support it: {reason}")
        return reason is None

    @functools.cached_property
    def _engine(self) -> tuple[EngineStage, ...]:
        """The network's passes as kernels."""
        say_once("compiling kernels for this GPU, which takes a minute the first time")
        return tuple(EngineStage.of(stage, self._product_type) for stage in self.network.stages)

    @functools.cached_property
    def _recorded_engine(self):
        """`render_rays` in the engine, as a recording: the host launches its kernels hardly faster than they run.

        The recording holds no reference to this object, so both are freed together. The network is not given to
        `recorded`: the engine calls no module, and `_in_engine` has checked for hooks. Results need no copy: `render`
        copies them.
        """
        function = functools.partial(render_rays, self.network, self.backend, self._engine)
        return self.backend.recorded(function, MOST_SHAPES, copied=False)

    @property
    def _product_type(self) -> torch.dtype:
        """Return the type of the engine's products."""
        return torch.float16 if self.backend.half else torch.float32

    def _samples(self) -> int:
        """Return the largest number of samples of a ray in a pass."""
        return self.network.sampler.most_samples

    def _rays_at_once(self, encoding: Encoding, in_engine: bool) -> int:
        """Return the number of rays in a batch that fits into the free memory."""
        if self.rays_at_once is not None:
            return self.rays_at_once
        if self.device.type != "cuda":
            return max(FEWEST_RAYS, CPU_ROWS // (self._samples() * len(encoding.cameras)))
        free, _ = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_stats(self.device)
        free += reserved["reserved_bytes.all.current"] - reserved["allocated_bytes.all.current"]
        in_view = ENGINE_VALUES * self._product_type.itemsize + ENGINE_BYTES if in_engine else MODULES_BYTES
        of_ray = self._samples() * (len(encoding.cameras) * in_view + SAMPLE_BYTES)
        most = BATCH_BYTES if in_engine else MODULES_BATCH_BYTES
        return max(FEWEST_RAYS, int(min(most, free * MEMORY_SHARE) / of_ray))


def encode(network: Renderer, backend: Backend, references: Views, *image_features: torch.Tensor) -> Encoding:
    """Run `Renderer.encode` by a backend."""
    with backend.at_work(network), backend.encoding(network):
        return network.encode(references, *image_features)


def render_rays(
    network: Renderer, backend: Backend, stages: Sequence[RunStage], encoding: Encoding, rays: Rays
) -> RenderedView:
    """Render the final pass of some rays, by a backend."""
    with backend.at_work(network), backend.autocast():
        final = network.render_rays(encoding, rays, stages=stages, final_only=True).final
    return RenderedView(
        color=final.color, heads=final.heads, depth=final.depth, deviation=final.deviation, seen=final.seen
    )
