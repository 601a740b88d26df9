"""CUDA graphs: what captures a function, and where its graphs are kept."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

Function = Callable[..., Any]


class Capture(Protocol):
    """Runs ``function(*inputs)`` once, for real, and returns what does the same again.

    The function changes its inputs in place and returns nothing new. What is returned is called with tensors at the
    same addresses; a graph need not look at them.
    """

    def __call__(self, function: Function, *inputs: torch.Tensor) -> Callable[..., None]: ...


@dataclass
class GraphStore:
    """Captured graphs by what they do, captured when first asked for.

    Attributes
    ----------
    captures : Counter
        Captures ever made, by kind: ``begin``, ``layer``, ``write``, ``bridge``, ``head``, ``step``.
    uses : Counter
        Of each whole step.
    kernels : dict
        The functions that were captured, by name and the tokens of a pass.
    """

    capture: Capture
    graphs: dict[Any, Callable[..., None]] = field(default_factory=dict)
    captures: Counter[str] = field(default_factory=Counter)
    uses: Counter[Any] = field(default_factory=Counter)
    kernels: dict[tuple[str, int], Function] = field(default_factory=dict)

    def hold(self, kernels: Mapping[tuple[str, int], Function]) -> None:
        """Keep alive the code that graphs launch; where it is other code than before, they are forgotten."""
        if any(self.kernels.get(name, function) is not function for name, function in kernels.items()):
            self.clear()
        self.kernels.update(kernels)

    def run(self, key: tuple[Any, ...], function: Function, *inputs: torch.Tensor) -> None:
        """Replay the graph of ``key`` (its first item is its kind); the first time, run and capture the function."""
        replay = self.graphs.get(key)
        if replay is None:
            self.graphs[key] = self.capture(function, *inputs)
            self.captures[key[0]] += 1
        else:
            replay(*inputs)

    def clear(self) -> None:
        """Forget all graphs: the buffers that they read have moved."""
        self.graphs.clear()
        self.uses.clear()


class SharedPool:
    """One memory pool for as long as anything holds it, and then another; ``make`` makes its handle."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._handle: Any = None
        self._holders: weakref.WeakSet[Callable[..., None]] = weakref.WeakSet()

    def handle(self) -> Any:
        """The pool of those that hold one, or a new one."""
        if not self._holders:
            self._handle = self._make()
        return self._handle

    def held_by(self, replay: Callable[..., None]) -> Callable[..., None]:
        """Say what keeps the pool; given back as it is."""
        self._holders.add(replay)
        return replay


class CudaCapture:
    """Captures functions as CUDA graphs that share one memory pool.

    Graphs are replayed one at a time and nothing that one leaves in the pool is read by another, so they may use the
    same memory. ``torch.cuda.graph`` would empty the allocator, and in some versions collect garbage, at each of them.
    With its last graph torch gives a pool up, and captures nothing into it again; the next graph gets a new one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = SharedPool(torch.cuda.graph_pool_handle)
        with torch.cuda.device(device):
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, function: Function, *inputs: torch.Tensor) -> Callable[..., None]:
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            # For real, outside of the capture: kernels load, and libraries allocate what they need on this stream.
            function(*inputs)
            torch.cuda.synchronize(self.device)
            graph.capture_begin(pool=self.pool.handle(), capture_error_mode="thread_local")
            try:
                function(*inputs)  # recorded, not run
            except BaseException:
                with suppress(RuntimeError):  # a broken capture says so a second time
                    graph.capture_end()
                raise
            graph.capture_end()
        current.wait_stream(self.stream)
        return self.pool.held_by(lambda *_: graph.replay())
