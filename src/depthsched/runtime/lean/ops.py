"""One decoder layer for one token per row, written so that a compiler fuses it into few kernels.

Plain functions of tensors: nothing here knows a plan, a model object or a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Weights: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class LayerSpec:
    """What two layers must share to run through one compiled function.

    Attributes
    ----------
    heads, kv_heads, head_dim : int
    eps : float
        Of every RMSNorm.
    scale : float
        Attention scores are multiplied by this.
    names : tuple of str
        The weights of a layer, in the order in which they are passed.
    """

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    scale: float
    names: tuple[str, ...]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalised in float32 and rounded before the weight is applied, as transformers does."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for ``[rows, inputs]``.

    One row is bound by reading the weight, and a compiled multiply-and-reduce reads it two to three times as
    fast as the library's matrix product on a CPU. So does it for a few rows in float32, if there are outputs
    enough to spread over the threads; in bfloat16 the library is faster from two rows on.
    """
    rows, outputs = x.shape[0], weight.shape[0]
    few = x.dtype == torch.float32 and x.device.type == "cpu" and rows <= 16 and outputs >= 256 * rows
    if rows > 1 and not few:
        return F.linear(x, weight, bias)
    product = (x.float()[None] * weight.float()[:, None]).sum(-1).t()
    if bias is not None:
        product = product + bias.float()
    return product.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions for ``[batch, heads, head_dim]``; ``cos`` and ``sin`` are ``[batch, head_dim]``."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Attention of one query per row over the filled part of the cache.

    Parameters
    ----------
    query : Tensor
        ``[batch, heads, head_dim]``.
    keys, values : Tensor
        ``[context, batch, kv_heads, head_dim]``: time first, so that growing the buffer changes no stride.
    bias : Tensor
        ``[context, batch]`` float32, 0 where a position may be read and minus infinity elsewhere.
    """
    batch, heads, width = query.shape
    kv_heads = keys.shape[2]
    groups = query.view(1, batch, kv_heads, heads // kv_heads, width)
    scores = (groups.float() * keys[:, :, :, None].float()).sum(-1) * scale + bias[:, :, None, None]
    weights = torch.softmax(scores, dim=0)
    mixed = (weights[..., None] * values[:, :, :, None].float()).sum(0)
    return mixed.to(query.dtype).view(batch, heads * width)


def keys_and_values(spec: LayerSpec, w: Weights, kv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotated keys and values ``[batch, kv_heads, head_dim]`` from their joint projection."""
    key, value = kv.view(kv.shape[0], 2, spec.kv_heads, spec.head_dim).unbind(1)
    if "k_norm" in w:
        key = rms_norm(key, w["k_norm"], spec.eps)
    return rotate(key, cos, sin), value


def layer(
    spec: LayerSpec, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, bias: Tensor, keys: Tensor, values: Tensor,
    *weights: Tensor,
) -> Tensor:  # fmt: skip
    """One decoder layer; writes K and V at ``slot``.

    Parameters
    ----------
    spec : LayerSpec
    x : Tensor
        ``[batch, hidden]``.
    slot : Tensor
        int64 ``[1]``: where in the cache this token goes.
    """
    w = dict(zip(spec.names, weights, strict=True))
    width = spec.heads * spec.head_dim
    qkv = linear(rms_norm(x, w["norm1"], spec.eps), w["qkv"], w.get("qkv_bias"))
    query = qkv[:, :width].view(-1, spec.heads, spec.head_dim)
    if "q_norm" in w:
        query = rms_norm(query, w["q_norm"], spec.eps)
    key, value = keys_and_values(spec, w, qkv[:, width:], cos, sin)
    keys.index_copy_(0, slot, key[None])
    values.index_copy_(0, slot, value[None])
    mixed = attend(rotate(query, cos, sin), keys, values, bias, spec.scale)
    x = x + linear(mixed, w["out"], w.get("out_bias"))
    gate, up = linear(rms_norm(x, w["norm2"], spec.eps), w["gate_up"], w.get("gate_up_bias")).chunk(2, dim=-1)
    return x + linear(F.silu(gate) * up, w["down"], w.get("down_bias"))


def write_only(
    spec: LayerSpec, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, keys: Tensor, values: Tensor, *weights: Tensor
) -> Tensor:
    """What a skipped layer leaves in the cache: K and V of the state that passes through; returns ``x``."""
    w = dict(zip(spec.names, weights, strict=True))
    width = spec.heads * spec.head_dim
    bias = w["qkv_bias"][width:] if "qkv_bias" in w else None
    kv = linear(rms_norm(x, w["norm1"], spec.eps), w["qkv"][width:], bias)
    key, value = keys_and_values(spec, w, kv, cos, sin)
    keys.index_copy_(0, slot, key[None])
    values.index_copy_(0, slot, value[None])
    return x.clone()


def bridge(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A bridge over a skipped run: ``x + x @ weight.T + bias``, ``weight`` ``[hidden, hidden]`` with outputs first."""
    return x + linear(x, weight, bias)


def head(eps: float, x: Tensor, norm: Tensor, *weight_and_bias: Tensor) -> Tensor:
    """Final norm and LM head: logits ``[batch, vocabulary]``."""
    return linear(rms_norm(x, norm, eps), *weight_and_bias)
