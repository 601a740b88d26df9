"""The Llama family: a stack of equal decoder layers, each with ``self_attn`` and ``mlp``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar

from ..shape import ModelShape
from .base import Adapter
from .families import LLAMA_FAMILIES

if TYPE_CHECKING:
    import torch
    from torch import nn


class LlamaAdapter(Adapter):
    """Llama and its kin in transformers."""

    name: ClassVar[str] = "llama"
    families = LLAMA_FAMILIES

    def shape(self) -> ModelShape:
        from torch import nn

        from .storage import logical_weights, stored_bytes

        config = self.config
        layers: list[Any] = list(self.layers._modules.values())  # not what an attached plan makes of them
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_values = 2 * (getattr(config, "num_key_value_heads", None) or heads) * head_dim
        head = [self.model.get_output_embeddings(), getattr(self.decoder, "norm", nn.Identity())]
        return ModelShape(
            num_layers=len(layers),
            layer_params=sum(map(logical_weights, layers)) // len(layers),
            head_params=sum(map(logical_weights, head)),
            kv_values=kv_values,
            attention_width=heads * head_dim,
            kv_params=kv_values * config.hidden_size,
            weight_bytes=self.dtype.itemsize,
            kv_bytes=self.dtype.itemsize,
            layer_bytes=tuple(float(stored_bytes(layer)) for layer in layers),
            head_bytes=float(stored_bytes(*head)),
            kv_weight_bytes=self._kv_weight_bytes(layers, kv_values / (heads * head_dim + kv_values)),
        )

    def _kv_weight_bytes(self, layers: list[Any], share: float) -> tuple[float, ...]:
        """Bytes of every layer's key and value projections, which are ``share`` of a fused one; empty if unknown."""
        from .storage import stored_bytes

        found: list[Any] = [getattr(layer, "self_attn", None) for layer in layers]
        if all(hasattr(attention, "qkv_proj") for attention in found):
            return tuple(share * stored_bytes(attention.qkv_proj) for attention in found)
        if all(hasattr(attention, "k_proj") and hasattr(attention, "v_proj") for attention in found):
            return tuple(float(stored_bytes(attention.k_proj, attention.v_proj)) for attention in found)
        return ()

    def write_kv(self, layer: nn.Module, hidden: torch.Tensor, cache: Any, position_embeddings: Any) -> None:
        attention: Any = layer.self_attn
        norm = getattr(layer, "input_layernorm", None)  # OLMo2 and 3 normalise after attention instead
        key, value = self._project(attention, norm(hidden) if norm is not None else hidden)
        if getattr(attention, "use_rope", True):  # SmolLM3 leaves some layers without
            cos, sin = position_embeddings
            rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
            key = rotate(key, key, cos, sin)[1]
        cache.update(key, value, attention.layer_idx)

    def _project(self, attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer before rotation, ``[batch, kv_heads, tokens, head_dim]``."""
        split = (*hidden.shape[:-1], -1, attention.head_dim)
        if hasattr(attention, "qkv_proj"):  # Phi-3 holds q, k and v in one matrix
            width = self.config.num_key_value_heads * attention.head_dim
            key, value = attention.qkv_proj(hidden)[..., -2 * width :].split(width, dim=-1)
        else:
            key, value = attention.k_proj(hidden), attention.v_proj(hidden)
        clip = getattr(self.config, "clip_qkv", None)  # OLMo
        if clip is not None:
            key, value = key.clamp(-clip, clip), value.clamp(-clip, clip)
        norm = getattr(attention, "k_norm", None)
        if norm is not None and norm.weight.shape[-1] == key.shape[-1]:  # OLMo2 norms all heads at once
            key = norm(key).view(split)
        else:  # Qwen3 norms each head
            key = norm(key.view(split)) if norm is not None else key.view(split)
        return key.transpose(1, 2), value.view(split).transpose(1, 2)
