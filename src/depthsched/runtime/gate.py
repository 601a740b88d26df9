"""The one way to change which layers a model runs, and the witness of every pass through them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import nn

from ..adapters import Adapter
from ..errors import AttachError

_install_lock = threading.Lock()


class Pass(NamedTuple):
    """One pass through the layers, as it reaches the first of them.

    Attributes
    ----------
    hidden : torch.Tensor
        ``[batch, tokens, hidden]``.
    options : mapping
        What transformers calls the layer with, the cache among it.
    """

    hidden: torch.Tensor
    options: Mapping[str, Any]

    @property
    def tokens(self) -> int:
        """Positions of each row that this pass computes."""
        return int(self.hidden.shape[1])

    @property
    def cache(self) -> Any:
        """The KV cache, or None."""
        return self.options.get("past_key_values")

    @property
    def decodes(self) -> bool:
        """Whether this looks like a decode step: one token on a cache that holds others, or a packed batch."""
        if self.cache is None:
            return self.options.get("cache") is not None  # continuous batching
        return self.tokens == 1 and int(self.cache.get_seq_length()) > 0


Choose = Callable[[Pass], Sequence[Any]]
"""From a pass to what runs in place of each layer, bottom first."""


class GatedLayers(nn.ModuleList):
    """The layer list of a model, whose iteration and slices yield what the gate decides at each pass.

    Names, ``state_dict`` keys and integer indexing are those of the list it replaces. The loops in transformers
    iterate or slice, and keep counting skipped indices.
    """

    def __init__(self, layers: nn.ModuleList, gate: LayerGate) -> None:
        super().__init__(layers)
        self.slots: list[Any] = [_Slot(gate, i, layer) for i, layer in enumerate(self._modules.values())]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.slots)

    def __getitem__(self, index: Any) -> Any:
        # A plain list for a slice: the default builds a new ModuleList at every forward.
        return self.slots[index] if isinstance(index, slice) else super().__getitem__(index)


class _Slot:
    """The place of one layer: runs what the gate chose for this pass."""

    def __init__(self, gate: LayerGate, index: int, layer: Any) -> None:
        self.gate, self.index, self.layer = gate, index, layer

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.index == 0:
            self.gate.begin(Pass(hidden_states, kwargs))
        return self.gate.running[self.index](hidden_states, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)  # some loops read layer.attention_type


class LayerGate:
    """Context manager that stands between a model and its layers, and takes itself out on exit.

    Parameters
    ----------
    adapter : Adapter
    choose : callable, optional
        Asked at the beginning of every pass. Left out, every pass must be announced: see :meth:`run`.

    Raises
    ------
    AttachError
        On entering: another plan already stands between this model and its layers.
    """

    def __init__(self, adapter: Adapter, choose: Choose | None = None) -> None:
        self.adapter = adapter
        self.full: list[Any] = list(adapter.layers._modules.values())
        self.running: Sequence[Any] = self.full
        self._choose = choose or self._announced
        self._next: Sequence[Any] | None = None
        self._before: nn.ModuleList | None = None

    def __enter__(self) -> Self:
        with _install_lock:
            layers = self.adapter.layers
            if isinstance(layers, GatedLayers):
                raise AttachError(
                    "this model already runs a plan (an open attach, or a generate in another thread); "
                    "leave that first, or load a second copy of the model"
                )
            self.full, self._before = list(layers._modules.values()), layers
            self.adapter.decoder._modules["layers"] = GatedLayers(layers, self)
        return self

    def __exit__(self, *exc: object) -> None:
        self.adapter.decoder._modules["layers"] = self._before
        self._next = None

    def begin(self, this: Pass) -> None:
        """Decide what runs in this pass."""
        self.running = self._choose(this)

    def run(self, layers: Sequence[Any], forward: Callable[[], Any]) -> Any:
        """What ``forward`` returns, called with these layers in one pass.

        Raises
        ------
        AttachError
            The model did not go through its layer list, so that nothing was skipped.
        """
        self._next = layers
        output = forward()
        if self._next is not None:
            raise AttachError(
                f"{type(self.adapter.model).__name__} did not pass through its layer list, so no plan can act on it; "
                "its forward was replaced or compiled"
            )
        return output

    def _announced(self, this: Pass) -> Sequence[Any]:
        layers, self._next = self._next, None
        if layers is None:
            raise unplanned("this model is in the middle of a run")
        return layers


def unplanned(why: str) -> AttachError:
    """The error of a pass that no plan chose a depth for; it names the way the pass came."""
    return AttachError(
        f"a pass through the layers that no plan chose a depth for, from {_caller()}: {why}; "
        "use model.generate inside attach, or ds.generate"
    )


# Between a layer and whoever asked for the pass.
_INNER = (
    "torch",
    "depthsched.runtime",
    "transformers.models",
    "transformers.utils",
    "transformers.modeling",
    "accelerate",
)


def _caller() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(_INNER):
            return f"{name}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "a thread of its own"
