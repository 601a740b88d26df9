"""From a transformers model to the tensors of a compiled step, without a second copy of any weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...adapters import Adapter

_BEFORE = ("norm1", "qkv", "qkv_bias", "q_norm", "k_norm")
"""Weights that a layer reads before attention; they stand first."""


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

    @property
    def split(self) -> int:
        """How many of the weights a layer reads before attention."""
        return sum(name in _BEFORE for name in self.names)


@dataclass(frozen=True)
class Layout:
    """What decides the compiled code: models of one layout share it. ``shapes`` are a layer's, then the head's."""

    spec: LayerSpec
    shapes: tuple[tuple[int, ...], ...]
    num_layers: int
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class FusedModel:
    """The tensors of one model, in the order of :mod:`.step`.

    Attributes
    ----------
    layout : Layout
    layers : tuple of tuple of Tensor
        Weights of each layer, as ``layout.spec.names`` says.
    embedding : Tensor
        ``[vocabulary, hidden]``.
    head : tuple of Tensor
        Final norm, LM head, and its bias if it has one.
    rotary : nn.Module
        Maps positions to cos and sin.
    """

    layout: Layout
    layers: tuple[tuple[Tensor, ...], ...]
    embedding: Tensor
    head: tuple[Tensor, ...]
    rotary: Any


def layout_of(adapter: Adapter) -> Layout:
    """The layout of a model that :func:`~depthsched.runtime.plain.why_not` has nothing against. Changes nothing."""
    layer: Any = adapter.layers[0]
    parts = _parts(layer)
    weight = adapter.model.get_output_embeddings().weight
    shapes = tuple((sum(len(p) for p in group), *group[0].shape[1:]) for group in parts.values())
    head = tuple(tuple(t.shape) for t in _head(adapter))
    return Layout(_spec(layer, tuple(parts)), (*shapes, *head), adapter.num_layers, weight.dtype, weight.device)


def fuse(adapter: Adapter) -> FusedModel:
    """The tensors of a model that :func:`~depthsched.runtime.plain.why_not` has nothing against.

    q, k and v, and gate and up, become views of one fused buffer each: the model stays what it was, its
    ``state_dict`` is equal, and no weight is held twice. The views stay, so that the next run finds them.
    """
    decoder: Any = adapter.decoder
    with torch.no_grad():
        weights = tuple(_layer_weights(layer) for layer in adapter.layers)
    embedding = decoder.embed_tokens.weight.detach()
    return FusedModel(layout_of(adapter), weights, embedding, _head(adapter), decoder.rotary_emb)


def _head(adapter: Adapter) -> tuple[Tensor, ...]:
    decoder: Any = adapter.decoder
    output = adapter.model.get_output_embeddings()
    return tuple(t.detach() for t in (decoder.norm.weight, output.weight, output.bias) if t is not None)


def _spec(layer: Any, names: tuple[str, ...]) -> LayerSpec:
    attention = layer.self_attn
    width = attention.head_dim
    return LayerSpec(
        heads=attention.q_proj.out_features // width,
        kv_heads=attention.k_proj.out_features // width,
        head_dim=width,
        eps=layer.input_layernorm.variance_epsilon,
        scale=attention.scaling,
        names=names,
    )


def _parts(layer: Any) -> dict[str, list[Any]]:
    """The weights of a layer in the order in which a step takes them, each as the parts that it is fused from."""
    attention, mlp = layer.self_attn, layer.mlp
    qkv, gate_up = (attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)
    norms = [getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm")]
    found: dict[str, list[Any]] = {
        "norm1": [layer.input_layernorm.weight],
        "qkv": [linear.weight for linear in qkv],
        "qkv_bias": [linear.bias for linear in qkv],
        "q_norm": [norms[0]],
        "k_norm": [norms[1]],
        "out": [attention.o_proj.weight],
        "out_bias": [attention.o_proj.bias],
        "norm2": [layer.post_attention_layernorm.weight],
        "gate_up": [linear.weight for linear in gate_up],
        "gate_up_bias": [linear.bias for linear in gate_up],
        "down": [mlp.down_proj.weight],
        "down_bias": [mlp.down_proj.bias],
    }
    return {name: group for name, group in found.items() if group[0] is not None}


def _layer_weights(layer: Any) -> tuple[Tensor, ...]:
    return tuple(fused(group).detach() for group in _parts(layer).values())


def fused(parts: list[Any]) -> Tensor:
    """The parts stacked along their first dimension, each of them made a view of the result.

    Parts that are such views already are only looked at through the buffer they share.
    """
    rows = sum(len(p) for p in parts)
    first: Tensor = parts[0].detach()
    if _adjacent(parts):
        return first.as_strided((rows, *first.shape[1:]), first.stride())
    whole = torch.cat([p.detach() for p in parts])
    start = 0
    for part in parts:
        part.data = whole[start : start + len(part)]
        start += len(part)
    return whole


def _adjacent(parts: list[Any]) -> bool:
    base = parts[0].untyped_storage().data_ptr()
    end = parts[0].storage_offset()
    for part in parts:
        if part.untyped_storage().data_ptr() != base or part.storage_offset() != end or not part.is_contiguous():
            return False
        end += part.numel()
    return True
