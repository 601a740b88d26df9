"""Which model families a schedule can drive, and why others are refused."""

LLAMA_FAMILIES = {
    "apertus": "keys normalised per head",
    "arcee": "as Llama, with another activation",
    "cohere": "attention and MLP side by side, interleaved RoPE, scaled logits",
    "cohere2": "as Cohere; layers of full attention have no RoPE",
    "ernie4_5": "interleaved RoPE",
    "ernie4_5_moe": "mixture of experts with shared experts, interleaved RoPE",
    "exaone4": "normalised after attention; layers of full attention have no RoPE",
    "gemma": "scaled embeddings",
    "gemma2": "sliding and full attention in turn, capped logits",
    "gemma3_text": "sliding and full attention, each with its own RoPE; also the text part of Gemma 3 with images",
    "glm": "interleaved RoPE on a part of each head",
    "glm4": "interleaved RoPE on a part of each head, normalised before and after",
    "glm4_moe": "mixture of experts with shared experts, RoPE on a part of each head",
    "gpt_oss": "mixture of experts, sliding and full attention with sinks; eager attention only",
    "granite": "scaled residuals",
    "granitemoe": "mixture of experts, scaled residuals",
    "llama": "one attention mask; SmolLM2, Llama 1 to 3, Vicuna, TinyLlama",
    "ministral": "mask chosen by layer type",
    "ministral3": "queries scaled by position",
    "mistral": "one attention mask, sliding or full",
    "mixtral": "mixture of experts",
    "nemotron": "RoPE on a part of each head, LayerNorm",
    "olmo": "clipped projections",
    "olmo2": "normalised after attention, keys normalised",
    "olmo3": "as OLMo 2, sliding and full attention",
    "olmoe": "mixture of experts, keys normalised, projections clipped",
    "phi3": "q, k and v in one matrix",
    "qwen2": "mask chosen by layer type",
    "qwen2_moe": "mixture of experts with a shared expert",
    "qwen3": "mask chosen by layer type, keys normalised per head",
    "qwen3_moe": "mixture of experts, keys normalised per head",
    "seed_oss": "as Llama, with biases",
    "smollm3": "some layers without RoPE",
    "starcoder2": "LayerNorm, biases, sliding or full attention",
}

SLIDING_ROPE = frozenset({"cohere2", "exaone4"})
"""Families that give RoPE to their layers of sliding attention only."""

_REASONS = {
    "its layers share keys and values, so skipping a layer that stores them breaks later ones": (
        "gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text"
    ),
    "it has recurrent layers, and a skipped layer would lose a state update": (
        "bailing_hybrid bamba falcon_h1 falcon_mamba granitemoehybrid jamba kimi_linear lfm2 lfm2_moe lfm3 mamba "
        "mamba2 minimax nemotron_h olmo_hybrid qwen3_5_moe_text qwen3_5_text qwen3_next recurrent_gemma rwkv xlstm "
        "zamba zamba2"
    ),
    "its attention caches one compressed state (MLA) in place of keys and values": (
        "deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash minicpm3 youtu"
    ),
    "its decoder keeps its blocks under another name than `layers`": (
        "bloom codegen ctrl dbrx falcon gpt2 gpt_bigcode gpt_neo gptj mpt openai-gpt"
    ),
    "its layers take the cache under another name than `past_key_values`": "gpt_neox gpt_neox_japanese",
    "positions are added to its embeddings, and its layers get no RoPE": "biogpt opt xglm",
    "its RoPE is one complex number per pair, and its layers attend in chunks": "llama4_text",
    "it rotates a part of each head inside its attention": "persimmon phi stablelm",
    "it runs its layers several times per token": "hrm_text",
    "it is an encoder-decoder model": (
        "bart blenderbot bigbird_pegasus m2m_100 marian mbart mt5 pegasus plbart prophetnet t5 t5gemma umt5 whisper"
    ),
}
REFUSED = {family: reason for reason, families in _REASONS.items() for family in families.split()}
