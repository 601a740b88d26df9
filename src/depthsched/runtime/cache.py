"""What a KV cache must hold before a plan may read it."""

from __future__ import annotations

from typing import Any

from ..errors import CacheError


def cache_lengths(cache: Any) -> list[int]:
    """Tokens held by each layer of a transformers cache, layer 0 first."""
    layers = getattr(cache, "layers", None)
    if layers is None:
        return []
    return [int(layer.get_seq_length()) for layer in layers]


def refuse_holes(cache: Any) -> None:
    """Raise unless every layer of the cache holds the same number of tokens.

    A run of a nested plan leaves no K and V for the layers it skipped; a second turn on the same cache
    would read positions that were never computed.

    Raises
    ------
    CacheError
    """
    lengths = cache_lengths(cache)
    if lengths and min(lengths) != max(lengths):
        layer = lengths.index(min(lengths))
        raise CacheError(
            f"the KV cache has holes: layer {layer} holds {min(lengths)} tokens and others {max(lengths)}; "
            "start from a fresh cache, or run the earlier turn with skipped_kv='write'"
        )
