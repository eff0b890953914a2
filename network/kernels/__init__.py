"""Fast twins, written in Triton, of steps whose plain form stands elsewhere in `network`; each names its twin.

Everything runs without them: they are used on CUDA devices alone. TRITON_INTERPRET=1 runs them on the CPU, for tests.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

BROKEN_ASSEMBLER = "release 12.8"


@functools.cache
def avoid_broken_assembler() -> None:
    """Before the first kernel is compiled: takes the newer assembler that Triton brings for newer GPUs, where its own
    ptxas is of CUDA 12.8.

    That one computes addresses of matrices in shared memory from a register that nothing wrote, in kernels with as many
    products as ours: they end in an illegal memory access. TRITON_PTXAS_PATH, where it is set, is left as it is.
    """
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    own, newer = tools / "ptxas", tools / "ptxas-blackwell"
    if "TRITON_PTXAS_PATH" not in os.environ and own.is_file() and newer.is_file() and _is_broken(own):
        os.environ["TRITON_PTXAS_PATH"] = str(newer)


def _is_broken(assembler: Path) -> bool:
    said = subprocess.run([assembler, "--version"], capture_output=True, text=True)
    return BROKEN_ASSEMBLER in said.stdout
