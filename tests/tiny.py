"""Tiny random models of every family in the adapter: real transformers code, milliseconds a step."""

import functools
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

CHOSEN = 0.5
"""Every tiny mixture of experts chooses two of its four."""

LAYERS = 8
VOCAB = 128

# initializer_range is ten times the usual one: with it the layers change the greedy token, so a layer that
# wrongly runs, or wrongly does not, shows.
_COMMON = {
    "num_hidden_layers": LAYERS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}

_MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
_WINDOW = {"sliding_window": 5}  # shorter than the prompts, so that it matters

# name of the variant -> (model_type, what differs)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-sliding": ("mistral", {"sliding_window": 5}),
    "qwen2": ("qwen2", {}),
    "qwen2-sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 3}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 3}),
    "olmo": ("olmo", {"clip_qkv": 0.5}),
    "olmo2": ("olmo2", {}),
    "phi3": ("phi3", {"original_max_position_embeddings": 256}),
    "granite": (
        "granite",
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 2.0, "attention_multiplier": 0.4},
    ),
    "apertus": ("apertus", _ROPE),
    "arcee": ("arcee", {}),
    "cohere": ("cohere", {"use_qk_norm": True, "logit_scale": 0.3}),
    "cohere2-sliding": ("cohere2", {**_WINDOW, "logit_scale": 0.3}),
    "ernie4_5": ("ernie4_5", {"head_dim": 8, "use_bias": True}),
    "ernie4_5_moe": ("ernie4_5_moe", {**_MOE, "moe_k": 2, "moe_num_experts": 4, "moe_layer_start_index": 2}),
    "exaone4": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * LAYERS}),
    "exaone4-sliding": ("exaone4", {**_WINDOW, "sliding_window_pattern": 4}),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma2-sliding": (
        "gemma2",
        {**_WINDOW, "head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0},
    ),
    "gemma3-sliding": ("gemma3_text", {**_WINDOW, "head_dim": 8, "final_logit_softcapping": 2.0}),
    "glm": ("glm", {"head_dim": 8, "attention_bias": True}),
    "glm4": ("glm4", {"head_dim": 8, "attention_bias": True}),
    "glm4_moe": (
        "glm4_moe",
        {**_MOE, "head_dim": 8, "use_qk_norm": True, "n_routed_experts": 4, "n_group": 2, "topk_group": 1},
    ),
    "gpt_oss-sliding": (
        "gpt_oss",
        {**_ROPE, **_WINDOW, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "granitemoe": ("granitemoe", {"num_local_experts": 4, "logits_scaling": 2.0, "attention_multiplier": 0.4}),
    "ministral-sliding": (
        "ministral",
        {**_WINDOW, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)},
    ),
    "ministral3": (
        "ministral3",
        {
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "llama_4_scaling_beta": 0.5,
                "original_max_position_embeddings": 4,
            },
        },
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "mixtral-sliding": ("mixtral", {**_WINDOW, "num_local_experts": 4}),
    "nemotron": ("nemotron", {"head_dim": 8}),
    "olmo3-sliding": ("olmo3", _WINDOW),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": 0.5}),
    "qwen2_moe": (
        "qwen2_moe",
        {**_MOE, "num_experts": 4, "shared_expert_intermediate_size": 24, "mlp_only_layers": [0]},
    ),
    "qwen3_moe": ("qwen3_moe", {**_MOE, "head_dim": 8, "num_experts": 4, "initializer_range": 0.4}),
    "qwen3_moe-sliding": (
        "qwen3_moe",
        {**_MOE, **_WINDOW, "use_sliding_window": True, "head_dim": 8, "num_experts": 4, "initializer_range": 0.4},
    ),
    "seed_oss": ("seed_oss", {"head_dim": 8}),
    "starcoder2-sliding": ("starcoder2", {**_WINDOW, "initializer_range": 0.4, "intermediate_size": 128}),
}
EAGER_ONLY = {"gemma2", "gpt_oss"}  # sdpa neither caps attention logits nor has attention sinks
MAIN = ("llama", "mistral", "qwen2", "qwen3")


def make_tiny(variant: str = "llama", attn: str = "eager", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A new tiny model, the same weights every time."""
    model_type, special = VARIANTS[variant]
    attn = "eager" if model_type in EAGER_ONLY else attn
    config = AutoConfig.for_model(model_type, **{**_COMMON, **special, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attn, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # ones and zeros would hide a norm or bias left out
                torch.nn.init.normal_(parameter, mean=float("norm" in name and "bias" not in name), std=0.1)
    return model.to(dtype).eval()


tiny = functools.cache(make_tiny)


def prompt(batch: int = 1, tokens: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random prompts of ``tokens`` tokens, the last one; each row of a batch is padded more on the left."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCAB, (batch, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(batch):
        mask[row, : min(row, tokens - 1)] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}
