"""Fast twins, written in Triton, of steps whose plain form stands elsewhere in `network`; each names its twin.

Everything runs without them: they are used on CUDA devices alone. TRITON_INTERPRET=1 runs them on the CPU, for tests.
"""
