"""Setup of Triton before anything is compiled, by our kernels or by torch.compile. `network.backend` calls `prepare`.

Compiled kernels are cached by key, assembler and folder. All processes must agree on the three, or each of them would
compile everything again.
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
    """Apply all of the setup, once in a process."""
    avoid_broken_assembler()
    share_compiled_kernels()
    hash_callees_first()


def avoid_broken_assembler() -> None:
    """Select the newer assembler that ships with Triton (for newer GPUs) if Triton's default ptxas is that of CUDA
    12.8.

    In kernels with many matrix products, such as ours, ptxas 12.8 computes shared-memory addresses from an
    uninitialised register, and the kernel fails with an illegal memory access. TRITON_PTXAS_PATH is kept if it is set.
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
    """Set the folder of Triton's cache: torch.compile would otherwise change it for our kernels too.

    TRITON_CACHE_DIR is kept if it is set. Without a writable home the cache is in a temporary folder.
    """
    home = Path(os.environ.get("TRITON_HOME") or os.path.expanduser("~"))
    folder = home / ".triton" if os.access(home, os.W_OK) else Path(tempfile.gettempdir()) / f"triton_{os.getuid()}"
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "cache"))


def hash_callees_first() -> None:
    """Make the cache key of a kernel independent of what was compiled before it.

    Before Triton 3.8 the key includes the constants of a called function only if that function's own key happens to be
    known already. Training and rendering start with different kernels, so each would compile the other's kernels again.
    """
    if importlib.util.find_spec("triton") is None:
        return
    from triton.runtime.jit import DependenciesFinder

    add = getattr(DependenciesFinder, "_update_hash", None)

    def know_and_add(self, function) -> None:
        getattr(function, "cache_key", None)  # a property: reading it computes the key
        add(self, function)

    if add is not None:
        DependenciesFinder._update_hash = know_and_add
