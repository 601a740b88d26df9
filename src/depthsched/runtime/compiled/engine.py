"""What a model keeps from one run to the next: static buffers, captured graphs, bridges on the device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...bridge import Bridge, Bridges
from .capture import Capture, GraphStore
from .kv import StaticKV, room
from .weights import FusedModel

_ENGINES: weakref.WeakKeyDictionary[Any, Engine] = weakref.WeakKeyDictionary()


@torch.inference_mode(False)  # a caller's inference mode would make tensors that no later run could write
@torch.no_grad()
def engine_for(owner: Any, model: FusedModel, batch: int, tokens: int) -> Engine:
    """The engine of a transformers model for runs of ``batch`` rows and up to ``tokens`` tokens.

    The one of the last run, unless the weights have moved or the batch is another: then that one is dropped first,
    so that two never hold memory at once. A run that is longer than its buffers gets larger ones.
    """
    found = _ENGINES.get(owner)
    if found is not None and found.identity != identity(model, batch):
        del _ENGINES[owner], found
        found = None
    if found is None:
        found = _ENGINES[owner] = Engine(model, batch, tokens)
    found.make_room(model, tokens)
    return found


def release(owner: Any) -> None:
    """Give back what a model's engine holds on the device; the next run makes a new one."""
    _ENGINES.pop(owner, None)


def identity(model: FusedModel, batch: int) -> tuple[Any, ...]:
    """What captured graphs depend on besides their buffers: every address and shape of the weights."""
    tensors = [model.embedding, *model.head, *(t for row in model.layers for t in row)]
    return model.layout, batch, tuple(t.data_ptr() for t in tensors)


class Pass:
    """The static tensors of a pass of ``count`` tokens a row; ``rows`` are those of the batch, ``count`` times.

    Attributes
    ----------
    tokens : Tensor
        int64 ``[batch, count]``.
    slot, row : Tensor
        Where K and V of each token go, int64 ``[rows]``: its slot, and its row of the batch.
    x : Tensor
        The state, ``[rows, hidden]``, which every kernel changes in place.
    cos, sin : Tensor
        ``[rows, head_dim]``.
    mask : Tensor
        What each token sees, ``[batch, count, capacity]``; a pass uses the first ``context``.
    logits : Tensor
        ``[rows, vocabulary]``.
    """

    def __init__(self, model: FusedModel, batch: int, count: int, capacity: int) -> None:
        new, rows = model.embedding.new_zeros, batch * count
        self.tokens = torch.zeros(batch, count, dtype=torch.int64, device=model.layout.device)
        self.slot = self.tokens.new_zeros(rows)
        self.row = torch.arange(batch, device=self.slot.device).repeat_interleave(count)
        self.ahead = torch.arange(count, device=self.slot.device).repeat(batch)
        self.x = new(rows, model.embedding.shape[1])
        self.cos, self.sin = new(2, rows, model.layout.spec.head_dim).unbind()
        self.mask = new(batch, count, capacity)
        self.logits = new(rows, len(model.head[1]))

    def place(self, tokens: Tensor, at: Tensor | None, slot: int) -> None:
        """Put the next tokens and their slots where the pass reads them: from ``at`` on, or all rows from ``slot``."""
        self.tokens.copy_(tokens)
        if at is None:
            torch.add(self.ahead, slot, out=self.slot)
        else:
            torch.add(self.ahead, at.index_select(0, self.row), out=self.slot)


