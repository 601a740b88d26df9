"""Static key and value buffers of one run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BUCKET = 64
"""Attention reads the filled part of the cache rounded up to this many tokens."""

_BLOCK = 512


class StaticKV:
    """K and V of every layer, time first: ``[capacity, batch, kv_heads, head_dim]``.

    The buffers grow by blocks. A window ``[:context]`` keeps its strides through that, so neither a longer
    context nor a larger buffer is a new shape to a compiled function that takes ``context`` as dynamic.

    Parameters
    ----------
    cache : transformers.Cache
        Holds the prefill, the same number of tokens in every layer. Its tensors are released layer by layer.
    attention_mask : Tensor
        ``[batch, tokens]``, 0 for padding.
    capacity : int
        Tokens to make room for at once.
    """

    def __init__(self, cache: Any, attention_mask: Tensor, capacity: int = 0) -> None:
        self.length = attention_mask.shape[1]
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        room = _blocks(max(capacity, self.length + 1))
        for layer in cache.layers:
            self.keys.append(_time_first(layer.keys[:, :, : self.length], room))
            self.values.append(_time_first(layer.values[:, :, : self.length], room))
            layer.keys = layer.keys[:, :, :0].clone()
            layer.values = layer.values[:, :, :0].clone()
        # Minus infinity keeps padding and slots not yet filled out of the softmax; a slot opens when it is written.
        self.mask = torch.full((room, len(attention_mask)), float("-inf"), device=attention_mask.device)
        self.mask[: self.length] = self.mask[: self.length].masked_fill(attention_mask.t().bool(), 0.0)

    @property
    def capacity(self) -> int:
        """Tokens the buffers have room for."""
        return len(self.mask)

    @property
    def context(self) -> int:
        """Tokens that the next step's attention reads: those held and its own, rounded up."""
        return -(-(self.length + 1) // BUCKET) * BUCKET

    def reserve(self) -> bool:
        """Make room for one more token; true if the buffers moved."""
        if self.context <= self.capacity:
            return False
        room = _blocks(self.context)
        for buffers in (self.keys, self.values):
            for i, held in enumerate(buffers):
                buffers[i] = _grown(held, room, 0.0)
        self.mask = _grown(self.mask, room, float("-inf"))
        return True


def _blocks(tokens: int) -> int:
    return -(-tokens // _BLOCK) * _BLOCK


def _time_first(held: Tensor, room: int) -> Tensor:
    """``[batch, heads, tokens, width]`` of a transformers cache in a buffer of its own."""
    return _grown(held.permute(2, 0, 1, 3), room, 0.0)


def _grown(held: Tensor, room: int, fill: float) -> Tensor:
    # Zeros, not empty: a slot that is masked still enters a product, and zero times NaN is NaN.
    bigger = held.new_full((room, *held.shape[1:]), fill) if fill else held.new_zeros((room, *held.shape[1:]))
    bigger[: len(held)] = held
    return bigger
