"""Work on a GPU recorded once and replayed as a whole, so that it is never the host that is waited for."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import NamedTuple

import torch

from utils.logging import warn
from utils.recent import Recent

WARM_UP = 3  # calls that run as they are, before recording: kernels are compiled and chosen in them


class Captured:
    """`function` of tensors and dataclasses of them, replayed as one CUDA graph for each set of shapes.

    The function may change tensors that live outside of it, but not its inputs, and must do the same work each time. Where
    it cannot be recorded it runs as it is. An input that is the one of the last call, unchanged, is not copied again.
    most: recordings to keep, those used last. copied: its result is a copy; if not, it is overwritten by the next call.
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
        """Run as recording will: on another stream than the usual one."""
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
        self._copied = [(None, None)] * len(
            targets
        )  # of each, what was copied last, and how often that had been changed

    def fill(self, sources: list[torch.Tensor]) -> None:
        """Copy what is not there already. Work in place changes a tensor's version; inference tensors have none."""
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
    """Run two functions and return both results; on a GPU, which neither fills alone, their kernels run side by side."""
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
    """Return what a recording depends on: shapes, types, and everything that is no tensor. Appends the tensors, in the order of
    `_tensors`."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.shape, value.dtype
    parts = _parts(value)
    return value if parts is None else tuple([_signature(part, tensors) for part in parts])


def _parts(value) -> tuple | None:
    """Return what a tuple, dictionary or dataclass holds; None of anything else."""
    if is_dataclass(value):
        return tuple(getattr(value, field.name) for field in fields(value))
    if isinstance(value, dict):
        return tuple(part for item in value.items() for part in item)
    return value if isinstance(value, tuple) else None


def _copies(value):
    """Return the same with tensors of its own."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if is_dataclass(value):
        return replace(value, **{field.name: _copies(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, dict):
        return {key: _copies(part) for key, part in value.items()}
    return tuple(_copies(part) for part in value) if isinstance(value, tuple) else value
