"""Sets Triton up before it compiles anything, for torch.compile too. `network.backend` calls `prepare`.

What has been compiled is found by its key, its assembler and in its folder, and would be compiled again for whoever
came with another one.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path

BROKEN_ASSEMBLER = "release 12.8"


@functools.cache
def prepare() -> None:
    """Do all of what follows, once."""
    avoid_broken_assembler()
    share_compiled_kernels()
    hash_callees_first()


def avoid_broken_assembler() -> None:
    """Takes the newer assembler that Triton brings for newer GPUs, where its own ptxas is of CUDA 12.8.

    That one computes addresses of matrices in shared memory from a register that nothing wrote, in kernels with as many
    products as ours: they end in an illegal memory access. TRITON_PTXAS_PATH, where it is set, is left as it is.
    """
    triton = importlib.util.find_spec("triton")
    if triton is None or "TRITON_PTXAS_PATH" in os.environ:
        return
    tools = Path(triton.origin).parent / "backends" / "nvidia" / "bin"
    own, newer = tools / "ptxas", tools / "ptxas-blackwell"
    if own.is_file() and newer.is_file() and _is_broken(own):
        os.environ["TRITON_PTXAS_PATH"] = str(newer)


def _is_broken(assembler: Path) -> bool:
    said = subprocess.run([assembler, "--version"], capture_output=True, text=True)
    return BROKEN_ASSEMBLER in said.stdout


def share_compiled_kernels() -> None:
    """Names the folder that Triton keeps compiled kernels in, for torch.compile would take another one, and from then on
    our kernels too. TRITON_CACHE_DIR, where it is set, is left as it is; without a home it is a temporary folder."""
    home = Path(os.environ.get("TRITON_HOME") or os.path.expanduser("~"))
    folder = home / ".triton" if os.access(home, os.W_OK) else Path(tempfile.gettempdir()) / f"triton_{os.getuid()}"
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "cache"))


def hash_callees_first() -> None:
    """Makes a kernel's key the same in every process.

    Triton before 3.8 lists in it what constants the functions it calls use, but only of those whose own keys happen to be
    known: training and rendering, which start with different kernels, would each compile the others' again.
    """
    if importlib.util.find_spec("triton") is None:
        return
    from triton.runtime.jit import DependenciesFinder

    add = getattr(DependenciesFinder, "_update_hash", None)

    def know_and_add(self, function) -> None:
        getattr(function, "cache_key", None)  # computed when it is asked for
        add(self, function)

    if add is not None:
        DependenciesFinder._update_hash = know_and_add
