"""Operations that have kernels: one a file, in torch and in Triton side by side.

`name(…)` is the torch version, `name_kernel(…)` takes the same arguments and returns the same. Everything runs without
Triton. TRITON_INTERPRET=1 runs the kernels on a CPU, for tests.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernels:
    """The set of operations that a module runs as kernels; `network.backend` decides and hands it to the modules.

    maps: normalisation and convolutions of images, with channels last in memory. volumes: convolutions and normalisation of
    volumes, and the plane sweep. attention: over the samples of rays and over views. tf32: float32 may round to TensorFloat-32.
    """

    maps: bool = False
    volumes: bool = False
    attention: bool = False
    tf32: bool = False


NO_KERNELS = Kernels()
