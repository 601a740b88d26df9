"""From a transformers model to the tensors of the lean path, without a second copy of any weight."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters import Adapter
from .ops import LayerSpec
from .paging import clean_mapping, forget

# What a layer of these classes computes was read in transformers 5.17 to 5.23. A subclass may compute anything.
_CLASSES = frozenset(
    f"transformers.models.{family}.modeling_{family}.{name}{part}"
    for family, name in (("llama", "Llama"), ("mistral", "Mistral"), ("qwen2", "Qwen2"), ("qwen3", "Qwen3"))
    for part in ("DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding", "Model", "ForCausalLM")
)
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")


class NotLean(Exception):
    """The model's layers carry something that the lean path does not compute; the message says what."""


@dataclass(frozen=True)
class LeanModel:
    """The tensors of one model, in the order of :mod:`.ops`.

    Attributes
    ----------
    spec : LayerSpec
    layers : tuple of tuple of Tensor
        Weights of each layer, as ``spec.names`` says.
    embedding : Tensor
        ``[vocabulary, hidden]``.
    head : tuple of Tensor
        Final norm, LM head, and its bias if it has one.
    rotary : nn.Module
        Maps positions to cos and sin.
    """

    spec: LayerSpec
    layers: tuple[tuple[Tensor, ...], ...]
    embedding: Tensor
    head: tuple[Tensor, ...]
    rotary: Any

    @property
    def num_bytes(self) -> int:
        """Bytes of the weights that a full-depth step reads."""
        return sum(t.numel() * t.element_size() for row in (*self.layers, self.head) for t in row)

    @property
    def kernel_key(self) -> tuple[Any, ...]:
        """What decides the compiled code: equal keys share it."""
        shapes = tuple(tuple(t.shape) for t in (*self.layers[0], *self.head))
        return self.spec, shapes, self.embedding.dtype, self.embedding.device


def lean_model(adapter: Adapter, max_tokens: int) -> LeanModel:
    """The lean form of a model whose runs hold at most ``max_tokens`` tokens, prompt included.

    q, k and v, and gate and up, become views of one fused buffer each: the model stays what it was, its
    ``state_dict`` is equal, and no weight is held twice. The views stay, so that the next run finds them.

    Raises
    ------
    NotLean
        With the reason, before anything is changed.
    """
    layers = list(adapter.layers)
    model = adapter.model
    decoder: Any = adapter.decoder
    _check(adapter, layers, max_tokens)
    spec = _spec(layers[0])
    with torch.no_grad():
        weights = _all_weights(layers)
    if any([w.shape for w in row] != [w.shape for w in weights[0]] for row in weights):
        raise NotLean("the layers have different shapes")
    output = model.get_output_embeddings()
    bias = () if output.bias is None else (output.bias,)
    head = tuple(t.detach() for t in (decoder.norm.weight, output.weight, *bias))
    return LeanModel(spec, weights, decoder.embed_tokens.weight.detach(), head, decoder.rotary_emb)


def _all_weights(layers: list[Any]) -> tuple[tuple[Tensor, ...], ...]:
    """The weights of all layers, fused; what fusing leaves unused is given back layer by layer."""
    if _adjacent(_parts(layers[0])[:3]):
        return tuple(tuple(_layer_weights(layer).values()) for layer in layers)
    mapping = clean_mapping(_parts(layers[0])[0])
    rows = []
    for layer in layers:
        before = [part.detach() for part in _parts(layer)] if mapping is not None else []
        rows.append(tuple(_layer_weights(layer).values()))
        for part in before:
            forget(part, mapping)
    _give_back()
    return tuple(rows)


def _parts(layer: Any) -> list[Any]:
    """The large weights that are fused."""
    attention, mlp = layer.self_attn, layer.mlp
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj)
    return [linear.weight for linear in linears]


