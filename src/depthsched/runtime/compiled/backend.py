"""The compiled backend: the prefill through the model's own forward, every step through compiled kernels."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import Tensor

from ...adapters import Adapter
from ...bridge import prepared
from ...plans import DepthPlan
from ..forward import run_prompt
from ..gate import LayerGate
from .kernels import Kernels, kernels_for
from .kv import StaticKV
from .step import CompiledDecoder
from .weights import FusedModel, fuse


class CompiledBackend:
    """Runs decode steps on fused weights, with one layer compiled for all.

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
        Most tokens the run can hold, prompt included.

    Raises
    ------
    ModelError
        On entering: a layer cannot be compiled.
    """

    name: ClassVar[str] = "compiled"
    compile_seconds = 0.0
    capacity = 0  # tokens to make room for at once; the buffers grow from there

    def __init__(
        self, adapter: Adapter, plan: DepthPlan, *, write_kv: bool = False, batch: int = 1, max_tokens: int = 0
    ) -> None:
        self.adapter, self.plan, self.write_kv = adapter, plan, write_kv
        self.batch, self.max_tokens = batch, max_tokens
        self.gate = LayerGate(adapter)  # nobody else may run a plan on the model meanwhile

    def __enter__(self) -> Self:
        self.gate.__enter__()
        try:
            model = fuse(self.adapter)
            bridges = prepared(self.plan.bridges, self.adapter)
            kernels = kernels_for(model, self.batch, write=self.write_kv, bridged=bool(bridges))
        except BaseException:
            self.gate.__exit__()
            raise
        crossings = {d: {at: (b.weight.T.contiguous(), b.bias) for at, b in row.items()} for d, row in bridges.items()}
        self.compile_seconds = kernels.seconds
        self._ready: tuple[FusedModel, Kernels, Any] | None = (model, kernels, crossings)
        return self

    def __exit__(self, *exc: object) -> None:
        self._ready = None
        self.gate.__exit__(*exc)

    def prefill(
        self, input_ids: Tensor, attention_mask: Tensor, cache: Any, chunk: int | None = None
    ) -> tuple[Tensor, CompiledDecoder]:
        assert self._ready is not None, "the backend is entered before the prefill"
        model, kernels, bridges = self._ready
        logits, position = run_prompt(self.gate, input_ids, attention_mask, cache, chunk)
        kv = StaticKV(cache, attention_mask, self.capacity)
        # Where a row is is the slot less its padding: the one number that changes with every step.
        padding = kv.length - 1 - position[:, 0]
        return logits, self.decoder(model, kernels, kv, padding, self.plan.keep_sets, bridges)

    def decoder(self, *state: Any) -> CompiledDecoder:
        """The run from here on."""
        return CompiledDecoder(*state)
