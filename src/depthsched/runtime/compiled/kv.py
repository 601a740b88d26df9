"""Static key and value buffers, kept from one run to the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .weights import Layout

CHUNK = 64
"""Contexts and buffers are multiples of this many tokens."""

_SMALLEST, _LARGEST_STEP = 128, 2048


def bucket(tokens: int) -> int:
    """The context that a step over ``tokens`` reads: 128 doubled until they fit."""
    return max(_SMALLEST, 1 << (tokens - 1).bit_length())


def room(tokens: int) -> int:
    """The buffers of a run of ``tokens``: a :func:`bucket`, and past 2048 the next multiple of 2048.

    Buffers that double for ever would waste half of the memory of a long run.
    """
    return min(bucket(tokens), -(-tokens // _LARGEST_STEP) * _LARGEST_STEP)


class StaticKV:
    """K and V of every layer, time first: ``[capacity, batch, kv_heads, head_dim]``.

    A window ``[:context]`` keeps its strides when the buffers grow, so neither a longer context nor a larger buffer
    is a new shape to a compiled function that takes ``context`` as dynamic.

    Parameters
    ----------
    layout : Layout
    batch : int
    tokens : int
        Tokens to make room for at once.
    """

    def __init__(self, layout: Layout, batch: int, tokens: int) -> None:
        spec = layout.spec
        shape = (room(tokens), batch, spec.kv_heads, spec.head_dim)
        # Zeros, not empty: a slot that is masked still enters a product, and zero times NaN is NaN.
        zeros = [torch.zeros(shape, dtype=layout.dtype, device=layout.device) for _ in range(2 * layout.num_layers)]
        self.keys, self.values = zeros[: layout.num_layers], zeros[layout.num_layers :]
        self.mask = torch.full(shape[:2], float("-inf"), device=layout.device)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Tokens the buffers have room for."""
        return len(self.mask)

    @property
    def context(self) -> int:
        """Tokens that the next step's attention reads: those held and its own, rounded up."""
        return min(bucket(self.length + 1), self.capacity)

    def fill(self, cache: Any, attention_mask: Tensor) -> None:
        """Begin a run: take over a prefill, and leave nothing of the run before.

        Parameters
        ----------
        cache : transformers.Cache
            Holds the prefill, the same number of tokens in every layer. Its tensors are released layer by layer.
        attention_mask : Tensor
            ``[batch, tokens]``, 0 for padding.
        """
        held = self.length = attention_mask.shape[1]
        for layer, keys, values in zip(cache.layers, self.keys, self.values, strict=True):
            for buffer, source in ((keys, layer.keys), (values, layer.values)):
                buffer[:held].copy_(source[:, :, :held].permute(2, 0, 1, 3))
                buffer[held:].zero_()  # a run that failed may have left NaN there
            layer.keys, layer.values = layer.keys[:, :, :0].clone(), layer.values[:, :, :0].clone()
        # Minus infinity keeps padding and slots not yet filled out of the softmax; a slot opens when it is written.
        self.mask.fill_(float("-inf"))
        self.mask[:held].masked_fill_(attention_mask.t().bool(), 0.0)

    def reserve(self) -> bool:
        """Make room for one more token; true if the buffers moved."""
        if self.length < self.capacity:
            return False
        larger = room(self.capacity + 1)
        for buffers in (self.keys, self.values):
            for i, held in enumerate(buffers):
                buffers[i] = _grown(held, larger, 0.0)
        self.mask = _grown(self.mask, larger, float("-inf"))
        return True


def _grown(held: Tensor, size: int, fill: float) -> Tensor:
    bigger = held.new_full((size, *held.shape[1:]), fill)
    bigger[: len(held)] = held
    return bigger