def _give_back() -> None:
    """Return the memory of the weights that were just replaced, which glibc would keep for later."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _spec(layer: Any) -> LayerSpec:
    attention, mlp = layer.self_attn, layer.mlp
    present = {
        "norm1": True,
        "qkv": True,
        "qkv_bias": attention.q_proj.bias is not None,
        "q_norm": hasattr(attention, "q_norm"),
        "k_norm": hasattr(attention, "k_norm"),
        "out": True,
        "out_bias": attention.o_proj.bias is not None,
        "norm2": True,
        "gate_up": True,
        "gate_up_bias": mlp.gate_proj.bias is not None,
        "down": True,
        "down_bias": mlp.down_proj.bias is not None,
    }
    width = attention.head_dim
    return LayerSpec(
        heads=attention.q_proj.out_features // width,
        kv_heads=attention.k_proj.out_features // width,
        head_dim=width,
        eps=layer.input_layernorm.variance_epsilon,
        scale=attention.scaling,
        names=tuple(name for name, there in present.items() if there),
    )


def _layer_weights(layer: Any) -> dict[str, Tensor]:
    """Weights of one layer in the order of ``LayerSpec.names``."""
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    found = {
        "norm1": layer.input_layernorm.weight,
        "qkv": fused([p.weight for p in projections]),
        "qkv_bias": _fused_bias(projections),
        "q_norm": attention.q_norm.weight if hasattr(attention, "q_norm") else None,
        "k_norm": attention.k_norm.weight if hasattr(attention, "k_norm") else None,
        "out": attention.o_proj.weight,
        "out_bias": attention.o_proj.bias,
        "norm2": layer.post_attention_layernorm.weight,
        "gate_up": fused([mlp.gate_proj.weight, mlp.up_proj.weight]),
        "gate_up_bias": _fused_bias((mlp.gate_proj, mlp.up_proj)),
        "down": mlp.down_proj.weight,
        "down_bias": mlp.down_proj.bias,
    }
    return {name: weight.detach() for name, weight in found.items() if weight is not None}


def _fused_bias(linears: Iterable[nn.Linear]) -> Tensor | None:
    biases = [linear.bias for linear in linears if linear.bias is not None]
    return fused(biases) if biases else None


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


def _check(adapter: Adapter, layers: list[Any], max_tokens: int) -> None:
    model, config = adapter.model, adapter.config
    decoder: Any = adapter.decoder
    output = model.get_output_embeddings()
    for module in (model, decoder, decoder.norm, decoder.rotary_emb, *layers):
        _check_class(module)
    for layer in layers:
        for module in (layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm):
            _check_class(module)
    if getattr(config, "hidden_act", "silu") != "silu":
        raise NotLean(f"the activation is {config.hidden_act}, not silu")
    if getattr(decoder.rotary_emb, "rope_type", "default") not in _STATIC_ROPE:
        raise NotLean(f"rotary positions of type {decoder.rotary_emb.rope_type!r} change with the length")
    window = getattr(config, "sliding_window", None)
    if window is not None and max_tokens >= window and _slides(config, layers):
        raise NotLean(f"the run of {max_tokens} tokens is longer than the sliding window of {window}")
    if model.training:
        raise NotLean("the model is in training mode; call model.eval()")
    if type(output) is not nn.Linear or type(decoder.embed_tokens) is not nn.Embedding:
        raise NotLean("the embedding or the LM head is not a plain module")
    for name, module in (*decoder.named_modules(), ("lm_head", output)):
        _check_plain(name, module)
    _check_parameters(model)


def _slides(config: Any, layers: list[Any]) -> bool:
    return config.model_type == "mistral" or any(getattr(la.self_attn, "sliding_window", None) for la in layers)


def _check_class(module: Any) -> None:
    kind = type(module)
    if f"{kind.__module__}.{kind.__qualname__}" not in _CLASSES:
        raise NotLean(f"{kind.__name__} is not a plain Llama, Mistral, Qwen2 or Qwen3 module")


def _check_plain(name: str, module: Any) -> None:
    """Anything that changes what calling the module computes."""
    if isinstance(module, nn.Linear) and type(module) is not nn.Linear:
        raise NotLean(f"{name} is a {type(module).__name__}, not a plain linear layer")
    if "forward" in vars(module) or hasattr(module, "_hf_hook"):
        raise NotLean(f"{name} has its forward replaced, as offloading and attached runs do")
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    if any(hooks):
        raise NotLean(f"{name} has forward hooks")


def _check_parameters(model: Any) -> None:
    kinds = {type(p) for p in model.parameters()}
    places = {(p.device, p.dtype) for p in model.parameters()}
    if not kinds <= {nn.Parameter}:
        raise NotLean("some weights are not plain parameters (quantised or distributed)")
    if len(places) != 1:
        raise NotLean("the weights are spread over several devices or dtypes")
    device, dtype = places.pop()
    if device.type == "meta" or dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise NotLean(f"weights in {dtype} on {device}")
