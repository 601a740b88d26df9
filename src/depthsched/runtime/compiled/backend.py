"""The compiled backend: the prefill through the model's own forward, every step through compiled kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Self

from torch import Tensor

from ...adapters import Adapter
from ...plans import DepthPlan
from ..forward import run_prompt
from ..gate import LayerGate
from .engine import Engine, engine_for, release
from .kernels import Kernels, kernels_for
from .step import CompiledDecoder
from .weights import FusedModel, fuse

KernelsOf = Callable[[int], Kernels]
"""The kernels of a pass of so many tokens a row: those of two are those of any more."""


class CompiledBackend:
    """Runs decode steps on fused weights, with one layer compiled for all, in the static buffers of an engine.

    Nothing is fused or compiled before the backend is entered.

    Parameters
    ----------
    adapter : Adapter
        Of a model that :func:`~depthsched.runtime.plain.why_not` has nothing against.
    plan : DepthPlan
    write_kv : bool
        Whether skipped layers write K and V from the passed-through state.
    batch : int
        Rows of the run.
    max_tokens : int
        Most tokens the run is expected to hold, prompt included; the buffers grow should it hold more.
    several : bool
        Whether passes of several tokens a row will be asked for, whose kernels are then compiled on entering too.
    kernels : callable
        What makes the kernels, as :func:`~depthsched.runtime.compiled.kernels.kernels_for` does.

    Raises
    ------
    ModelError
        On entering: a layer cannot be compiled.
    """

    name: ClassVar[str] = "compiled"
    drafts = True
    compile_seconds = 0.0

    def __init__(
        self, adapter: Adapter, plan: DepthPlan, *, write_kv: bool = False, batch: int = 1, max_tokens: int = 0,
        several: bool = False, kernels: Callable[..., Kernels] = kernels_for,
    ) -> None:  # fmt: skip
        self.adapter, self.plan, self.write_kv = adapter, plan, write_kv
        self.batch, self.max_tokens, self.several, self.make_kernels = batch, max_tokens, several, kernels
        self.gate = LayerGate(adapter)  # nobody else may run a plan on the model meanwhile

    def __enter__(self) -> Self:
        self.gate.__enter__()
        try:
            model = fuse(self.adapter)
            bridged = any(self.plan.bridges.values())
            make = functools.partial(self.make_kernels, model, self.batch, write=self.write_kv, bridged=bridged)
            found = {count: make(count=count) for count in ((1, 2) if self.several else (1,))}
        except BaseException:
            self.gate.__exit__()
            raise
        self.compile_seconds += sum(kernels.seconds for kernels in found.values())
        self._ready: tuple[FusedModel, KernelsOf] | None = (model, lambda count: found[min(count, 2)])
        return self

    def __exit__(self, *exc: object) -> None:
        self._ready = None
        self.gate.__exit__(*exc)

    def prefill(
        self, input_ids: Tensor, attention_mask: Tensor, cache: Any, chunk: int | None = None
    ) -> tuple[Tensor, CompiledDecoder]:
        assert self._ready is not None, "the backend is entered before the prefill"
        model, kernels = self._ready
        logits, position = run_prompt(self.gate, input_ids, attention_mask, cache, chunk)
        room = max(self.max_tokens, attention_mask.shape[1] + 1)
        engine = engine_for(self.adapter.model, model, len(attention_mask), room)
        engine.begin(cache, attention_mask, position)
        bridges = engine.place_bridges(self.plan.bridges)
        return logits, self.decoder(engine, model, kernels, self.plan.keep_sets, bridges)

    def release(self) -> None:
        """Give back what the model keeps from one run to the next."""
        release(self.adapter.model)

    def decoder(self, engine: Engine, *state: Any) -> CompiledDecoder:
        """The run from here on."""
        return CompiledDecoder(engine, *state)
