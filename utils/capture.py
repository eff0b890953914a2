"""CUDA graphs: work on a GPU is recorded once and replayed as a whole, so that the GPU does not wait for the host."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import NamedTuple

import torch

from utils.logging import warn
from utils.recent import Recent

WARM_UP = 3  # calls that run unrecorded first: in them kernels are compiled and chosen


class Captured:
    """A `function` of tensors and dataclasses of them, replayed as one CUDA graph for each set of shapes.

    The function may change tensors outside of it, but not its inputs, and must do the same work in each call. If it
    cannot be recorded it runs as it is. An input is copied only if it is another tensor than in the last call, or was
    changed since. most: number of recordings to keep, the least recently used are dropped. copied: return a copy of the
    result; otherwise the next call overwrites it.
    """

    def __init__(self, function: Callable, most: int, copied: bool = True):
        self.function, self.copied = function, copied
        self._calls: dict = {}
        self._recorded = Recent(most)
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, *inputs):
        tensors: list[torch.Tensor] = []
        key = _signature(inputs, tensors)
        if key not in self._recorded:
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= WARM_UP:
                return self._run_aside(inputs)
            self._recorded[key] = self._record(inputs)
        recorded = self._recorded[key]
        if recorded is None:
            return self.function(*inputs)
        recorded.inputs.fill(tensors)
        recorded.graph.replay()
        return _copies(recorded.result) if self.copied else recorded.result

    def _run_aside(self, inputs):
        """Run on the stream that recording uses, which is not the current one."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _record(self, inputs):
        static = _copies(inputs)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # the recording has memory of its own
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                result = self.function(*static)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()
            warn(f"a step cannot be recorded and runs kernel by kernel ({str(error).splitlines()[0]})")
            return None
        return _Recording(graph, StaticInputs(_tensors(static)), result)


class StaticInputs:
    """The tensors that a recording reads, where the inputs of each call are copied to."""

    def __init__(self, targets: list[torch.Tensor]):
        self.targets = targets
        # of each target, a weak reference to the tensor that was copied last, and its version then
        self._copied: list[tuple] = [(None, None)] * len(targets)

    def fill(self, sources: list[torch.Tensor]) -> None:
        """Copy the tensors that changed since the last call, by their versions. Inference tensors have none: always
        copied."""
        for i, source in enumerate(sources):
            kept, version = self._copied[i]
            now = None if source.is_inference() else source._version
            if now is None or now != version or kept() is not source:
                self.targets[i].copy_(source, non_blocking=True)
                self._copied[i] = weakref.ref(source), now


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: StaticInputs
    result: object


def concurrently(device: torch.device, first: Callable, second: Callable) -> tuple:
    """Run two functions and return both results. On a GPU they run on two streams, since neither fills it alone."""
    if device.type != "cuda":
        return first(), second()
    current, other = torch.cuda.current_stream(device), _second_stream(device)
    other.wait_stream(current)
    with torch.cuda.stream(other):
        result = second()
    results = first(), result
    current.wait_stream(other)
    for tensor in _tensors(result):
        tensor.record_stream(current)
    return results


@functools.cache
def _second_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _tensors(value) -> list[torch.Tensor]:
    """Return all tensors in nested tuples, dictionaries and dataclasses, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in _parts(value) or () for tensor in _tensors(part)]


def _signature(value, tensors: list[torch.Tensor]):
    """Return what a recording depends on: shapes, types, and all values that are not tensors. Append the tensors to
    `tensors`, in the order of `_tensors`."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.shape, value.dtype
    parts = _parts(value)
    return value if parts is None else tuple([_signature(part, tensors) for part in parts])


def _parts(value) -> tuple | None:
    """Return the items of a tuple, dictionary or dataclass; None for any other value."""
    if is_dataclass(value):
        return tuple(getattr(value, field.name) for field in fields(value))
    if isinstance(value, dict):
        return tuple(part for item in value.items() for part in item)
    return value if isinstance(value, tuple) else None


def _copies(value):
    """Return a value of the same structure whose tensors are copies."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if is_dataclass(value):
        return replace(value, **{field.name: _copies(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, dict):
        return {key: _copies(part) for key, part in value.items()}
    return tuple(_copies(part) for part in value) if isinstance(value, tuple) else value
