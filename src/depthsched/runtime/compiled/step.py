"""One decoded token of the compiled backend: from a token id to logits, through the layers that its depth keeps.

:class:`CompiledDecoder` holds a run after its prefill; the functions below it are what its kernels are compiled from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from .kernels import Kernels
    from .kv import StaticKV
    from .weights import FusedModel, LayerSpec


class CompiledDecoder:
    """A run after its prefill; ``padding`` are the padded slots in front of each row, ``[batch]``."""

    def __init__(
        self, model: FusedModel, kernels: Kernels, kv: StaticKV, padding: Tensor, keep_sets: Mapping[int, Any],
        bridges: Mapping[int, Mapping[int, tuple[Tensor, Tensor]]],
    ) -> None:  # fmt: skip
        self.model, self.kernels, self.kv, self.padding = model, kernels, kv, padding
        self.keep_sets, self.bridges = keep_sets, bridges
        self.tokens = torch.zeros_like(padding)
        self.slot = torch.zeros(1, dtype=torch.int64, device=padding.device)
        self.context = 0
        self._look_at(kv.context)

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        """Logits ``[batch, vocabulary]`` after one more token per row, ``[batch]``."""
        self.place(tokens)
        return self.forward(depth)

    def place(self, tokens: Tensor) -> None:
        """Put the token and its slot where the step reads them."""
        if self.kv.context != self.context:
            self._look_at(self.kv.context)
        self.tokens.copy_(tokens)
        self.slot.fill_(self.kv.length)
        self.kv.length += 1

    def _look_at(self, context: int) -> None:
        """What each layer is called with, valid until the context outgrows its bucket."""
        moved = self.kv.reserve()
        if moved or not self.context:
            places = torch.arange(self.kv.capacity, device=self.slot.device)[None]
            self.cos, self.sin = (part[0] for part in self.model.rotary(self.model.embedding, places))
        self.context, self.mask = context, self.kv.mask[:context]
        self.windows = [
            (keys[:context], values[:context], *weights)
            for keys, values, weights in zip(self.kv.keys, self.kv.values, self.model.layers, strict=True)
        ]

    def forward(self, depth: int) -> Tensor:
        """One step, from the static inputs to logits; tensors only, so that it can be captured."""
        slot, kernels = self.slot, self.kernels
        position = slot - self.padding
        cos, sin = self.cos[position], self.sin[position]
        self.mask.index_fill_(0, slot, 0.0)
        x = F.embedding(self.tokens, self.model.embedding)
        kept, bridges = set(self.keep_sets[depth]), self.bridges.get(depth, {})
        for i, window in enumerate(self.windows):
            if i not in kept and kernels.write_only is not None:
                kernels.write_only(x, cos, sin, slot, *window)  # from the state as it comes, before its bridge
            if i in bridges:
                x = kernels.bridge(x, *bridges[i])[0]
            if i in kept:
                x = kernels.layer(x, cos, sin, slot, self.mask, *window)[0]
        if len(self.windows) in bridges:
            x = kernels.bridge(x, *bridges[len(self.windows)])[0]
        logits: Tensor = kernels.head(x, *self.model.head)[0]
        return logits


def layer(
    spec: LayerSpec, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, mask: Tensor, keys: Tensor, values: Tensor,
    *weights: Tensor,
) -> Tensor:  # fmt: skip
    """One decoder layer on states ``x`` ``[batch, hidden]``; writes K and V at ``slot``, int64 ``[1]``."""
    w = dict(zip(spec.names, weights, strict=True))
    width = spec.heads * spec.head_dim
    qkv = linear(rms_norm(x, w["norm1"], spec.eps), w["qkv"], w.get("qkv_bias"))
    query = qkv[:, :width].view(-1, spec.heads, spec.head_dim)
    if "q_norm" in w:
        query = rms_norm(query, w["q_norm"], spec.eps)
    write_kv(spec, w, qkv[:, width:], cos, sin, slot, keys, values)
    attention_output = attend(rope(query, cos, sin), keys, values, mask, spec.scale)
    x = x + linear(attention_output, w["out"], w.get("out_bias"))
    gate, up = linear(rms_norm(x, w["norm2"], spec.eps), w["gate_up"], w.get("gate_up_bias")).chunk(2, dim=-1)
    return x + linear(F.silu(gate) * up, w["down"], w.get("down_bias"))


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of one query per row, ``[batch, heads, head_dim]``, over the filled part of the cache.

    ``keys`` and ``values`` are ``[context, batch, kv_heads, head_dim]``: time first, so that growing the buffer changes
    no stride. ``mask`` is ``[context, batch]`` float32, 0 where a position may be read and minus infinity elsewhere.
    """
    batch, heads, width = query.shape
    kv_heads = keys.shape[2]
    groups = query.view(1, batch, kv_heads, heads // kv_heads, width)
    scores = (groups.float() * keys[:, :, :, None].float()).sum(-1) * scale + mask[:, :, None, None]
    weights = torch.softmax(scores, dim=0)
    output = (weights[..., None] * values[:, :, :, None].float()).sum(0)
    return output.to(query.dtype).view(batch, heads * width)


def write_kv(
    spec: LayerSpec, w: dict[str, Tensor], kv: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, keys: Tensor,
    values: Tensor,
) -> None:  # fmt: skip
    """Put K (with RoPE) and V into the cache, from their joint projection ``[batch, 2 * kv_heads * head_dim]``."""
    key, value = kv.view(kv.shape[0], 2, spec.kv_heads, spec.head_dim).unbind(1)
    if "k_norm" in w:
        key = rms_norm(key, w["k_norm"], spec.eps)
    keys.index_copy_(0, slot, rope(key, cos, sin)[None])
    values.index_copy_(0, slot, value[None])


def write_only(
    spec: LayerSpec, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, keys: Tensor, values: Tensor, *weights: Tensor
) -> Tensor:
    """What a skipped layer leaves in the cache: K and V of the state that passes through; returns ``x``."""
    w = dict(zip(spec.names, weights, strict=True))
    width = spec.heads * spec.head_dim
    bias = w["qkv_bias"][width:] if "qkv_bias" in w else None
    kv = linear(rms_norm(x, w["norm1"], spec.eps), w["qkv"][width:], bias)
    write_kv(spec, w, kv, cos, sin, slot, keys, values)
    return x.clone()


def bridge(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A bridge over a skipped run: ``x + x @ weight.T + bias``, ``weight`` ``[hidden, hidden]`` with outputs first."""
    return x + linear(x, weight, bias)


def head(eps: float, x: Tensor, norm: Tensor, *weight_and_bias: Tensor) -> Tensor:
    """Final norm and LM head: logits ``[batch, vocabulary]``."""
    return linear(rms_norm(x, norm, eps), *weight_and_bias)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalised in float32 and rounded before the weight is applied, as transformers does."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions for ``[batch, heads, head_dim]``; ``cos`` and ``sin`` are ``[batch, head_dim]``."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for ``[rows, inputs]``.

    One row is bound by reading the weight, and a compiled multiply-and-reduce reads it two to three times as fast as
    the library's product on a CPU. So does it for a few rows in float32, if there are outputs enough to spread over
    the threads; in bfloat16 the library is faster from two rows on.
    """
    rows, outputs = x.shape[0], weight.shape[0]
    few = x.dtype == torch.float32 and x.device.type == "cpu" and rows <= 16 and outputs >= 256 * rows
    if rows > 1 and not few:
        return F.linear(x, weight, bias)
    product = (x.float()[None] * weight.float()[:, None]).sum(-1).t()
    if bias is not None:
        product = product + bias.float()
    return product.to(x.dtype)
