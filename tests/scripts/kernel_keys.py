"""Prints the keys that Triton gives to the kernels, asked for in steps of STEP through their list: kernel_keys.py
STEP."""

import sys

from triton.runtime.jit import JITFunction

from network import triton_setup
from network.engine import attention as layer
from network.engine import projection, rays, views
from network.ops import attention, normalize, sweep, volumes

triton_setup.prepare()
modules = (attention, normalize, rays, sweep, views, volumes, layer, projection)
kernels = [x for module in modules for x in vars(module).values() if isinstance(x, JITFunction)]
keys = {(x.fn.__module__, x.fn.__name__): x.cache_key for x in kernels[:: int(sys.argv[1])]}
assert len(keys) > 20
print(sorted(keys.items()))
