"""The Llama family: a stack of decoder layers, each with ``self_attn`` and a dense or a mixture-of-experts MLP."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar

from ..cost import Exchange, ModelShape
from ..errors import ModelError
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
        from torch import nn

        from ..fingerprint import config_digest
        from .storage import remembered

        layers: list[Any] = list(self.layers._modules.values())  # not what an attached plan makes of them
        try:
            norm = self.final_norm
        except ModelError:  # counted without; scoring and calibration say what is missing
            norm = nn.Identity()
        head = [self.model.get_output_embeddings(), norm]
        key = config_digest(self.model), self.dtype
        return remembered(self.model, [*layers, *head], key, lambda: self._shape(layers, head))

    def _shape(self, layers: list[Any], head: list[Any]) -> ModelShape:
        from .storage import logical_weights, stored_bytes

        ranks = getattr(self.model, "_tp_size", None) or 1
        heads, head_dim = self.config.num_attention_heads // ranks, layers[0].self_attn.head_dim
        kv_values = 2 * ((getattr(self.config, "num_key_value_heads", None) or heads * ranks) // ranks) * head_dim
        read = [self.active_share(layer) for layer in layers]
        weights = sum(logical_weights(layer) * share for layer, share in zip(layers, read, strict=True))
        return ModelShape(
            num_layers=len(layers),
            layer_params=round(weights / len(layers)),
            head_params=sum(map(logical_weights, head)),
            kv_values=kv_values,
            attention_width=heads * head_dim,
            kv_params=kv_values * self.config.hidden_size,
            weight_bytes=self.dtype.itemsize,
            kv_bytes=self.dtype.itemsize,
            layer_bytes=tuple(stored_bytes(layer) * share for layer, share in zip(layers, read, strict=True)),
            head_bytes=float(stored_bytes(*head)),
            kv_weight_bytes=self._kv_weight_bytes(layers, kv_values / (heads * head_dim + kv_values)),
            exchange=Exchange(ranks, self.config.hidden_size, self.config.vocab_size) if ranks > 1 else None,
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

    def active_share(self, layer: nn.Module) -> float:
        """Share of a layer's bytes that one token reads; 1 without experts."""
        from .storage import stored_bytes

        experts: list[Any] = [module for name, module in layer.named_modules() if name.endswith(".experts")]
        if not experts:
            return 1.0
        chosen = self.config.num_experts_per_tok
        unread = sum(stored_bytes(module) * (1 - chosen / module.num_experts) for module in experts)
        return 1 - float(unread) / stored_bytes(layer)

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
