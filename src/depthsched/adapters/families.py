"""Which model families a schedule can drive, and why others are refused."""

LLAMA_FAMILIES = {
    "llama": "one attention mask; SmolLM2, Llama 1 to 3, Vicuna, TinyLlama",
    "mistral": "one attention mask, sliding or full",
    "qwen2": "mask chosen by layer type",
    "qwen3": "mask chosen by layer type, keys normalised per head",
    "smollm3": "some layers without rotary positions",
    "olmo": "clipped projections",
    "olmo2": "normalised after attention, keys normalised",
    "phi3": "q, k and v in one matrix",
    "granite": "scaled residuals",
}

_SHARED = "its layers share keys and values, so skipping a layer that stores them breaks later ones"
_RECURRENT = "it has recurrent layers, and a skipped layer would lose a state update"

REFUSED = {
    "gemma3n": _SHARED,
    "gemma3n_text": _SHARED,
    "gemma4": _SHARED,
    "gemma4_text": _SHARED,
    "qwen3_next": _RECURRENT,
    "lfm2": _RECURRENT,
    "mamba": _RECURRENT,
    "mamba2": _RECURRENT,
    "falcon_h1": _RECURRENT,
    "jamba": _RECURRENT,
}
