"""The cuda-graph backend: a captured graph for each layer and bucket of the context, replayed for those that run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from ...adapters import Adapter
from ...errors import SettingsError
from ...plans import DepthPlan
from .backend import CompiledBackend
from .capture import Capture, CudaCapture, GraphStore
from .step import CompiledDecoder

WHOLE_STEP = "DEPTHSCHED_WHOLE_STEP"
"""Environment variable: uses of one keep set after which its whole step becomes one graph; 0, the default, never."""

MAX_WHOLE = 16
"""Graphs of whole steps of one model, at most."""


class GraphDecoder(CompiledDecoder):
    """Replays the pieces of a step from graphs; the depth changes by picking pieces."""

    def __init__(self, *state: Any, graphs: GraphStore, whole_after: int) -> None:
        super().__init__(*state)
        self.graphs, self.whole_after = graphs, whole_after
        self._held: set[int] = set()

    def forward(self, depth: int, count: int) -> None:
        if count not in self._held:
            self._held.add(count)
            self.graphs.hold({(name, count): kernel for name, kernel in self.kernels(count).functions.items()})
        if not self.whole_after:
            self.pieces(depth, count, self.graphs.run)
            return
        uses, key = self.graphs.uses, ("step", count, self.engine.context, *self.what_runs(depth, count))
        uses[key] += 1
        if key in self.graphs.graphs or (uses[key] > self.whole_after and self._whole_steps() < MAX_WHOLE):
            p, kv = self.engine.passes[count], self.engine.kv
            self.graphs.run(key, lambda *_: self.pieces(depth, count), p.x, p.slot, p.mask, *kv.keys)
        else:
            self.pieces(depth, count, self.graphs.run)

    def what_runs(self, depth: int, count: int) -> tuple[Any, ...]:
        """What tells one pass's pieces from another's."""
        bridges = tuple(sorted(self.bridges.get(depth, {}).items()))
        return self.kept(depth), bridges, self.kernels(count).write_only is not None

    def _whole_steps(self) -> int:
        return sum(key[0] == "step" for key in self.graphs.graphs)


class CudaGraphBackend(CompiledBackend):
    """The compiled backend with every piece of a step replayed from a graph.

    ``capture`` makes, from a device, what captures functions; left out, CUDA's. ``whole_after`` is what
    :data:`WHOLE_STEP` says if it is left out.

    Raises
    ------
    SettingsError
        :data:`WHOLE_STEP` is not a number.
    """

    name: ClassVar[str] = "cuda-graph"

    def __init__(
        self, adapter: Adapter, plan: DepthPlan, *, capture: Callable[[torch.device], Capture] = CudaCapture,
        whole_after: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(adapter, plan, **options)
        self.capture = capture
        self.whole_after = _asked_for() if whole_after is None else whole_after

    def decoder(self, *state: Any) -> CompiledDecoder:
        graphs = state[0].graphs(self.capture)
        return GraphDecoder(*state, graphs=graphs, whole_after=self.whole_after)


def _asked_for() -> int:
    text = os.environ.get(WHOLE_STEP, "0")
    if not text.isdecimal():
        raise SettingsError(f"{WHOLE_STEP}={text!r} must be a whole number of uses, 0 for never")
    return int(text)
