"""Key and value buffers of one run on a CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

_BLOCK = 256


class NativeKV:
    """K and V of every layer, ``[batch, kv_heads, capacity, head_dim]``; they grow by half.

    Parameters
    ----------
    cache : transformers.Cache
        The same number of tokens in every layer, or none; they are taken over.
    layers, batch, heads, width : int
    dtype : torch.dtype
    room : int
        Tokens to make room for at once.
    """

    def __init__(
        self, cache: Any, *, layers: int, batch: int, heads: int, width: int, dtype: torch.dtype, room: int
    ) -> None:
        self.capacity, self.length = _blocks(room), 0
        shape = (batch, heads, self.capacity, width)
        self.keys = [torch.empty(shape, dtype=dtype) for _ in range(layers)]
        self.values = [torch.empty(shape, dtype=dtype) for _ in range(layers)]
        self.take(cache)

    def take(self, cache: Any) -> None:
        """Copy what a cache holds."""
        for i, layer in enumerate(getattr(cache, "layers", [])):
            length = int(layer.get_seq_length())
            if length:
                self.reserve(length)
                self.keys[i][:, :, :length] = layer.keys[:, :, :length]
                self.values[i][:, :, :length] = layer.values[:, :, :length]
                self.length = length
        self._point()

    def reserve(self, tokens: int) -> None:
        """Make room for this many tokens."""
        if tokens <= self.capacity:
            return
        room = _blocks(max(tokens, self.capacity * 3 // 2))
        for buffers in (self.keys, self.values):
            for i, held in enumerate(buffers):
                buffers[i] = held.new_empty(*held.shape[:2], room, held.shape[3])
                buffers[i][:, :, : self.capacity] = held
        self.capacity = room
        self._point()

    def _point(self) -> None:
        addresses = ctypes.c_void_p * len(self.keys)
        self.key_pointers = addresses(*(held.data_ptr() for held in self.keys))
        self.value_pointers = addresses(*(held.data_ptr() for held in self.values))


def _blocks(tokens: int) -> int:
    return -(-tokens // _BLOCK) * _BLOCK


def starts_of(attention_mask: Tensor) -> Tensor | None:
    """The first token of each row, int32 ``[batch]``; None if the mask has a hole after it."""
    starts = attention_mask.bool().int().argmax(dim=1)
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    whole = bool((attention_mask.bool() == (places >= starts[:, None])).all())
    return starts.int() if whole else None
