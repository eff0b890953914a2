"""Compilation of the kernels for a GPU, tested without one; their results are tested in test_ops.py and test_passes.py."""

import os
import subprocess
import sys

import pytest

from network import triton_setup

triton = pytest.importorskip("triton", reason="needs Triton")

# In a process of its own: in this one kernels are interpreted. Compiles them for compute capability 9.0.
COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from network.engine import attention as layer, projection, rays, views
from network.ops import attention, normalize, sweep, volumes

BYTES = {"valid", "several_out", "scored_out", "mask", "need"}
NUMBERS = {
    "samples", "views", "per_ray", "image_height", "image_width", "map_height", "map_width",
    "rays", "length", "scored_views", "scored_samples", "count", "other", "masks",
    "parts", "height", "width", "channels", "tiles", "border", "activation", "added",
    "voxels", "depth", "dilation", "planes", "neighbours",
}

def compile_for_gpu(kernel, halves, constants, registers=128):
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
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]

for count in (1, 2, 4, 8, 16):
    sizes = {"N": projection.ENTRIES // count, "VIEWS": count, "HAS_MASK": count == 4}
    compile_for_gpu(projection._sight_kernel, {"sights"}, sizes)
for count in (2, 16):
    sizes = {"M": 64 // count, "VIEWS": count, "USE_VIS": count == 2, "DENSITY_ONLY": False}
    halves = {"sights", "maps", "matrices", "vectors", "latent_out"}
    compile_for_gpu(views._views_kernel, halves, sizes)
for padded in (32, 64, 128):
    rows = {"PADDED": padded, "M": max(64, padded), "PRECISION": "float16", "WHOLE": padded > 32}
    compile_for_gpu(rays._rays_kernel, set(), {**rows, "DENSITY_ONLY": padded == 32})
    attended = {"C": 32, "ENCODED": True, "POOLED": padded == 32, "ALONG": padded > 32}
    compile_for_gpu(layer._layer_kernel, {"x"}, {**rows, **attended})
    for kernel in (attention._forward_kernel, attention._backward_kernel):
        compile_for_gpu(kernel, set(), {**rows, "ALONG": padded > 32, "PRECISION": "tf32x3"}, None)
sizes = {"P": normalize.TILE, "C": normalize.TILE_CHANNELS}
for name in ("moments", "activate", "sum_gradients", "gradient"):
    compile_for_gpu(getattr(normalize, f"_{name}_kernel"), set(), sizes)
for c_in, c_out, precision in ((16, 16, "tf32"), (4, 16, "tf32x3"), (16, 1, "tf32x3"), (1, 16, "tf32")):
    sizes = {"C_IN": c_in, "C_OUT": c_out, "K": 16, "N": 16, "PRECISION": precision}
    compile_for_gpu(volumes._convolve_kernel, set(), {**sizes, "M": volumes.TILE})
    compile_for_gpu(volumes._weights_gradient_kernel, set(), {**sizes, "M": volumes.SMALL_TILE})
sizes = {"M": sweep.TILE, "C": 32, "GROUPS": 4}
compile_for_gpu(sweep._agree_kernel, set(), sizes)
compile_for_gpu(sweep._gradient_kernel, set(), {**sizes, "P": sweep.PLANES_AT_ONCE})
"""


def run_python(*arguments, without: str, **changes: str) -> subprocess.CompletedProcess:
    """In a process of its own, where one environment variable is not set and others are changed."""
    kept = {name: value for name, value in os.environ.items() if name != without}
    path = os.pathsep.join([os.getcwd(), kept.get("PYTHONPATH", "")])
    environment = {**kept, "PYTHONPATH": path, **changes}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=300)


def test_kernels_compile_for_a_gpu(tmp_path):
    """A version of Triton may fail to compile what its interpreter runs."""
    script = tmp_path / "compile_kernels.py"
    script.write_text(COMPILE)
    done = run_python(script, without="TRITON_INTERPRET", TRITON_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr[-3000:]


HASH = """
import sys
from triton.runtime.jit import JITFunction
from network import triton_setup
from network.engine import attention as layer, projection, rays, views
from network.ops import attention, normalize, sweep, volumes

triton_setup.prepare()
modules = (attention, normalize, rays, sweep, views, volumes, layer, projection)
kernels = [x for module in modules for x in vars(module).values() if isinstance(x, JITFunction)]
keys = {(x.fn.__module__, x.fn.__name__): x.cache_key for x in kernels[:: int(sys.argv[1])]}
assert len(keys) > 20
print(sorted(keys.items()))
"""


def test_what_was_hashed_before_is_not_in_the_key_of_a_kernel():
    """By itself Triton fails this before 3.8."""
    forward, backward = (run_python("-c", HASH, order, without="TRITON_INTERPRET") for order in ("1", "-1"))
    assert forward.stdout and forward.stdout == backward.stdout, forward.stderr + backward.stderr


@pytest.mark.parametrize("release, newer", [("12.8", True), ("12.8", False), ("12.9", True)])
@pytest.mark.parametrize("chosen", [None, "/my/ptxas"])
def test_the_assembler_that_spoils_addresses_is_avoided(tmp_path, monkeypatch, release, newer, chosen):
    tools = tmp_path / "backends" / "nvidia" / "bin"
    tools.mkdir(parents=True)
    for name in ["ptxas"] + ["ptxas-blackwell"] * newer:
        (tools / name).write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.93'\n")
        (tools / name).chmod(0o755)
    monkeypatch.setattr(triton.__spec__, "origin", str(tmp_path / "__init__.py"))
    monkeypatch.setenv("TRITON_PTXAS_PATH", chosen or "")  # so that it is as before afterwards
    if not chosen:
        monkeypatch.delenv("TRITON_PTXAS_PATH")
    triton_setup.avoid_broken_assembler()
    expected = str(tools / "ptxas-blackwell") if release == "12.8" and newer else None
    assert os.environ.get("TRITON_PTXAS_PATH") == (chosen or expected)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"TRITON_HOME": "{}"}, "{}/.triton/cache"),
        ({"TRITON_HOME": "", "HOME": "{}"}, "{}/.triton/cache"),
        ({"TRITON_HOME": "{}/nowhere", "TMPDIR": "{}"}, f"{{}}/triton_{os.getuid()}/cache"),
        ({"TRITON_HOME": "{}", "TRITON_CACHE_DIR": "/my/kernels"}, "/my/kernels"),
    ],
)
def test_training_and_rendering_keep_compiled_kernels_in_one_folder(tmp_path, environment, expected):
    say = "import os; from network import triton_setup; triton_setup.prepare(); print(os.environ['TRITON_CACHE_DIR'])"
    changed = {name: value.format(tmp_path) for name, value in environment.items()}
    done = run_python("-c", say, without="TRITON_CACHE_DIR", **changed)
    assert done.stdout.strip() == expected.format(tmp_path), done.stderr
