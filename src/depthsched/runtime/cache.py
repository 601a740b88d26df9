"""What a KV cache must hold before a plan may read it, and what a run leaves of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from ..errors import CacheError


class RunCache(DynamicCache):  # type: ignore[misc]
    """K and V that a run leaves: of every position that full depth computed, from the first one on.

    It is a transformers cache, for ``past_key_values``. The next turn computes what comes after it, the rest of this
    run's tokens included, in its prefill. :func:`depthsched.generate` works on a copy, so that one cache can begin
    several turns; transformers itself appends to it.

    Parameters
    ----------
    states : sequence of (Tensor, Tensor)
        K and V of each layer, ``[batch, kv_heads, tokens, head_dim]``.
    ids, mask : Tensor
        The tokens they belong to and which of them are padding, ``[batch, tokens]``, int64.
    """

    scratch = True  # nobody reads it while a run goes on, so any backend may take it over

    def __init__(self, states: Sequence[tuple[Tensor, Tensor]], ids: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.ids, self.mask = ids, mask
        for i, (keys, values) in enumerate(states):
            self.update(keys[:, :, :0], values[:, :, :0], i)
            self.layers[i].keys, self.layers[i].values = keys, values  # views: nothing is held twice

    def fresh(self, copies: int = 1) -> RunCache:
        """The same tensors in another cache, each row as often as asked. None shows what another gets."""
        new = RunCache([(layer.keys, layer.values) for layer in self.layers], self.ids, self.mask)
        if copies > 1:
            new.batch_repeat_interleave(copies)
        return new

    def beginning(self, ids: Tensor) -> RunCache | None:
        """What it holds of the text ``ids [batch, tokens]``, up to where that differs; None where nothing."""
        count = min(self.ids.shape[1], ids.shape[1] - 1)
        differs = (self.ids[:, :count] != ids[:, :count].to(self.ids.device)).any(dim=0).nonzero()
        length = int(differs[0]) if len(differs) else count
        states = [(layer.keys[:, :, :length], layer.values[:, :, :length]) for layer in self.layers]
        return RunCache(states, self.ids[:, :length], self.mask[:, :length]) if length else None


def run_cache(decoder: Any, whole: int, sequences: Tensor, mask: Tensor) -> RunCache | None:
    """What the first ``whole`` slots of a run left; None where its decoder or its cache does not keep them.

    ``sequences [batch, tokens]`` is the text of the run, ``mask`` that of its prompt.
    """
    whole = min(whole, sequences.shape[1] - 1)  # steps past the end were thrown away
    states = decoder.held(whole) if hasattr(decoder, "held") else None
    if states is None or mask.shape[1] > sequences.shape[1]:
        return None
    more = mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])
    return RunCache(states, sequences[:, :whole].clone(), torch.cat([mask, more], dim=-1)[:, :whole])


def cache_lengths(cache: Any) -> list[int]:
    """Tokens held by each layer of a transformers cache, layer 0 first."""
    layers = getattr(cache, "layers", None)
    if layers is None:
        return []
    return [int(layer.get_seq_length()) for layer in layers]


def can_cut(cache: Any) -> bool:
    """Whether tokens can be taken off the end of a cache: one of plain growing tensors, without a window."""
    plain = isinstance(cache, DynamicCache) and not getattr(cache, "offloading", False)
    return plain and all(type(layer) is DynamicLayer for layer in cache.layers)


def cut(cache: Any, length: int) -> None:
    """Keep the first ``length`` tokens of every layer that holds more."""
    for layer in cache.layers:
        if layer.get_seq_length() > length:
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]


def mend(cache: Any, ids: Tensor | None, mask: Tensor | None = None) -> None:
    """Make a cache ready to begin a turn: without holes, and of the text that follows.

    A run under a plan leaves no K and V for the layers it skipped, or what full depth would not have written. From the
    first such position on everything is taken off; it is computed again, at full depth, with the tokens that are new.

    Parameters
    ----------
    cache : transformers.Cache
        Cut in place.
    ids, mask : Tensor, optional
        The whole text of the turn, ``[batch, tokens]``, where it is known.

    Raises
    ------
    CacheError
        It has holes and is of a kind that cannot be cut, or it is another text's.
    """
    lengths = cache_lengths(cache)
    if not lengths or not max(lengths):
        return
    if isinstance(cache, RunCache) and ids is not None:
        _refuse_another(cache, ids, mask)
    if min(lengths) != max(lengths):
        if not can_cut(cache):
            refuse_holes(cache)
        cut(cache, min(lengths))
    if ids is not None and ids.shape[1] <= min(lengths):
        raise CacheError(
            f"the cache holds {min(lengths)} tokens and the text has {ids.shape[1]}; "
            "give the whole text, the tokens of the earlier turn first"
        )


def _refuse_another(cache: RunCache, ids: Tensor, mask: Tensor | None) -> None:
    held = cache.ids.to(ids.device)
    if len(held) != len(ids):
        raise CacheError(f"the cache is of a batch of {len(held)} rows and the text has {len(ids)}")
    count = min(held.shape[1], ids.shape[1])
    differs = (held[:, :count] != ids[:, :count]).any(dim=0).nonzero()
    if len(differs):
        at = int(differs[0])
        raise CacheError(
            f"the cache is of another text: it differs at token {at}; give the tokens of the earlier turn first, "
            "run.sequences, and the new ones after them"
        )
    if mask is not None and bool((_padding(cache.mask.to(mask.device)) != _padding(mask)).any()):
        raise CacheError("the cache is of a batch padded otherwise; keep the padding of the earlier turn")


def _padding(mask: Tensor) -> Tensor:
    """Tokens of padding before each row, ``[batch]``."""
    return mask.bool().int().argmax(dim=1)


def refuse_holes(cache: Any) -> None:
    """Raise unless every layer of the cache holds the same number of tokens.

    Raises
    ------
    CacheError
    """
    lengths = cache_lengths(cache)
    if lengths and min(lengths) != max(lengths):
        layer = lengths.index(min(lengths))
        raise CacheError(
            f"the KV cache has holes: layer {layer} holds {min(lengths)} tokens and others {max(lengths)}, and a "
            f"{type(cache).__name__} with such layers cannot be cut to where they begin; "
            "start from a fresh cache, or run the earlier turn with skipped_kv='write'"
        )
