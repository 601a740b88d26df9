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


class Engine:
    """The static tensors that every step of a model reads and writes, and the graphs that hold their addresses.

    It holds no weight: between two runs a model may be moved or freed, and ``identity`` tells.

    Attributes
    ----------
    kv : StaticKV
    tokens, padding : Tensor
        The token of each row, and the padded slots in front of it, int64 ``[batch]``.
    slot : Tensor
        Where this step's K and V go, int64 ``[1]``.
    x : Tensor
        The state, ``[batch, hidden]``, which every kernel changes in place.
    cos, sin : Tensor
        Of this step, ``[batch, head_dim]``; ``tables`` are those of all positions, ``[capacity, head_dim]``.
    logits : Tensor
        ``[batch, vocabulary]``.
    context : int
        Tokens that this step's attention reads; ``mask`` and ``windows`` (K and V of each layer) are that long.
    bridges : list of tuple of Tensor
        Weight (outputs first) and bias of every bridge of the current plan; another plan's values replace them in
        place.
    """

    def __init__(self, model: FusedModel, batch: int, tokens: int) -> None:
        layout, embedding = model.layout, model.embedding
        self.identity = identity(model, batch)
        self.kv = StaticKV(layout, batch, tokens)
        self.tokens = torch.zeros(batch, dtype=torch.int64, device=layout.device)
        self.padding, self.slot = torch.zeros_like(self.tokens), self.tokens.new_zeros(1)
        self.x = embedding.new_zeros(batch, embedding.shape[1])
        self.cos, self.sin = embedding.new_zeros(2, batch, layout.spec.head_dim).unbind()
        self.logits = embedding.new_zeros(batch, len(model.head[1]))
        self.bridges: list[tuple[Tensor, Tensor]] = []
        self._bridged: list[weakref.ref[Bridge]] = []
        self.tables = _tables(model, self.kv.capacity)
        self.context, self.mask = 0, self.kv.mask
        self.windows: list[tuple[Tensor, Tensor]] = []
        self._graphs: tuple[Any, GraphStore] | None = None

    def make_room(self, model: FusedModel, tokens: int) -> None:
        """Buffers for a run of ``tokens``, and the rotary tables as the model has them now."""
        if room(tokens) > self.kv.capacity:
            batch = len(self.tokens)
            del self.kv, self.mask, self.windows  # or both would be held at once
            self.kv = StaticKV(model.layout, batch, tokens)
            self.moved(model)
        for held, now in zip(self.tables, _tables(model, self.kv.capacity), strict=True):
            held.copy_(now)

    def place(self, model: FusedModel, tokens: Tensor) -> None:
        """Put the next step's token and slot where it reads them, and its windows around the context."""
        kv = self.kv
        with torch.inference_mode(False), torch.no_grad():
            if kv.reserve():
                self.moved(model)
        if kv.context != self.context:
            context = self.context = kv.context
            self.mask = kv.mask[:context]
            self.windows = [(k[:context], v[:context]) for k, v in zip(kv.keys, kv.values, strict=True)]
        self.tokens.copy_(tokens)
        self.slot.fill_(kv.length)
        kv.length += 1

    def moved(self, model: FusedModel) -> None:
        """The buffers lie elsewhere now: graphs hold the old addresses."""
        self.context = 0
        self.tables = _tables(model, self.kv.capacity)
        if self._graphs is not None:
            self._graphs[1].clear()

    def graphs(self, capture: Callable[[torch.device], Capture]) -> GraphStore:
        """The captured graphs; ``capture`` makes, from a device, what captures them."""
        if self._graphs is None or self._graphs[0] is not capture:
            self._graphs = (capture, GraphStore(capture(self.x.device)))
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
            width = self.x.shape[1]
            self.bridges.append((self.x.new_zeros(width, width), self.x.new_zeros(width)))
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