class Engine:
    """The static tensors that every pass of a model reads and writes, and the graphs that hold their addresses.

    It holds no weight: between two runs a model may be moved or freed, and ``identity`` tells.

    Attributes
    ----------
    kv : StaticKV
    padding : Tensor
        The padded slots in front of each row, int64 ``[batch]``.
    tables : tuple of Tensor
        cos and sin of every position, ``[capacity, head_dim]``.
    passes : dict of int to Pass
        By the tokens of each row, made when first used.
    context : int
        Tokens that this pass's attention reads.
    bridges : list of tuple of Tensor
        Weight (outputs first) and bias of every bridge of the current plan; another plan's values replace them in
        place.
    """

    def __init__(self, model: FusedModel, batch: int, tokens: int) -> None:
        self.identity = identity(model, batch)
        self.batch = batch
        self.kv = StaticKV(model.layout, batch, tokens)
        self.padding = torch.zeros(batch, dtype=torch.int64, device=model.layout.device)
        self.passes: dict[int, Pass] = {}
        self.bridges: list[tuple[Tensor, Tensor]] = []
        self._bridged: list[weakref.ref[Bridge]] = []
        self.tables = _tables(model, self.kv.capacity)
        self.context = 0
        self._graphs: tuple[Any, GraphStore] | None = None

    def make_room(self, model: FusedModel, tokens: int) -> None:
        """Buffers for a run of ``tokens``, and the rotary tables as the model has them now."""
        if room(tokens) > self.kv.capacity:
            del self.kv  # or both would be held at once
            self.kv = StaticKV(model.layout, self.batch, tokens)
            self.moved(model)
        for held, now in zip(self.tables, _tables(model, self.kv.capacity), strict=True):
            held.copy_(now)

    @torch.inference_mode(False)
    @torch.no_grad()
    def place(self, model: FusedModel, tokens: Tensor, at: Tensor | None = None) -> None:
        """Put the next tokens ``[batch, count]`` where a pass reads them.

        They go to the slots from ``at`` ``[batch]`` on, or after all that is held.
        """
        kv, count = self.kv, tokens.shape[1]
        end = (kv.length if at is None else int(at.max())) + count
        if kv.reserve(end):
            self.moved(model)
        self.context = kv.context(end)
        if count not in self.passes:
            self.passes[count] = Pass(model, self.batch, count, kv.capacity)
        self.passes[count].place(tokens, at, kv.length)
        kv.length = end

    def opening(self, context: int) -> tuple[Tensor, ...]:
        """What :func:`~depthsched.runtime.compiled.step.begin` reads besides the pass."""
        return self.padding, self.kv.hidden[:, :context], *self.tables

    def moved(self, model: FusedModel) -> None:
        """The buffers lie elsewhere now: graphs hold the old addresses."""
        self.passes.clear()
        self.tables = _tables(model, self.kv.capacity)
        if self._graphs is not None:
            self._graphs[1].clear()

    def graphs(self, capture: Callable[[torch.device], Capture]) -> GraphStore:
        """The captured graphs; ``capture`` makes, from a device, what captures them."""
        if self._graphs is None or self._graphs[0] is not capture:
            self._graphs = (capture, GraphStore(capture(self.padding.device)))
        return self._graphs[1]

    def begin(self, cache: Any, attention_mask: Tensor, position: Tensor) -> None:
        """Take over a prefill whose last positions are ``[batch, 1]``."""
        self.kv.fill(cache, attention_mask)
        # Where a row is is the slot less its padding: the one number that changes with every step.
        self.padding.copy_(self.kv.length - 1 - position[:, 0])

    def place_bridges(self, bridges: Bridges) -> dict[int, dict[int, int]]:
        """Put a plan's bridges into the static buffers: by depth and layer, which of :attr:`bridges` it is."""
        found: dict[int, dict[int, int]] = {}
        for depth, row in sorted(bridges.items()):
            for at, bridge in sorted(row.items()):
                number = sum(map(len, found.values()))
                self._place(number, bridge)
                found.setdefault(depth, {})[at] = number
        return found

    def _place(self, number: int, bridge: Bridge) -> None:
        if number == len(self.bridges):
            width, new = len(bridge.bias), self.kv.hidden.new_zeros
            self.bridges.append((new(width, width), new(width)))
            self._bridged.append(weakref.ref(bridge))
        elif self._bridged[number]() is bridge:
            return
        self._bridged[number] = weakref.ref(bridge)
        weight, bias = self.bridges[number]
        weight.copy_(bridge.weight.T)
        bias.copy_(bridge.bias)


def _tables(model: FusedModel, capacity: int) -> tuple[Tensor, Tensor]:
    """cos and sin of every position, ``[capacity, head_dim]`` each."""
    places = torch.arange(capacity, device=model.embedding.device)[None]
    cos, sin = model.rotary(model.embedding, places)
    return cos[0].contiguous(), sin[0].contiguous()
