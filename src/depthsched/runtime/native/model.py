"""A transformers model as the library sees it: where each weight lies. Nothing is copied but norms and biases."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...adapters import Adapter
from ...bridge import Bridge
from ...native.matrix import Held, describe, kind_of, vector
from ...native.structs import LayerStruct, MatrixStruct, ModelStruct
from ...parallel.ranks import Ranks, ranks_of
from ...parallel.shards import bounds, first_of, local, split_dimension


class NativeModel:
    """The structure of a model, or of a shard of one, with the bridges of a plan, and what keeps its memory alive.

    Parameters
    ----------
    adapter : Adapter
        Of a model that :func:`~depthsched.runtime.plain.why_not` has nothing against.
    bridges : mapping
        Depth -> layer whose input is bridged -> bridge, in the model's dtype.

    Attributes
    ----------
    bridge_index : dict
        (depth, layer) -> the bridge's number in a program.
    """

    def __init__(self, adapter: Adapter, bridges: Mapping[int, Mapping[int, Bridge]]) -> None:
        held: Held = []
        decoder: Any = adapter.decoder
        self.decoder, self.dtype, self.num_layers = decoder, adapter.dtype, adapter.num_layers
        output: Any = adapter.model.get_output_embeddings()
        attention: Any = adapter.layers[0].self_attn
        layers = [_layer(layer, held, ranks_of(adapter.model)) for layer in adapter.layers]
        self.width: int = attention.head_dim
        self.kv_heads = layers[0].k.rows // self.width
        self.vocabulary: int = output.out_features
        crossings = [(depth, at, bridge) for depth, row in bridges.items() for at, bridge in row.items()]
        self.bridge_index = {(depth, at): i for i, (depth, at, _) in enumerate(crossings)}
        self.ranks = ranks = ranks_of(adapter.model)
        maps = [_bridge(bridge, ranks, held) for _, _, bridge in crossings]
        embedding, head = (_matrix(module, held, ranks) for module in (decoder.embed_tokens, output))
        self.head_rows: int = head.rows
        self.struct = ModelStruct(
            hidden=layers[0].q.cols, heads=layers[0].q.rows // self.width, kv_heads=self.kv_heads, width=self.width,
            inner=layers[0].gate.rows, dtype=kind_of(adapter.dtype), eps=decoder.norm.variance_epsilon,
            scale=attention.scaling, embedding=embedding, head=head, vocabulary=self.vocabulary,
            norm=vector(decoder.norm.weight, held), layers=(LayerStruct * len(layers))(*layers),
            bridges=(MatrixStruct * max(1, len(maps)))(*maps),
        )  # fmt: skip
        self.pointer = ctypes.byref(self.struct)
        self.dense_float32 = layers[0].gate.kind == kind_of(torch.float32)
        self._held = held

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of positions ``[n]``, float32 ``[n, head_dim]``, rounded as the model's own are."""
        like = positions.new_empty(0, dtype=self.dtype)
        cos, sin = self.decoder.rotary_emb(like, positions[None])
        return cos[0].float().contiguous(), sin[0].float().contiguous()


def _layer(layer: Any, held: Held, ranks: Ranks | None) -> LayerStruct:
    attention, mlp = layer.self_attn, layer.mlp
    found = {
        "q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj, "out": attention.o_proj,
        "gate": mlp.gate_proj, "up": mlp.up_proj, "down": mlp.down_proj,
    }  # fmt: skip
    norms = {"norm1": layer.input_layernorm, "norm2": layer.post_attention_layernorm}
    norms |= {name: getattr(attention, name, None) for name in ("q_norm", "k_norm")}
    return LayerStruct(
        **{name: _matrix(module, held, ranks) for name, module in found.items()},
        **{name: vector(None if module is None else module.weight, held) for name, module in norms.items()},
    )


def _matrix(module: Any, held: Held, ranks: Ranks | None) -> MatrixStruct:
    """A linear module or an embedding; one with blocks says where they lie, and of one split over ranks the shard."""
    weight, bias = getattr(module, "matrix", None), getattr(module, "bias", None)
    if ranks is None:
        return describe(module.weight if weight is None else weight, bias, held)
    dimension = split_dimension(module.weight)
    if dimension == 1 and ranks.rank > 0:
        bias = None  # it is added once to the sum over the ranks
    found = describe(local(module.weight), local(bias), held)
    found.first = first_of(module.weight.shape[0], ranks) if dimension == 0 else 0
    return found


def _bridge(bridge: Bridge, ranks: Ranks | None, held: Held) -> MatrixStruct:
    """The map of a bridge; of ranks that share a model each has some of its outputs."""
    weight, bias = bridge.weight.T, bridge.bias
    if ranks is None:
        return describe(weight.contiguous(), bias, held)
    first, last = bounds(len(weight), ranks)
    found = describe(weight[first:last].contiguous(), bias[first:last], held)
    found.first = first
    return found
