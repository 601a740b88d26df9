"""Run a subset of a model's layers by swapping what its layer list yields."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from ..adapters import Adapter
from ..bridge import Bridge
from ..errors import AttachError

_install_lock = threading.Lock()


class SwitchedLayers(nn.ModuleList):
    """The layer list of a model whose iteration yields stand-ins for skipped layers.

    Names, ``state_dict`` keys and integer indexing are those of the list it replaces. The loops in
    transformers iterate or slice, and keep counting skipped indices.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__(layers)
        self.active: list[Any] = list(self._modules.values())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.active)

    def __getitem__(self, index: Any) -> Any:
        # A plain list for a slice: the default builds a new ModuleList at every forward.
        return self.active[index] if isinstance(index, slice) else super().__getitem__(index)


class _Skipped:
    """Stands in for a layer that passes its input on; with ``write`` it still leaves K and V in the cache."""

    def __init__(self, adapter: Adapter, layer: nn.Module, *, write: bool) -> None:
        self.adapter, self.layer, self.write = adapter, layer, write

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        cache = kwargs.get("past_key_values")
        if self.write and cache is not None:
            self.adapter.write_kv(self.layer, hidden_states, cache, kwargs.get("position_embeddings"))
        return hidden_states

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)  # some loops read layer.attention_type


class _Bridged:
    """A layer, or its stand-in, with a bridge in front of it or behind it."""

    def __init__(self, inner: Any, bridge: Bridge, *, after: bool) -> None:
        self.inner, self.bridge, self.after = inner, bridge, after

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.after:
            return self.bridge(self.inner(hidden_states, *args, **kwargs))
        hidden: torch.Tensor = self.inner(self.bridge(hidden_states), *args, **kwargs)
        return hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class LayerSwitch:
    """Context manager that lets a model run any subset of its layers, and restores it on exit.

    Parameters
    ----------
    adapter : Adapter
    write_kv : bool
        Whether every skipped layer writes K and V from the passed-through state. Off, only the layers
        whose cache length transformers reads do.

    Raises
    ------
    AttachError
        The model is switched already.
    """

    def __init__(self, adapter: Adapter, *, write_kv: bool = False) -> None:
        self.adapter = adapter
        writers = range(adapter.num_layers) if write_kv else adapter.length_layers
        self._layers = list(adapter.layers)
        self._stand_ins = [_Skipped(adapter, layer, write=i in writers) for i, layer in enumerate(self._layers)]
        self._before: nn.ModuleList | None = None
        self._switched: SwitchedLayers | None = None

    def __enter__(self) -> Self:
        with _install_lock:
            layers = self.adapter.layers
            if isinstance(layers, SwitchedLayers):
                raise AttachError(
                    "this model already runs a plan (an open attach, or a generate in another thread); "
                    "leave that first, or load a second copy of the model"
                )
            self._before, self._switched = layers, SwitchedLayers(layers)
            self.adapter.decoder._modules["layers"] = self._switched
        return self

    def __exit__(self, *exc: object) -> None:
        self.adapter.decoder._modules["layers"] = self._before
        self._switched = None

    def select(self, keep: Sequence[int] | None, bridges: Mapping[int, Bridge] | None = None) -> None:
        """Run only these layers from now on; ``None`` runs all.

        ``bridges`` act on the state that enters their layer; the number of layers means: behind the last.
        """
        if self._switched is None:
            raise AttachError("this plan is no longer attached to its model")
        kept = None if keep is None else set(keep)
        self._switched.active = [
            layer if kept is None or i in kept else stand_in
            for i, (layer, stand_in) in enumerate(zip(self._layers, self._stand_ins, strict=True))
        ]
        for at, bridge in (bridges or {}).items():
            last = at == len(self._layers)
            inner = self._switched.active[at - last]
            # A skipped layer writes its K and V from the state as it comes, so its bridge acts behind it.
            after = last or isinstance(inner, _Skipped)
            self._switched.active[at - last] = _Bridged(inner, bridge, after=after)
