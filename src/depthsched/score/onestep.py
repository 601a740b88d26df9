"""Every decode step at a depth of its own, over the K and V that full depth left for all positions before it.

One pass a depth: each position of the completion enters as a query of its own, with its own K and V in a slot that
only it sees, and finds the others' K and V of full depth in the cache. That is the least damage a depth can do: what
a run computes whose cache is renewed before every step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from ..bridge import Bridge
from ..errors import PlanError
from ..runtime.gate import LayerGate
from .staircase import NO_MASK, Staircase


class OneStep:
    """Full depth's pass over the completions of a batch, kept to start single steps from.

    Parameters
    ----------
    staircase : Staircase
        The batch, its prompts run.
    entries : collection of int
        Layers whose input is kept: where a shallower pass can begin.

    Attributes
    ----------
    full : torch.Tensor
        Final states of full depth, after the last norm, ``[batch, S, hidden]``.
    """

    @torch.no_grad()
    def __init__(self, staircase: Staircase, entries: Collection[int]) -> None:
        self.staircase, self.adapter = staircase, staircase.adapter
        self.states: dict[int, torch.Tensor] = {}
        self._masks: list[torch.Tensor | None] = []
        self._last: Any = None
        cache = DynamicCache()
        for i, (keys, values) in enumerate(staircase.keys):
            cache.update(keys, values, i)
        with LayerGate(self.adapter, lambda this: kept) as gate:
            kept = [_Keeping(layer, i, self, i in entries) for i, layer in enumerate(gate.full)]
            self.full = self._pass(cache, staircase.mask)
        # Nobody reads the K and V of the last step but that step itself, which has its own.
        slots = staircase.prompt_slots + staircase.steps - 1
        self.keys = [(layer.keys[:, :, :slots], layer.values[:, :, :slots]) for layer in cache.layers]

    def _pass(self, cache: DynamicCache, mask: torch.Tensor) -> torch.Tensor:
        output = self.adapter.decoder(
            input_ids=self.staircase.inputs,
            attention_mask=mask,
            position_ids=self.staircase.positions[:, self.staircase.prompt_slots :],
            past_key_values=cache,
            use_cache=True,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def keep(self, index: int, state: torch.Tensor | None, mask: Any) -> None:
        """Take what enters a layer; layers come in their order."""
        if state is not None:
            self.states[index] = state
        same = self._masks and mask is self._last
        self._masks.append(self._masks[-1] if same else self._alone(mask))
        self._last = mask

    def _alone(self, mask: Any) -> torch.Tensor | None:
        """A layer's mask ``[..., S, prompt + S]`` with each step's own slot moved after all others."""
        prompt, steps = self.staircase.prompt_slots, self.staircase.steps
        if mask is None and steps == 1:
            return None  # a single step sees everything
        if not isinstance(mask, torch.Tensor) or mask.dim() != 4:
            raise PlanError(NO_MASK)
        hidden = torch.zeros((), dtype=torch.bool) if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        itself = torch.eye(steps, dtype=torch.bool, device=mask.device)
        decoded = mask[..., prompt:]
        before = torch.where(itself, hidden, decoded)[..., : steps - 1]
        return torch.cat([mask[..., :prompt], before, torch.where(itself, decoded, hidden)], dim=-1)

    @torch.no_grad()
    def run(self, keep: Sequence[int], bridges: Mapping[int, Bridge] | None = None) -> torch.Tensor:
        """Final states of every decode step with only these layers, after the last norm, ``[batch, S, hidden]``.

        Parameters
        ----------
        keep : sequence of int
        bridges : mapping of int to Bridge, optional
            Layer whose input is bridged (the number of layers means: after the last) -> bridge.

        Raises
        ------
        PlanError
            The input of the layer where the pass begins was not kept.
        """
        entry = first_change(keep, bridges or {}, self.adapter.num_layers)
        if entry is None:
            return self.full
        if entry not in self.states:
            raise PlanError(f"the states that enter layer {entry} were not kept; name it in entries")
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self.keys):
            cache.update(keys, values, i)
        mask = self.staircase.mask
        with LayerGate(self.adapter, lambda this: running) as gate:
            running = self._running(gate.full, frozenset(keep), bridges or {}, entry)
            return self._pass(cache, torch.cat([mask[:, :-1], mask.new_ones(len(mask), self.staircase.steps)], dim=1))

    def _running(self, layers: Sequence[Any], keep: Collection[int], bridges: Mapping[int, Bridge], entry: int) -> Any:
        placed = {i: bridge.to(self.adapter) for i, bridge in bridges.items()}
        last = len(layers) - 1
        return [
            _Alone(
                layer if i in keep and i >= entry else None,
                self._masks[i],
                self.states[entry] if i == entry else None,
                placed.get(i) if i >= entry else None,
                placed.get(last + 1) if i == last else None,
            )
            for i, layer in enumerate(layers)
        ]


def first_change(keep: Sequence[int], bridges: Mapping[int, Bridge] | Collection[int], num_layers: int) -> int | None:
    """The lowest layer that is skipped or bridged, up to which a pass is full depth's; None where it is all of it."""
    changed = {*range(num_layers)} - {*keep} | {*bridges}
    return min(min(changed), num_layers - 1) if changed else None


class _Keeping:
    """A layer that shows what enters it."""

    def __init__(self, layer: nn.Module, index: int, to: OneStep, state: bool) -> None:
        self.layer, self.index, self.to, self.state = layer, index, to, state

    def __call__(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.to.keep(self.index, hidden if self.state else None, kwargs.get("attention_mask"))
        return self.layer(hidden, *args, **kwargs)


class _Alone:
    """A layer, or nothing, in a pass whose positions see each other's K and V of full depth only."""

    def __init__(
        self,
        layer: nn.Module | None,
        mask: torch.Tensor | None,
        enters: torch.Tensor | None,
        before: Bridge | None,
        after: Bridge | None,
    ) -> None:
        self.layer, self.mask, self.enters, self.before, self.after = layer, mask, enters, before, after

    def __call__(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        hidden = hidden if self.enters is None else self.enters
        hidden = hidden if self.before is None else self.before(hidden)
        if self.layer is not None:
            hidden = self.layer(hidden, *args, **{**kwargs, "attention_mask": self.mask})
        return hidden if self.after is None else self.after(hidden)
