"""The cuda-graph backend: one captured graph per keep set, so that a step is one launch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...adapters import Adapter
from ...plans import DepthPlan
from .backend import CompiledBackend
from .step import CompiledDecoder

Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]

MAX_GRAPHS = 64
"""Graphs kept at once; the one not used for longest makes room."""


@dataclass
class GraphStore:
    """Captured graphs by what they do, captured when first asked for.

    Parameters
    ----------
    capture : callable
        From the function to capture to a callable that replays it and returns its static output.
    limit : int
    """

    capture: Capture
    limit: int = MAX_GRAPHS
    graphs: OrderedDict[Any, Callable[[], Tensor]] = field(default_factory=OrderedDict)

    def run(self, key: Any, function: Callable[[], Tensor]) -> Tensor:
        """Replay the graph of ``key``; the first time, capture ``function`` for it."""
        if key in self.graphs:
            self.graphs.move_to_end(key)
        else:
            while len(self.graphs) >= self.limit:
                self.graphs.popitem(last=False)
            self.graphs[key] = self.capture(function)
        return self.graphs[key]()

    def clear(self) -> None:
        """Forget all graphs: the buffers that they read have moved."""
        self.graphs.clear()


class CudaCapture:
    """Captures functions as CUDA graphs that share one memory pool.

    Graphs are replayed one at a time and nothing that one leaves in the pool is read by another, so they may
    use the same memory.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        # A first run outside the capture: kernels load and libraries allocate their workspaces. It writes the
        # same K and V to the same slot as the replay that follows.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            output = function()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay


class GraphDecoder(CompiledDecoder):
    """Replays every step from a graph; the depth changes by picking a graph.

    A graph holds the addresses it was captured with. Should a run outgrow its buffers, they grow and the graphs are
    captured anew.
    """

    def __init__(self, *state: Any, graphs: GraphStore) -> None:
        super().__init__(*state)
        self.graphs = graphs

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        capacity = self.kv.capacity
        self.place(tokens)
        if self.kv.capacity != capacity:
            self.graphs.clear()
        return self.graphs.run((depth, self.context), lambda: self.forward(depth))


class CudaGraphBackend(CompiledBackend):
    """The compiled backend with every step replayed from a graph. The buffers are sized to the run at once.

    ``capture`` goes from the function to capture to a callable that replays it; left out, CUDA's.
    """

    name: ClassVar[str] = "cuda-graph"

    def __init__(self, adapter: Adapter, plan: DepthPlan, *, capture: Capture | None = None, **options: Any) -> None:
        super().__init__(adapter, plan, **options)
        self.capacity = self.max_tokens
        self.graphs = GraphStore(capture or CudaCapture())

    def __exit__(self, *exc: object) -> None:
        self.graphs.clear()
        super().__exit__(*exc)

    def decoder(self, *state: Any) -> CompiledDecoder:
        return GraphDecoder(*state, graphs=self.graphs)
