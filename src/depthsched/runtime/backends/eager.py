"""The plain backend: the model's own forward with skipped layers switched out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch

from ...adapters import Adapter
from ...bridge import Bridges, prepared
from ..switch import LayerSwitch


class EagerBackend:
    """Runs each step through the transformers model itself, so every family and attention kernel works.

    Parameters
    ----------
    adapter : Adapter
    keep_sets : mapping of int to tuple of int
        The layers that run at each depth.
    write_kv : bool
        Whether skipped layers write K and V from the passed-through state.
    bridges : Bridges, optional
        What stands in for skipped layers at each depth.
    """

    name = "eager"
    compile_seconds = 0.0

    def __init__(
        self,
        adapter: Adapter,
        keep_sets: Mapping[int, tuple[int, ...]],
        *,
        write_kv: bool = False,
        bridges: Bridges | None = None,
    ) -> None:
        self.model = adapter.model
        self.keep_sets = keep_sets
        self.switch = LayerSwitch(adapter, write_kv=write_kv)
        self.bridges = prepared(bridges, adapter)
        self._cache: Any = None
        self._mask = torch.empty(0)
        self._position = torch.empty(0)

    def __enter__(self) -> Self:
        self.switch.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._cache = None
        self.switch.__exit__(*exc)

    def prefill(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, cache: Any) -> torch.Tensor:
        self.switch.select(None)
        self._cache, self._mask = cache, attention_mask
        positions = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
        self._position = positions[:, -1:]
        return self._forward(input_ids, positions[:, -input_ids.shape[1] :])

    def step(self, tokens: torch.Tensor, depth: int) -> torch.Tensor:
        self.switch.select(self.keep_sets[depth], self.bridges.get(depth))
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=-1)
        self._position = self._position + 1
        return self._forward(tokens[:, None], self._position)

    def drop_rows(self, rows: torch.Tensor) -> None:
        """Go on with only these rows, indices into those held so far."""
        self._cache.batch_select_indices(rows)
        self._mask, self._position = self._mask[rows], self._position[rows]

    def _forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self.model(
            input_ids=input_ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits
