"""Static key and value buffers, kept from one run to the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .weights import Layout

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

    A window ``[:context]`` keeps its strides when the buffers grow; compiled functions take the length as dynamic.

    Parameters
    ----------
    layout : Layout
    batch : int
    tokens : int
        Tokens to make room for at once.

    Attributes
    ----------
    hidden : Tensor
        ``[batch, capacity]``: minus infinity where the prompt is padded, 0 elsewhere.
    length : int
        Tokens that the longest row holds, padding included.
    """

    def __init__(self, layout: Layout, batch: int, tokens: int) -> None:
        spec = layout.spec
        shape = (room(tokens), batch, spec.kv_heads, spec.head_dim)
        # Zeros, not empty: a slot that is masked still enters a product, and zero times NaN is NaN.
        zeros = [torch.zeros(shape, dtype=layout.dtype, device=layout.device) for _ in range(2 * layout.num_layers)]
        self.keys, self.values = zeros[: layout.num_layers], zeros[layout.num_layers :]
        self.hidden = torch.zeros(batch, shape[0], dtype=layout.dtype, device=layout.device)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Tokens the buffers have room for."""
        return self.hidden.shape[1]

    def context(self, tokens: int) -> int:
        """What attention reads so that a row of this many tokens is whole: rounded up, so that few lengths occur."""
        return min(bucket(tokens), self.capacity)

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
        self.hidden.zero_()
        self.hidden[:, :held].masked_fill_(~attention_mask.bool(), float("-inf"))

    def reserve(self, tokens: int) -> bool:
        """Make room for rows of this many tokens; true if the buffers moved."""
        if tokens <= self.capacity:
            return False
        larger = room(tokens)
        for buffers in (self.keys, self.values):
            for i, held in enumerate(buffers):
                buffers[i] = held.new_zeros(larger, *held.shape[1:])
                buffers[i][: len(held)] = held
        self.hidden = F.pad(self.hidden, (0, larger - self.capacity))
        return True
