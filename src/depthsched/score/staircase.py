"""The staircase: teacher-forced decoding of a nested plan in one forward pass.

Decode step ``s`` consumes token ``s - 1`` of the completion and predicts token ``s``. In a nested plan a layer
that runs at step ``s`` ran at every step before it, so over all steps it runs on a prefix of them: it is
applied to those columns at once, and the rest pass it by. Its attention sees exactly the positions that ran it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from ..adapters import Adapter
from ..bridge import Bridge, Bridges
from ..encoding import left_padded
from ..errors import PlanError
from ..plans import DepthPlan
from ..runtime.gate import LayerGate
from .answers import Sample

NO_MASK = "scoring needs attention masks that are tensors; load the model with sdpa or eager attention"
Tap = Callable[[int, torch.Tensor], torch.Tensor | None]


class Staircase:
    """A batch of prompts with their completions, its prompts run once at full depth.

    Parameters
    ----------
    adapter : Adapter
    samples : sequence of Sample
        Each with at least two tokens of completion: the first comes out of the prefill.
    keys : sequence of (K, V), optional
        What :attr:`keys` was for the same samples before; spares the prefill.

    Attributes
    ----------
    steps : int
        Decode steps of the longest completion, S.
    targets : torch.Tensor
        Token that each decode step predicts, ``[batch, S]``; column ``c`` is step ``c + 1``.
    valid : torch.Tensor
        Which of them are real, ``[batch, S]``, bool.
    inputs : torch.Tensor
        Token that each decode step consumes, ``[batch, S]``.
    mask, positions : torch.Tensor
        Of the prompts, padded on the left, and the decode steps after them, ``[batch, prompt + S]``.
    prompt_slots : int
        Length of the padded prompts.
    keys : list of (K, V)
        Of the prompts, padded on the left, one pair for every layer, ``[batch, heads, prompt, head dim]`` each.
    """

    def __init__(
        self,
        adapter: Adapter,
        samples: Sequence[Sample],
        keys: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> None:
        if not samples or min(len(s.completion) for s in samples) < 2:
            raise PlanError("every sample needs a completion of at least two tokens: the prefill makes the first")
        self.adapter = adapter
        device = adapter.device
        ids, mask = (t.to(device) for t in left_padded([s.prompt for s in samples]))
        lengths = torch.tensor([len(s.completion) for s in samples], device=device)
        self.steps = int(lengths.max()) - 1
        rows = torch.zeros(len(samples), self.steps + 1, dtype=torch.long, device=device)
        for row, sample in zip(rows, samples, strict=True):
            row[: len(sample.completion)] = torch.tensor(sample.completion, device=device)
        self.inputs, self.targets = rows[:, :-1], rows[:, 1:]
        self.valid = torch.arange(1, self.steps + 1, device=device) < lengths[:, None]
        # Behind a completion's end nothing is padding: no earlier position sees it, and its own rows are dropped.
        self.mask = torch.cat([mask, mask.new_ones(len(samples), self.steps)], dim=1)
        self.positions = (self.mask.cumsum(-1) - 1).clamp_min(0)
        self.prompt_slots = ids.shape[1]
        self.keys = list(self._prefill(ids) if keys is None else keys)

    @torch.no_grad()
    def _prefill(self, ids: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        cache = DynamicCache()
        self.adapter.decoder(
            input_ids=ids,
            attention_mask=self.mask[:, : self.prompt_slots],
            position_ids=self.positions[:, : self.prompt_slots],
            past_key_values=cache,
            use_cache=True,
        )
        return [(layer.keys, layer.values) for layer in cache.layers]

    def depths(self, plan: DepthPlan) -> list[int]:
        """Depth of every decode step of this batch."""
        return [plan.depth(step) for step in range(1, self.steps + 1)]

    def run(
        self,
        depths: Sequence[int],
        keep_sets: Mapping[int, Sequence[int]],
        bridges: Bridges | None = None,
        tap: Tap | None = None,
        *,
        gradient: bool = False,
    ) -> torch.Tensor:
        """Final states of every decode step, after the last norm, ``[batch, S, hidden]``.

        Parameters
        ----------
        depths : sequence of int
            Depth of decode steps 1 to S; never rising, with nested keep sets.
        keep_sets : mapping of int to sequence of int
            The layers that run at each depth.
        bridges : Bridges, optional
        tap : callable, optional
            Gets every layer's index and the states that enter it, bridged; index L is the last norm's input.
            May return states to go on with.
        gradient : bool
            Record it for one.

        Raises
        ------
        PlanError
            A layer would run again after it was skipped.
        """
        stairs = _stairs(depths, keep_sets, self.adapter.num_layers)
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self.keys):
            cache.update(keys, values, i)
        spans = _by_layer(depths, bridges or {}, self.adapter)
        with torch.set_grad_enabled(gradient), stepping(self.adapter, stairs, spans, tap):
            output = self.adapter.decoder(
                input_ids=self.inputs,
                attention_mask=self.mask,
                position_ids=self.positions[:, self.prompt_slots :],
                past_key_values=cache,
                use_cache=True,
            )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def full(self, tap: Tap | None = None) -> torch.Tensor:
        """:meth:`run` at full depth."""
        layers = self.adapter.num_layers
        return self.run([layers] * self.steps, {layers: range(layers)}, tap=tap)


def _stairs(depths: Sequence[int], keep_sets: Mapping[int, Sequence[int]], num_layers: int) -> list[int]:
    """Steps that run each layer; they are the first ones."""
    kept = {depth: frozenset(keep_sets[depth]) for depth in set(depths)}
    stairs = []
    for layer in range(num_layers):
        runs = [layer in kept[depth] for depth in depths]
        if any(later and not sooner for sooner, later in pairwise(runs)):
            raise PlanError(f"layer {layer} runs again after it was skipped; only nested plans make a staircase")
        stairs.append(sum(runs))
    return stairs


Spans = list[tuple[slice, Bridge]]


def _by_layer(depths: Sequence[int], bridges: Bridges, adapter: Adapter) -> dict[int, Spans]:
    """For every layer the bridges in front of it, each with the columns it acts on."""
    spans: dict[int, Spans] = {}
    for depth in dict.fromkeys(depths):
        first = depths.index(depth)
        columns = slice(first, first + depths.count(depth))
        for layer, bridge in bridges.get(depth, {}).items():
            spans.setdefault(layer, []).append((columns, bridge.to(adapter)))
    return spans


class _Stair:
    """Runs a layer on the first columns only; the others pass."""

    def __init__(self, layer: nn.Module, count: int, before: Spans, after: Spans, tap: Tap | None, index: int) -> None:
        self.layer, self.count, self.before, self.after, self.tap, self.index = layer, count, before, after, tap, index

    def __call__(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        hidden = _bridged(hidden, self.before)
        if self.tap:
            changed = self.tap(self.index, hidden)
            hidden = hidden if changed is None else changed
        if self.count:
            out = self.layer(hidden[:, : self.count], *args, **_cut(kwargs, self.count, hidden.shape[1]))
            hidden = torch.cat([out, hidden[:, self.count :]], dim=1) if self.count < hidden.shape[1] else out
        return _bridged(hidden, self.after)


def _bridged(hidden: torch.Tensor, spans: Spans) -> torch.Tensor:
    if not spans:
        return hidden
    found = hidden.clone()  # every span has columns of its own
    for columns, bridge in spans:
        found[:, columns] = bridge(hidden[:, columns])
    return found


def _cut(kwargs: dict[str, Any], count: int, of: int) -> dict[str, Any]:
    """A layer's arguments for the first ``count`` of the columns that transformers prepared them for."""
    cut = dict(kwargs)
    if kwargs.get("position_ids") is not None:
        cut["position_ids"] = kwargs["position_ids"][:, :count]
    if kwargs.get("position_embeddings") is not None:
        cut["position_embeddings"] = tuple(part[:, :count] for part in kwargs["position_embeddings"])
    mask = kwargs.get("attention_mask")
    if mask is not None:
        if not isinstance(mask, torch.Tensor):
            raise PlanError(NO_MASK)
        seen = mask.shape[-1] - of + count
        cut["attention_mask"] = mask[..., :seen] if mask.dim() == 2 else mask[:, :, :count, :seen]
    return cut


@contextmanager
def stepping(adapter: Adapter, stairs: Sequence[int], spans: Mapping[int, Spans], tap: Tap | None) -> Iterator[None]:
    """The model's layers as stairs, and as they were afterwards."""
    last = len(stairs) - 1
    with ExitStack() as stack:
        gate = stack.enter_context(LayerGate(adapter, lambda this: steps))
        steps = [
            _Stair(layer, stairs[i], spans.get(i, []), spans.get(last + 1, []) if i == last else [], tap, i)
            for i, layer in enumerate(gate.full)
        ]
        if tap:
            norm = adapter.final_norm
            hook = norm.register_forward_pre_hook(lambda module, args: _tapped(tap, last + 1, args[0]))
            stack.callback(hook.remove)
        yield


def _tapped(tap: Tap, index: int, hidden: torch.Tensor) -> tuple[torch.Tensor]:
    changed = tap(index, hidden)
    return (hidden if changed is None else changed,)
