"""The compiled backend on a CPU: prompt and steps through the library."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import Tensor

from ...adapters import Adapter
from ...bridge import prepared
from ...native.build import folder
from ...native.library import Library, load, obstacle
from ...plans import DepthPlan
from ..forward import run_prompt
from ..gate import LayerGate
from .kv import NativeKV, starts_of
from .model import NativeModel
from .step import NativeDecoder

SHORT_PROMPT = 64
"""Tokens of all rows together from which torch's own products of dense float32 weights are faster; of no others."""


def native_obstacle(adapter: Adapter, *, compile_it: bool, holes: bool) -> str | None:
    """What keeps the library from running a model that is plain otherwise; None if nothing does.

    ``compile_it``: the caller wants this backend and no other, so that a library that cannot be made is an error on
    entering and no obstacle. Otherwise it is made here.
    """
    layer: Any = adapter.layers[0]
    if holes:
        return "the attention mask has holes after a row's first token"
    if layer.self_attn.head_dim % 8 or layer.self_attn.head_dim > 512:
        return f"the heads are {layer.self_attn.head_dim} wide, no multiple of 8 up to 512"
    return None if compile_it else obstacle()


class NativeBackend:
    """Runs prompts and steps through the compiled library, on the model's own weights.

    Parameters
    ----------
    adapter : Adapter
        Of a model that :func:`~depthsched.runtime.plain.why_not` has nothing against.
    plan : DepthPlan
    write_kv : bool
        Whether skipped layers write K and V from the passed-through state.
    batch, max_tokens : int
        Rows of the run, and the most tokens that a row can hold, prompt included.

    Raises
    ------
    ModelError
        On entering: the library cannot be compiled.
    """

    name: ClassVar[str] = "compiled"
    check_batch: ClassVar[int] = 3
    drafts: ClassVar[bool] = True
    compile_seconds = 0.0

    def __init__(
        self, adapter: Adapter, plan: DepthPlan, *, write_kv: bool = False, batch: int = 1, max_tokens: int = 0
    ) -> None:
        self.adapter, self.plan, self.write_kv = adapter, plan, write_kv
        self.batch, self.max_tokens = batch, max_tokens
        self.gate = LayerGate(adapter)  # nobody else may run a plan on the model meanwhile
        self._ready: tuple[Library, NativeModel] | None = None

    @property
    def check_key(self) -> str:
        """What a self-check of this backend holds for: the library of this machine."""
        return folder().name

    def __enter__(self) -> Self:
        self.gate.__enter__()
        try:
            library, seconds = load()
            self.compile_seconds += seconds
            self._ready = library, NativeModel(self.adapter, prepared(self.plan.bridges, self.adapter))
        except BaseException:
            self.gate.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._ready = None
        self.gate.__exit__(*exc)

    def prefill(
        self, input_ids: Tensor, attention_mask: Tensor, cache: Any, chunk: int | None = None
    ) -> tuple[Tensor, NativeDecoder]:
        assert self._ready is not None, "the backend is entered before the prefill"
        library, model = self._ready
        starts = starts_of(attention_mask)
        assert starts is not None, "a mask with holes runs eager"
        short = input_ids.numel() <= SHORT_PROMPT or not model.dense_float32
        logits = None if short else run_prompt(self.gate, input_ids, attention_mask, cache, chunk)[0]
        room = min(self.max_tokens, attention_mask.shape[1] + 256)
        kv = NativeKV(
            cache, layers=model.num_layers, batch=len(input_ids), heads=model.kv_heads, width=model.width,
            dtype=model.dtype, room=max(room, attention_mask.shape[1] + 1),
        )  # fmt: skip
        decoder = NativeDecoder(library, model, kv, starts, self.plan.keep_sets, write_kv=self.write_kv)
        return decoder.prompt(input_ids, chunk) if logits is None else logits, decoder
