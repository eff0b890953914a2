"""Compiles kernels for compute capability 9.0, which needs no GPU: compile_kernels.py engine|ops.

Each kernel is compiled in every branch that its constants choose, at the smallest sizes that do so.
"""

import sys

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from network.engine import attention as layer
from network.engine import projection, rays, views
from network.ops import attention, normalize, sweep, volumes

BYTES = {"valid", "several_out", "scored_out", "mask", "need"}
NUMBERS = {
    *("samples", "views", "per_ray", "image_height", "image_width", "map_height", "map_width", "rays", "length"),
    *("shown_height", "shown_width"),
    *("scored_views", "scored_samples", "count", "other", "masks", "parts", "height", "width", "channels", "tiles"),
    *("border", "activation", "added", "voxels", "depth", "dilation", "planes", "neighbours"),
}


def compile_for_gpu(kernel, halves, constants, registers=128):
    """Compile a kernel. halves: names of its float16 arrays; registers: most that a thread may take."""
    names = kernel.arg_names

    def kind(name):
        if name in constants:
            return "constexpr"
        if name in NUMBERS:
            return "i32"
        if name == "eps":
            return "fp32"
        if name == "others":
            return "*i64"
        return "*i8" if name in BYTES else "*fp16" if name in halves else "*fp32"

    signature = {name: kind(name) for name in names}
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")},
    )
    options = {"num_warps": 4, "maxnreg": registers}
    assert compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]


def compile_engine():
    for count, surfaces in ((1, False), (4, True), (16, False), (16, True)):
        sizes = {"N": projection.ENTRIES // count, "VIEWS": count, "HAS_MASK": count == 4, "HAS_SURFACES": surfaces}
        compile_for_gpu(projection._sight_kernel, {"sights"}, sizes)
    for count, surfaces in ((2, False), (8, True), (16, False)):
        sizes = {"M": 64 // count, "VIEWS": count, "USE_VIS": count == 2, "DENSITY_ONLY": False, "SURFACES": surfaces}
        halves = {"sights", "maps", "matrices", "vectors", "latent_out"}
        compile_for_gpu(views._views_kernel, halves, sizes)
    for padded in (1, 32, 128):
        rows = {"PADDED": padded, "M": max(64, padded), "PRECISION": "float16", "WHOLE": padded > 32}
        ends = {"DENSITY_ONLY": padded == 32, "SOFTPLUS": padded == 128, "OPAQUE": padded == 1}
        compile_for_gpu(rays._rays_kernel, set(), {**rows, **ends})
        attended = {"C": 32, "ENCODED": True, "POOLED": padded == 32, "ALONG": padded > 32}
        compile_for_gpu(layer._layer_kernel, {"x"}, {**rows, **attended})


def compile_ops():
    for padded in (32, 64):
        rows = {"PADDED": padded, "M": 64, "PRECISION": "tf32x3", "WHOLE": padded > 32, "ALONG": padded > 32}
        for kernel in (attention._forward_kernel, attention._backward_kernel):
            compile_for_gpu(kernel, set(), rows, None)
    sizes = {"P": normalize.TILE, "C": normalize.TILE_CHANNELS}
    for name in ("moments", "activate", "sum_gradients", "gradient"):
        compile_for_gpu(getattr(normalize, f"_{name}_kernel"), set(), sizes)
    for c_in, c_out, precision in ((4, 16, "tf32x3"), (16, 1, "tf32x3"), (1, 16, "tf32")):
        sizes = {"C_IN": c_in, "C_OUT": c_out, "K": 16, "N": 16, "PRECISION": precision}
        compile_for_gpu(volumes._convolve_kernel, set(), {**sizes, "M": volumes.TILE})
        compile_for_gpu(volumes._weights_gradient_kernel, set(), {**sizes, "M": volumes.SMALL_TILE})
    sizes = {"M": sweep.TILE, "C": 32, "GROUPS": 4}
    compile_for_gpu(sweep._agree_kernel, set(), sizes)
    compile_for_gpu(sweep._gradient_kernel, set(), {**sizes, "P": sweep.PLANES_AT_ONCE})


{"engine": compile_engine, "ops": compile_ops}[sys.argv[1]]()
