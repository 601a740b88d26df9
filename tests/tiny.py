"""Tiny random models of every family in the adapter: real transformers code, milliseconds a step."""

import functools
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

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
}
MAIN = ("llama", "mistral", "qwen2", "qwen3")


def make_tiny(variant: str = "llama", attn: str = "eager", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A new tiny model, the same weights every time."""
    model_type, special = VARIANTS[variant]
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
