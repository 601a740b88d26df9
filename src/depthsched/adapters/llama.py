"""The Llama family: a stack of decoder layers, each with ``self_attn`` and a dense or a mixture-of-experts MLP."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar

from ..shape import ModelShape
from .base import Adapter
from .families import LLAMA_FAMILIES, SLIDING_ROPE

if TYPE_CHECKING:
    import torch
    from torch import nn

_FIRST_NORMS = ("input_layernorm", "attention_layernorm")  # OLMo 2 and 3 and EXAONE normalise after attention instead


class LlamaAdapter(Adapter):
    """Llama and its kin in transformers."""

    name: ClassVar[str] = "llama"
    families = LLAMA_FAMILIES

    def shape(self) -> ModelShape:
        """Sizes that decide what a decode step costs.

        In a mixture of experts a layer counts the weights that one token reads: attention, norms, router, shared
        experts and the ``top_k`` experts that the router chooses. A batch reads more, at most all of them.
        """
        config, layers = self.config, self.layers
        first: Any = layers[0]
        heads, head_dim = config.num_attention_heads, first.self_attn.head_dim
        kv_values = 2 * (getattr(config, "num_key_value_heads", None) or heads) * head_dim
        head = self.model.get_output_embeddings().weight
        return ModelShape(
            num_layers=len(layers),
            layer_params=round(sum(_params(layer) * self.active_share(layer) for layer in layers) / len(layers)),
            head_params=head.numel() + _params(self.decoder.norm),
            kv_values=kv_values,
            attention_width=heads * head_dim,
            kv_params=kv_values * config.hidden_size,
            weight_bytes=head.element_size(),
            kv_bytes=head.element_size(),
        )

    def active_share(self, layer: nn.Module) -> float:
        """Share of a layer's weights that one token reads; 1 without experts."""
        experts: list[Any] = [module for name, module in layer.named_modules() if name.endswith(".experts")]
        chosen = self.config.num_experts_per_tok if experts else 0
        unread = sum(_params(module) * (1 - chosen / module.num_experts) for module in experts)
        return 1 - float(unread) / _params(layer)

    def write_kv(self, layer: nn.Module, hidden: torch.Tensor, cache: Any, position_embeddings: Any) -> None:
        attention: Any = layer.self_attn
        for name in _FIRST_NORMS:
            hidden = getattr(layer, name)(hidden) if hasattr(layer, name) else hidden
        key, value = self._project(attention, hidden)
        if self._has_rope(attention):
            cos, sin = position_embeddings
            rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
            key = rotate(key, key, cos, sin)[1]
        cache.update(key, value, attention.layer_idx)

    def _has_rope(self, attention: Any) -> bool:
        if self.config.model_type in SLIDING_ROPE and self.config.sliding_window is not None:
            return bool(self.config.layer_types[attention.layer_idx] == "sliding_attention")
        return bool(getattr(attention, "use_rope", True))  # SmolLM3

    def _project(self, attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer before RoPE, ``[batch, kv_heads, tokens, head_dim]``."""
        split = (*hidden.shape[:-1], -1, attention.head_dim)
        if hasattr(attention, "qkv_proj"):  # Phi-3 holds q, k and v in one matrix
            width = self.config.num_key_value_heads * attention.head_dim
            key, value = attention.qkv_proj(hidden)[..., -2 * width :].split(width, dim=-1)
        else:
            key, value = attention.k_proj(hidden), attention.v_proj(hidden)
        norm: Any = getattr(attention, "k_norm", None)
        all_heads = norm is not None and norm.weight.shape[-1] == key.shape[-1]
        if all_heads:  # OLMo 2 and its kin norm all heads at once
            key = norm(key)
        clip = getattr(self.config, "clip_qkv", None)  # OLMo and OLMoE
        if clip is not None:
            key, value = key.clamp(-clip, clip), value.clamp(-clip, clip)
        key, value = key.view(split), value.view(split)
        if norm is not None and not all_heads:  # Qwen3, Gemma 3 and others norm each head
            key = norm(key)
        return key.transpose(1, 2), value.transpose(1, 2)


def _params(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
