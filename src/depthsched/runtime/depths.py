"""What runs in place of each layer at each depth of a plan: the layer, or its stand-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..adapters import Adapter
from ..bridge import Bridge, Bridges, prepared
from ..parallel.ranks import Ranks, ranks_of
from ..parallel.shards import bounds
from ..plans import DepthPlan

Crossing = Callable[[torch.Tensor], torch.Tensor]


class DepthLayers:
    """The layers of a model at each depth, ready for a pass.

    Parameters
    ----------
    adapter : Adapter
    plan : DepthPlan
    write_kv : bool
        Whether every skipped layer writes K and V from the passed-through state. Off, only the layers whose cache
        length transformers reads do.

    Attributes
    ----------
    turned : Turned or None
        How far the layers of the last pass turned the state, where the plan's schedule asks for it.
    """

    def __init__(self, adapter: Adapter, plan: DepthPlan, *, write_kv: bool = False) -> None:
        self.plan = plan
        self.turned = Turned() if "cosine" in plan.needs else None
        self._layers: list[Any] = list(adapter.layers._modules.values())
        writers = range(adapter.num_layers) if write_kv else adapter.length_layers
        self._stand_ins: list[Any] = [
            _Skipped(adapter, layer, write=i in writers) for i, layer in enumerate(self._layers)
        ]
        self._bridges = _split(prepared(plan.bridges, adapter), ranks_of(adapter.model))
        self._made: dict[int, list[Any]] = {}

    def __getitem__(self, depth: int) -> list[Any]:
        """What runs at a depth, one callable for each layer, bottom first."""
        if depth not in self._made:
            self._made[depth] = self._make(depth)
        return self._made[depth]

    @property
    def full(self) -> list[Any]:
        """What runs at full depth."""
        return self._layers if self.turned is None else self[self.plan.num_layers]

    def _make(self, depth: int) -> list[Any]:
        kept = self.plan.keep_sets[depth]
        running = [*self._stand_ins]
        for i in kept:
            layer = self._layers[i]
            running[i] = layer if self.turned is None else _Watched(layer, self.turned, first=i == kept[0])
        for at, bridge in self._bridges.get(depth, {}).items():
            last = at == len(running)
            inner = running[at - last]
            # A skipped layer writes its K and V from the state as it comes, so its bridge acts after it.
            running[at - last] = _Bridged(inner, bridge, after=last or isinstance(inner, _Skipped))
        return running


def _split(bridges: Bridges, ranks: Ranks | None) -> Mapping[int, Mapping[int, Crossing]]:
    if ranks is None:
        return bridges
    return {depth: {i: _SplitBridge(b, ranks) for i, b in row.items()} for depth, row in bridges.items()}


class _SplitBridge:
    """A bridge of ranks that share a model. Each computes some of its outputs, and a sum over the ranks joins them.

    A rank so reads a share of the weights and sends twice as many values as a token has, which is less unless very many
    tokens cross together: then each rank computes all of it.
    """

    def __init__(self, bridge: Bridge, ranks: Ranks) -> None:
        self.bridge, self.ranks, self.size = bridge, ranks, len(bridge.bias)
        self.part = slice(*bounds(self.size, ranks))

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        if 2 * hidden.numel() >= self.size**2:
            return self.bridge(hidden)
        moved = torch.zeros_like(hidden)
        weight, bias = self.bridge.weight[:, self.part], self.bridge.bias[self.part]
        moved[..., self.part] = torch.nn.functional.linear(hidden, weight.T, bias)
        self.ranks.reduce(moved)
        return hidden + moved


class _Skipped:
    """Stands in for a layer that passes its input on; with ``write`` it still leaves K and V in the cache."""

    def __init__(self, adapter: Adapter, layer: nn.Module, *, write: bool) -> None:
        self.adapter, self.layer, self.write = adapter, layer, write

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        cache = kwargs.get("past_key_values")
        if self.write and cache is not None:
            self.adapter.write_kv(self.layer, hidden_states, cache, kwargs.get("position_embeddings"))
        return hidden_states


class _Bridged:
    """A layer, or its stand-in, with a bridge before or after it."""

    def __init__(self, inner: Any, bridge: Crossing, *, after: bool) -> None:
        self.inner, self.bridge, self.after = inner, bridge, after

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.after:
            return self.bridge(self.inner(hidden_states, *args, **kwargs))
        hidden: torch.Tensor = self.inner(self.bridge(hidden_states), *args, **kwargs)
        return hidden


class Turned:
    """The cosine between the state before and after each layer of the last pass, at its last position."""

    def __init__(self) -> None:
        self.cosines: list[torch.Tensor] = []

    def mean(self) -> torch.Tensor:
        """Over the layers, ``[rows]`` in float32."""
        return torch.stack(self.cosines).mean(dim=0)


class _Watched:
    """A layer whose effect on the state is noted."""

    def __init__(self, layer: nn.Module, to: Turned, *, first: bool) -> None:
        self.layer, self.to, self.first = layer, to, first

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        after: torch.Tensor = self.layer(hidden_states, *args, **kwargs)
        if self.first:
            self.to.cosines.clear()
        before, last = hidden_states[:, -1].float(), after[:, -1].float()
        self.to.cosines.append(torch.cosine_similarity(before, last, dim=-1).to(self._device(last)))
        return after

    def _device(self, here: torch.Tensor) -> torch.device:
        return self.to.cosines[0].device if self.to.cosines else here.device
