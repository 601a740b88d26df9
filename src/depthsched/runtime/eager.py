"""The plain backend: the model's own forward, with skipped layers left out."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from ..adapters import Adapter
from ..plans import DepthPlan
from .cache import can_cut, cut
from .depths import DepthLayers
from .forward import run_all, run_prompt, run_several, run_tokens
from .gate import LayerGate
from .ragged import RaggedCache


class EagerBackend:
    """Runs each step through the transformers model itself, so every family and attention kernel works.

    Parameters
    ----------
    adapter : Adapter
    plan : DepthPlan
    write_kv : bool
        Whether skipped layers write K and V from the passed-through state.
    """

    name = "eager"
    drafts = renews = True
    compile_seconds = 0.0

    def __init__(self, adapter: Adapter, plan: DepthPlan, *, write_kv: bool = False) -> None:
        self.layers = DepthLayers(adapter, plan, write_kv=write_kv)
        self.gate = LayerGate(adapter)

    def __enter__(self) -> Self:
        self.gate.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.gate.__exit__(*exc)

    def prefill(
        self, input_ids: Tensor, attention_mask: Tensor, cache: Any, chunk: int | None = None
    ) -> tuple[Tensor, EagerDecoder]:
        logits, position = run_prompt(self.gate, input_ids, attention_mask, cache, chunk, self.layers.full)
        return logits, EagerDecoder(self, attention_mask, position, cache)


class EagerDecoder:
    """A run after its prefill."""

    def __init__(self, backend: EagerBackend, mask: Tensor, position: Tensor, cache: Any) -> None:
        self.backend, self.mask, self.position, self.cache = backend, mask, position, cache
        self.ragged: RaggedCache | None = None

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=-1)
        self.position = self.position + 1
        layers = self.backend.layers[depth]
        return run_tokens(self.backend.gate, layers, tokens[:, None], self.mask, self.position, self.cache)

    def cosine(self) -> Tensor:
        """Mean over the layers of the last pass of the cosine between the states before and after, ``[batch]``."""
        assert self.backend.layers.turned is not None, "the plan asks for it"
        return self.backend.layers.turned.mean()

    def renew(self, tokens: Tensor, at: int, keep: int = 1) -> Tensor:
        """``tokens [batch, count]`` at the slots from ``at`` on: logits ``[batch, keep, vocabulary]`` of the last."""
        cut(self.cache, at)
        end = at + tokens.shape[1]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), end - self.mask.shape[1])], dim=-1)
        positions = (self.mask.long().cumsum(-1) - 1).clamp_min(0)[:, at:end]
        self.position = positions[:, -1:]
        layers = self.backend.layers.full
        return run_all(self.backend.gate, layers, tokens, self.mask, positions, self.cache, keep)

    def held(self, length: int) -> list[tuple[Tensor, Tensor]] | None:
        """K and V of the first ``length`` slots of each layer; None where the cache does not keep them all."""
        if self.ragged is not None or not can_cut(self.cache):
            return None
        return [(layer.keys[:, :, :length], layer.values[:, :, :length]) for layer in self.cache.layers]

    def several(self, tokens: Tensor, at: Tensor, depth: int) -> Tensor:
        """Logits ``[rows, count, vocabulary]`` of ``tokens [rows, count]`` at the slots from ``at [rows]`` on."""
        if self.ragged is None:
            self.ragged = RaggedCache(self.cache, self.mask.bool().int().argmax(dim=1), int(at.max()) + 64)
        seen, positions = self.ragged.place(at, tokens.shape[1])
        gate = self.backend.gate
        layers = gate.full if depth == self.backend.layers.plan.num_layers else self.backend.layers[depth]
        return run_several(gate, layers, tokens, seen, positions, self.ragged)

    def settle(self, tokens: int) -> None:
        """Leave the cache of a run of one row with its first tokens, whatever drafts wrote after them."""
        if self.ragged is not None and len(self.mask) == 1:
            self.ragged.settle(tokens)

    def drop_rows(self, rows: Tensor) -> None:
        """Go on with only these rows, indices into those held so far."""
        if self.ragged is not None:
            self.ragged.select(rows)
            return
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]
