"""Drafts from a full-depth cache, teacher-forced: every step of a text in every place of a draft, in one pass.

A lossless run drafts from a cache that full depth wrote. So the state of a drafted token does not depend on any earlier
draft, only on its place: the first token of a draft sees full-depth K and V of all positions before it and K and V of
its own; the second sees full-depth ones up to its draft's beginning, then those of the first and of its own; and so on.
The pass runs the steps of the text once at full depth and once more for each place, side by side, with a mask that says
which K and V each of them sees. What it computes is what a run computes whose drafts begin at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from ..adapters import Adapter
from ..bridge import Bridge
from ..runtime.ragged import refuse_ragged
from .answers import Sample
from .staircase import Spans, Staircase, Tap, stepping


class Streams(Staircase):
    """A batch whose decode steps run at full depth, and beside that as tokens of drafts.

    Raises
    ------
    PlanError
        The model has attention that takes no mask of its own for each token, or a sliding window that matters.
    """

    def __init__(
        self,
        adapter: Adapter,
        samples: Sequence[Sample],
        keys: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> None:
        super().__init__(adapter, samples, keys)
        refuse_ragged(adapter, self.prompt_slots + self.steps)

    def drafts(self, keep: Sequence[int], bridges: Mapping[int, Bridge] | None = None, places: int = 1) -> torch.Tensor:
        """Final states, after the last norm, ``[batch, 1 + places, S, hidden]``.

        Row 0 is full depth. Row ``i`` holds every decode step as the ``i``-th token of its draft; its first ``i - 1``
        columns are of drafts that would begin before the first step, and mean nothing.

        Parameters
        ----------
        keep : sequence of int
            The layers of a draft step.
        bridges : mapping of int to Bridge, optional
            By the layer whose input they change.
        places : int
        """
        kept, columns = set(keep), (1 + places) * self.steps
        stairs = [columns if layer in kept else self.steps for layer in range(self.adapter.num_layers)]
        behind = slice(self.steps, columns)
        spans: dict[int, Spans] = {
            layer: [(behind, bridge.to(self.adapter))] for layer, bridge in (bridges or {}).items()
        }
        return self._apart(self._side_by_side(stairs, spans, None, 1, places))

    def layer(self, index: int, full: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """States after one layer, each the first token of a draft: it sees full-depth K and V, and its own.

        Parameters
        ----------
        index : int
        full : torch.Tensor
            Full-depth states that enter the layer, ``[batch, S, hidden]``.
        states : torch.Tensor
            Several of each step, ``[batch, lanes, S, hidden]``.

        Returns
        -------
        torch.Tensor
            As ``states``.
        """
        lanes, found = states.shape[1], [states]
        both = torch.cat([full[:, None], states], dim=1).flatten(1, 2).to(self.adapter.dtype)

        def tap(layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
            if layer == index + 1:
                found[0] = self._apart(hidden)[:, 1:]
            return both if layer == index else None

        stairs = [0] * self.adapter.num_layers
        stairs[index] = both.shape[1]
        self._side_by_side(stairs, {}, tap, lanes, 1)
        return found[0]

    @torch.no_grad()
    def _side_by_side(
        self, stairs: Sequence[int], spans: Mapping[int, Spans], tap: Tap | None, lanes: int, places: int
    ) -> torch.Tensor:
        copies = 1 + lanes * places
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self.keys):
            cache.update(keys, values, i)
        with stepping(self.adapter, stairs, spans, tap):
            output: Any = self.adapter.decoder(
                input_ids=self.inputs.repeat(1, copies),
                attention_mask=self._seen(lanes, places),
                position_ids=self.positions[:, self.prompt_slots :].repeat(1, copies),
                past_key_values=cache,
                use_cache=True,
            )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _apart(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.view(len(hidden), -1, self.steps, hidden.shape[-1])

    def _seen(self, lanes: int, places: int) -> torch.Tensor:
        """The additive mask ``[batch, 1, columns, prompt + columns]``."""
        dtype, device = self.adapter.dtype, self.mask.device
        streams = [(-1, 0), *((lane, place) for lane in range(lanes) for place in range(1, places + 1))]
        lane, place = (
            torch.tensor(values, device=device).repeat_interleave(self.steps) for values in zip(*streams, strict=True)
        )
        column = torch.arange(self.steps, device=device).repeat(len(streams))
        begins = column - place  # the last position that a draft's first token sees at full depth
        full = (place == 0) & (column <= begins[:, None])
        own = (lane == lane[:, None]) & (place > 0) & (place <= place[:, None]) & (begins == begins[:, None])
        prompt = self.mask[:, None, : self.prompt_slots].bool().expand(-1, len(column), -1)
        seen = torch.cat([prompt, (full | own).expand(len(prompt), -1, -1)], dim=-1)[:, None]
        return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
