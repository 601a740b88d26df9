"""A KV cache whose rows share one prefix, held and read once instead of once per row.

The few-shot examples of a task are the same tokens in front of every question. A cache that repeats their K and V
for each row of a batch reads them once per row at every step; here they are one tensor of batch 1, and the scores
of all rows against it are one product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.masking_utils import sdpa_mask

from ..adapters import Adapter

NAME = "depthsched_shared_prefix"
"""Under this name transformers finds the attention below, for the time of a run."""

KV = tuple[Tensor, Tensor]


class SharedStates(NamedTuple):
    """What :meth:`SharedLayer.update` hands through the model to :func:`shared_attention`: K or V in two parts.

    Attributes
    ----------
    prefix : Tensor
        ``[1, kv_heads, prefix, head_dim]``.
    own : Tensor
        ``[batch, kv_heads, tokens, head_dim]``.
    """

    prefix: Tensor
    own: Tensor

    def dense(self) -> Tensor:
        """Both parts as one tensor, the prefix repeated for each row."""
        return torch.cat([self.prefix.expand(len(self.own), -1, -1, -1), self.own], dim=-2)


class SharedLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer: the shared prefix, and room for the tokens of each row.

    Parameters
    ----------
    prefix : tuple of Tensor
        K and V of the prefix, ``[1, kv_heads, prefix, head_dim]``.
    batch, room : int
        Rows, and the tokens that each may add.
    """

    is_sliding = False

    def __init__(self, prefix: KV, batch: int, room: int) -> None:
        super().__init__()
        self.prefix = prefix
        _, heads, self.offset, width = prefix[0].shape
        self.keys = prefix[0].new_zeros(batch, heads, room, width)
        self.values = torch.zeros_like(self.keys)
        self.length = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the buffers are there from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Append to the rows' own part."""
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return (
            SharedStates(self.prefix[0], self.keys[:, :, :end]),
            SharedStates(self.prefix[1], self.values[:, :, :end]),
        )

    def get_seq_length(self) -> int:
        return int(self.offset + self.length)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the part that needs a mask: every row sees the whole prefix."""
        return self.length + query_length, int(self.offset)

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length

    def batch_select_indices(self, indices: Tensor) -> None:
        self.keys, self.values = self.keys[indices], self.values[indices]


class SharedPrefixCache(Cache):  # type: ignore[misc]
    """A transformers cache over a shared prefix, for models inside :func:`shared_prefix`.

    Parameters
    ----------
    prefix : sequence of (K, V)
        Of every layer, ``[1, kv_heads, prefix, head_dim]``.
    batch, room : int
        Rows, and the tokens that each may add.
    """

    def __init__(self, prefix: Sequence[KV], batch: int, room: int) -> None:
        super().__init__(layers=[SharedLayer(kv, batch, room) for kv in prefix])

    def own(self) -> list[KV]:
        """The rows' own K and V of every layer."""
        return [(layer.keys[:, :, : layer.length], layer.values[:, :, : layer.length]) for layer in self.layers]

    def put(self, own: Sequence[KV]) -> None:
        """Append K and V of every layer."""
        for layer, (keys, values) in zip(self.layers, own, strict=True):
            layer.update(keys, values)


def can_share(adapter: Adapter) -> bool:
    """Whether every layer attends to everything before it, through transformers' interchangeable attention."""
    config = adapter.config
    full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    # The attention below knows no cap on its scores and no sinks.
    plain = getattr(config, "attn_logit_softcapping", None) is None and not any(
        hasattr(layer.self_attn, "sinks") for layer in adapter.layers
    )
    return full and plain and sliding is None and config._attn_implementation in ("sdpa", "eager")


@contextmanager
def shared_prefix(model: Any) -> Iterator[None]:
    """Let ``model`` read a :class:`SharedPrefixCache`; it has its own attention back afterwards."""
    AttentionInterface.register(NAME, shared_attention)
    AttentionMaskInterface.register(NAME, _mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _mask(*args: Any, **kwargs: Any) -> Any:
    # Always a tensor: "no mask" would have to be told apart from "causal" by whoever reads it.
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def shared_attention(
    module: Any,
    query: Tensor,
    key: SharedStates,
    value: SharedStates,
    attention_mask: Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over a shared prefix and each row's own tokens.

    Parameters
    ----------
    query : Tensor
        ``[batch, heads, tokens, head_dim]``.
    key, value : SharedStates
    attention_mask : Tensor
        ``[batch, 1, tokens, own]``, bool, true where a token of the own part is seen.

    Returns
    -------
    tuple
        ``[batch, tokens, heads, head_dim]``, and None for the weights.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.shape[2] > 1:
        seen = attention_mask.new_ones(*attention_mask.shape[:3], key.prefix.shape[2])
        mask = torch.cat([seen, attention_mask], dim=-1)
        output = F.scaled_dot_product_attention(
            query, key.dense(), value.dense(), attn_mask=mask, scale=scale, enable_gqa=True
        )
        return output.transpose(1, 2), None
    return _one_token(query, key, value, attention_mask, scale).transpose(1, 2), None


def _one_token(query: Tensor, key: SharedStates, value: SharedStates, mask: Tensor, scale: float) -> Tensor:
    """One query a row, ``[batch, heads, 1, head_dim]``: the prefix is read once for all rows."""
    batch, heads, _, width = query.shape
    kv_heads, length = key.prefix.shape[1:3]
    rows = query.view(batch, kv_heads, heads // kv_heads, width)
    together = rows.transpose(0, 1).reshape(kv_heads, -1, width)  # queries of all rows that read one KV head
    prefix = (together @ key.prefix[0].transpose(1, 2)).view(kv_heads, batch, -1, length).transpose(0, 1)
    own = (rows @ key.own.transpose(2, 3)).float().masked_fill(~mask, float("-inf"))
    weights = torch.softmax(torch.cat([prefix.float(), own], dim=-1) * scale, dim=-1).to(query.dtype)
    seen = weights[..., :length].transpose(0, 1).reshape(kv_heads, -1, length)
    output = (seen @ value.prefix[0]).view(kv_heads, batch, -1, width).transpose(0, 1)
    output = output + weights[..., length:] @ value.own
    return output.reshape(batch, heads, 1, width)
