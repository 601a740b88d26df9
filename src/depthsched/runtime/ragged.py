"""A KV cache whose rows hold different numbers of tokens: room for each, and a mask that says what it sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from ..adapters import Adapter
from ..errors import PlanError

_BLOCK = 256


class RaggedLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer: a buffer ``[batch, kv_heads, room, head_dim]``; a token goes to the slot that the cache names."""

    is_sliding = False

    def __init__(self, cache: RaggedCache, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.cache, self.keys, self.values = cache, keys, values
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the buffers are there from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write at :attr:`RaggedCache.slots` what lies there no more, and give all that may be seen."""
        slots, end = self.cache.slots, self.cache.end
        rows = torch.arange(len(slots), device=slots.device)[:, None]
        self.keys[rows, :, slots] = key_states.transpose(1, 2)
        self.values[rows, :, slots] = value_states.transpose(1, 2)
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return int(self.cache.end)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return int(self.cache.end), 0

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length

    def batch_select_indices(self, indices: Tensor) -> None:
        self.keys, self.values = self.keys[indices], self.values[indices]

    def grow(self, room: int) -> None:
        """Make room for this many tokens a row."""
        for name in ("keys", "values"):
            held = getattr(self, name)
            more = held.new_zeros(*held.shape[:2], room, held.shape[3])  # zeros: what no mask shows must be finite
            more[:, :, : held.shape[2]] = held
            setattr(self, name, more)


class RaggedCache(Cache):  # type: ignore[misc]
    """A transformers cache in which every row writes where it is.

    Parameters
    ----------
    held : transformers.Cache
        The prompt, the same number of tokens in every layer. Its tensors become views of the buffers here, one layer
        after the other, so that nothing is held twice.
    starts : Tensor
        First token of each row, ``[batch]``, int64.
    room : int
        Tokens to make room for.
    """

    def __init__(self, held: Any, starts: Tensor, room: int) -> None:
        self.length = int(held.layers[0].get_seq_length())
        self.starts, self.room, self.end = starts, max(room, self.length), self.length
        self.slots, self.held = starts[:, None], held.layers
        layers = []
        for layer in held.layers:
            layers.append(RaggedLayer(self, layer.keys, layer.values))
            self._grow(layers[-1], layer)
        super().__init__(layers=layers)

    def _grow(self, layer: RaggedLayer, held: Any) -> None:
        layer.grow(self.room)
        _lend(layer, held, self.length)

    def settle(self, tokens: int) -> None:
        """Leave the first tokens of each row in the cache that this one was made from."""
        for layer, held in zip(self.layers, self.held, strict=True):
            _lend(layer, held, tokens)

    def place(self, at: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Say where the next pass writes; the mask and the positions that belong to it.

        Parameters
        ----------
        at : Tensor
            Slot of the first token of each row, ``[batch]``.
        count : int
            Tokens of each row.

        Returns
        -------
        tuple of Tensor
            What each token sees, bool ``[batch, 1, count, end]``, and its position in its row, ``[batch, count]``.
        """
        self.slots = at[:, None] + torch.arange(count, device=at.device)
        self.end = int(self.slots.max()) + 1
        if self.end > self.room:
            self.room = -(-max(self.end, self.room * 3 // 2) // _BLOCK) * _BLOCK
            for layer, held in zip(self.layers, self.held, strict=True):
                self._grow(layer, held)
        places = torch.arange(self.end, device=at.device)
        seen = (places >= self.starts[:, None, None]) & (places <= self.slots[:, :, None])
        return seen[:, None], self.slots - self.starts[:, None]

    def select(self, rows: Tensor) -> None:
        """Go on with only these rows, of buffers of their own."""
        self.batch_select_indices(rows)
        self.starts = self.starts[rows]
        self.settle(self.length)


def _lend(layer: RaggedLayer, held: Any, tokens: int) -> None:
    """Make the tensors of a cache's layer views of the first tokens here: nothing is held twice."""
    held.keys, held.values = layer.keys[:, :, :tokens], layer.values[:, :, :tokens]
    if hasattr(held, "cumulative_length"):  # of a sliding window
        held.cumulative_length = tokens


def refuse_cache(cache: Any, implementation: Any, rows: int) -> None:
    """Raise where a cache of the caller's would not hold the text after a lossless run.

    Raises
    ------
    PlanError
    """
    if implementation not in (None, "dynamic"):
        raise PlanError(f"cache_implementation={implementation!r}: a lossless run fills a DynamicCache; leave it out")
    if cache is None or getattr(cache, "scratch", False):
        return
    kinds = {type(layer) for layer in getattr(cache, "layers", [])}
    if not isinstance(cache, DynamicCache) or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        raise PlanError(f"past_key_values is a {type(cache).__name__}; a lossless run fills a DynamicCache")
    if getattr(cache, "offloading", False):
        raise PlanError("past_key_values offloads its layers, which a lossless run does not; give a plain DynamicCache")
    if rows > 1:
        raise PlanError(
            f"past_key_values of {rows} rows: a lossless run gives each row its own number of tokens, and a cache has "
            "one; give one row, or leave it out"
        )


def why_not_ragged(adapter: Adapter, max_tokens: int) -> str | None:
    """What keeps a model from reading a :class:`RaggedCache`; None where nothing does."""
    config = adapter.config
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"attention {config._attn_implementation!r} takes no mask of its own for each token; use sdpa"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kinds - {"full_attention", "sliding_attention"}:
        return f"layers of type {', '.join(sorted(kinds))} keep another state than K and V"
    if (
        window is not None
        and max_tokens > window
        and (kinds != {"full_attention"} or "layer_types" not in vars(config))
    ):
        return f"the run of {max_tokens} tokens is longer than the sliding window of {window}"
    return None


def refuse_ragged(adapter: Adapter, max_tokens: int) -> None:
    """Raise where a model cannot read a :class:`RaggedCache`.

    Raises
    ------
    PlanError
    """
    reason = why_not_ragged(adapter, max_tokens)
    if reason:
        raise PlanError(f"lossless decoding cannot run this model: {reason}")
