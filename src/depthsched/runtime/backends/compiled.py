"""The compiled backend: a lean layer compiled once, called for every layer that a depth keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ...adapters import Adapter
from ...bridge import Bridges, prepared
from ..lean import LeanKernels, StaticKV, kernels_for, lean_model
from ..switch import LayerSwitch


class CompiledBackend:
    """Runs decode steps on the lean path, and the prefill through the model's own forward.

    Parameters
    ----------
    adapter : Adapter
    keep_sets : mapping of int to tuple of int
        The layers that run at each depth.
    write_kv : bool
        Whether skipped layers write K and V from the passed-through state.
    batch : int
        Rows of the run.
    max_tokens : int
        Most tokens the run can hold, prompt included.
    bridges : mapping, optional
        Bridges over the skipped runs of each depth.

    Raises
    ------
    NotLean
        The model carries something that the lean path does not compute.
    ModelError
        The layer cannot be compiled.
    """

    name = "compiled"
    capacity = 0  # tokens to make room for at once; the buffers grow from there

    def __init__(
        self,
        adapter: Adapter,
        keep_sets: Mapping[int, tuple[int, ...]],
        *,
        write_kv: bool = False,
        batch: int = 1,
        max_tokens: int = 0,
        bridges: Bridges | None = None,
    ) -> None:
        self.adapter, self.keep_sets, self.write_kv = adapter, keep_sets, write_kv
        self.batch, self.max_tokens = batch, max_tokens
        self.lean = lean_model(adapter, max_tokens)
        self.bridges = {
            depth: {at: (bridge.weight.T.contiguous(), bridge.bias) for at, bridge in row.items()}
            for depth, row in prepared(bridges, adapter).items()
        }
        self.switch = LayerSwitch(adapter)
        self.compile_seconds = 0.0

    def __enter__(self) -> Self:
        self._kernels: LeanKernels = kernels_for(self.lean, self.batch, write=self.write_kv, bridged=bool(self.bridges))
        self.compile_seconds = self._kernels.seconds
        self.switch.__enter__()  # nobody else may run a plan on the model meanwhile
        return self

    def __exit__(self, *exc: object) -> None:
        for name in ("kv", "_windows", "_kernels", "_cos", "_sin", "_bias"):
            self.__dict__.pop(name, None)
        self.switch.__exit__(*exc)

    def prefill(self, input_ids: Tensor, attention_mask: Tensor, cache: Any) -> Tensor:
        device = input_ids.device
        positions = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
        output = self.adapter.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions[:, -input_ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
        self.kv = StaticKV(cache, attention_mask, self.capacity)
        # Where a row is is the slot less its padding: the one number that changes with every step.
        self._padding = self.kv.length - 1 - positions[:, -1]
        self._tokens = torch.zeros(self.batch, dtype=torch.int64, device=device)
        self._slot = torch.zeros(1, dtype=torch.int64, device=device)
        self._set_windows()
        logits: Tensor = output.logits[:, -1]
        return logits

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        self._place(tokens)
        return self._forward(depth)

    def _place(self, tokens: Tensor) -> None:
        """Put the token and its slot where the step reads them."""
        if self.kv.context != self._context:
            self._set_windows()
        self._tokens.copy_(tokens)
        self._slot.fill_(self.kv.length)
        self.kv.length += 1

    def _set_windows(self) -> None:
        """What each layer is called with, valid until the context outgrows its bucket."""
        moved = self.kv.reserve()
        self._context = end = self.kv.context
        self._windows = [
            (keys[:end], values[:end], *weights)
            for keys, values, weights in zip(self.kv.keys, self.kv.values, self.lean.layers, strict=True)
        ]
        self._bias = self.kv.bias[:end]
        if moved or not hasattr(self, "_cos"):
            places = torch.arange(self.kv.capacity, device=self._slot.device)[None]
            cos, sin = self.lean.rotary(self.lean.embedding, places)
            self._cos, self._sin = cos[0], sin[0]

    def _forward(self, depth: int) -> Tensor:
        """One step, from the static inputs to logits; tensors only, so that it can be captured."""
        slot, kernels = self._slot, self._kernels
        place = slot - self._padding
        cos, sin = self._cos[place], self._sin[place]
        self._bias.index_fill_(0, slot, 0.0)
        x = F.embedding(self._tokens, self.lean.embedding)
        kept, bridges = set(self.keep_sets[depth]), self.bridges.get(depth, {})
        for i, window in enumerate(self._windows):
            if i not in kept and kernels.write_only is not None:
                kernels.write_only(x, cos, sin, slot, *window)  # from the state as it comes, before its bridge
            if i in bridges:
                x = self._cross(x, bridges[i])
            if i in kept:
                x = kernels.layer(x, cos, sin, slot, self._bias, *window)[0]
        if len(self._windows) in bridges:
            x = self._cross(x, bridges[len(self._windows)])
        logits: Tensor = kernels.head(x, *self.lean.head)[0]
        return logits

    def _cross(self, x: Tensor, bridge: tuple[Tensor, Tensor]) -> Tensor:
        if self._kernels.bridge is None:
            return x
        crossed: Tensor = self._kernels.bridge(x, *bridge)[0]
        return crossed
