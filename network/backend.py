"""The only place that chooses precision, compilation, recording and kernels.

A `Backend` is one frozen value, made from the config for training or for rendering. It provides the functions that run
a network's passes (`stages`), records functions (`recorded`), and selects the kernels of a network's modules
(`at_work`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch._functorch.config
from torch import nn

from network import triton_setup
from network.linear import parts, untouched
from network.ops import NO_KERNELS, Kernels
from network.renderer import Renderer, RunStage
from network.rendering import Encoding, Rays, Rendering
from network.sight import look
from network.stage import Stage
from utils.capture import Captured
from utils.devices import compiles_for_cpu, has_bf16, runs_triton
from utils.errors import UserError
from utils.logging import say_once, warn

RENDERERS = ("auto", "plain", "exact", "fast")
PRECISIONS = ("auto", "fp32", "bf16")
MANY_RAYS = 2048  # in a step: from here on ...
MEMORY_BUDGET = 0.95  # ... compiled passes keep only this share of their activations for the backward pass
COMPILED_SHAPES = 64  # combinations of image size and number of references for which passes are compiled
WORTH_COMPILING = 2**25  # samples times views of a whole view from which on it is faster to compile for half a minute


@dataclass(frozen=True)
class Backend:
    """How a network is computed.

    device: of all tensors. half: matrix products in half precision: bfloat16 under autocast, float16 in the engine.
    kernels: which Triton kernels the modules run, and whether float32 may round to TensorFloat-32. engine: render whole
    passes in kernels if the network allows it. compile_from: samples times views of a whole image from which on passes
    are compiled; None: never. record: replay GPU work as CUDA graphs. memory_budget: share of the activations that
    compiled passes keep for their backward pass.
    """

    device: torch.device
    half: bool = False
    kernels: Kernels = NO_KERNELS
    engine: bool = False
    compile_from: int | None = None
    record: bool = False
    memory_budget: float = 1.0

    @classmethod
    def for_training(cls, cfg, device: torch.device) -> Backend:
        """Return the backend for the config's `precision` and `compile`. Raise UserError for bf16 on a device without
        it."""
        if cfg.precision == "bf16" and not has_bf16(device):
            raise UserError("`precision`: bf16 needs a GPU that supports it (NVIDIA's from 2020 on); fp32 always works")
        half = has_bf16(device) if cfg.precision == "auto" else cfg.precision == "bf16"
        capable, on_gpu = runs_triton(device), device.type == "cuda"
        compiles = (capable if cfg.compile is None else cfg.compile) and (capable or not on_gpu)
        data = cfg.train_dataset_cfg
        many = data.queries_per_step * data.train_ray_num >= MANY_RAYS
        if capable or compiles:
            triton_setup.prepare()
        return cls(
            device,
            half,
            # Kernels of maps need channels last, which is slower in cuDNN unless convolutions may round to
            # TensorFloat-32 (ten bits). Beside bfloat16 (seven bits) that makes no difference.
            Kernels(maps=capable and half, volumes=capable, attention=capable, tf32=half),
            compile_from=0 if compiles else None,
            record=compiles and on_gpu,
            # Cheap operations are recomputed in the backward pass: 20% less memory for 3% more time.
            memory_budget=MEMORY_BUDGET if many else 1.0,
        )

    @classmethod
    def for_rendering(cls, renderer: str, device: torch.device) -> Backend:
        """Return the backend for the config's `renderer`.

        Convolutions never round to TensorFloat-32, which is cuDNN's default: the features' error of 1% would cost more
        than all float16 products do.
        """
        capable, on_gpu, plain = runs_triton(device), device.type == "cuda", renderer == "plain"
        fast = renderer == "fast" or (renderer == "auto" and on_gpu)
        compile_from = None
        if not on_gpu and not plain and renderer != "exact" and compiles_for_cpu():
            compile_from = 0 if fast else WORTH_COMPILING
        if capable or compile_from is not None:
            triton_setup.prepare()
        return cls(
            device,
            half=fast and capable,
            kernels=Kernels(volumes=capable, attention=capable and not plain),
            engine=capable and not plain,
            compile_from=compile_from,
            record=on_gpu and not plain,
        )

    def autocast(self) -> torch.autocast:
        """Compute products in bfloat16, if `half`."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def encoding(self, network: Renderer) -> torch.autocast:
        """Encode references in float16 if `half`, on a GPU, for networks that sample at surfaces."""
        rounds = self.half and self.device.type == "cuda" and network.sampler.reads_surfaces
        return torch.autocast(self.device.type, torch.float16, enabled=rounds)

    @contextlib.contextmanager
    def at_work(self, network: nn.Module) -> Iterator[None]:
        """Run the modules of `network` with this backend's kernels and rounding of convolutions in the context."""
        modules = [module for module in parts(network) if isinstance(getattr(type(module), "kernels", None), Kernels)]
        before, tf32 = [module.kernels for module in modules], torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = self.kernels.tf32
        for module in modules:
            module.kernels = self.kernels
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = tf32
            for module, kernels in zip(modules, before, strict=True):
                module.kernels = kernels

    def compiles(self, work: int = 0) -> bool:
        """Return whether passes are compiled. work: samples times views."""
        return self.compile_from is not None and work >= self.compile_from

    def stages(self, network: Renderer, work: int = 0) -> tuple[RunStage, ...]:
        """Return the functions that run a network's passes: compiled, or the modules themselves. work: samples times
        views."""
        if not (self.compiles(work) and untouched(network)):
            return network.stages
        say_once("compiling for this device, which takes up to a minute the first time")
        torch._functorch.config.activation_memory_budget = self.memory_budget
        return tuple(functools.partial(_compiled(), stage) for stage in network.stages)

    def recorded(
        self, function: Callable, most: int, network: nn.Module | None = None, copied: bool = True
    ) -> Callable:
        """Return a `function` of tensors as a recording, if this backend records. most, copied: see `Captured`.

        network: the one whose modules the function runs, if any. While it has hooks, which a recording could not call,
        the function runs unrecorded.
        """
        if not self.record:
            return function
        captured = Captured(function, most, copied)
        if network is None:
            return captured

        def run(*inputs):
            if untouched(network):
                return captured(*inputs)
            say_once("the network has hooks or modified modules: it runs without recording")
            return function(*inputs)

        return run


@functools.cache
def _compiled() -> _Compiled:
    torch._dynamo.config.cache_size_limit = COMPILED_SHAPES
    torch._dynamo.config.skip_nnmodule_hook_guards = False  # hooks that are registered later shall be called
    return _Compiled()


class _Compiled:
    """Runs a stage compiled, or uncompiled after compilation has failed once.

    `look` and `shade` are compiled separately. Compiled as one, the compiler recomputes which views see a sample, with
    different rounding, instead of storing it. In one of thirty million samples, at the border of an image, the mask and
    the count of views then disagree, and features are divided by zero.
    """

    def __init__(self):
        self.look = torch.compile(look, dynamic=False)
        self.shade = torch.compile(Stage.shade, dynamic=False)
        self.broken = False

    def __call__(
        self, stage: Stage, encoding: Encoding, rays: Rays, depths: torch.Tensor, density_only: bool = False
    ) -> Rendering:
        if not self.broken:
            try:
                return self.shade(stage, self.look(encoding, rays, depths), depths, density_only)
            except torch._dynamo.exc.TorchDynamoException as error:
                warn(f"the network cannot be compiled, and runs without ({str(error).splitlines()[0]})")
                self.broken = True
        return stage(encoding, rays, depths, density_only)
