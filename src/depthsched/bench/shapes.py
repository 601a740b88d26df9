"""Models by shape alone: the clock does not depend on what the weights are."""

from __future__ import annotations

from typing import Any

from ..cost import ModelShape
from ..errors import UnknownNameError
from ..settings import suggest

# hidden, MLP width, layers, heads, KV heads, vocabulary, tied embeddings
SHAPES: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    "smollm2-135m": (576, 1536, 30, 9, 3, 49152, True),
    "tinyllama-1.1b": (2048, 5632, 22, 32, 4, 32000, False),
    "llama-3.2-1b": (2048, 8192, 16, 32, 8, 128256, True),
    "llama-2-7b": (4096, 11008, 32, 32, 32, 32000, False),
    "llama-3-8b": (4096, 14336, 32, 32, 8, 128256, False),
    "llama-2-13b": (5120, 13824, 40, 40, 40, 32000, False),
    "llama-2-70b": (8192, 28672, 80, 64, 8, 32000, False),
}


def known_shape(name: str, weight_bytes: float = 2) -> ModelShape:
    """What a decode step of a known shape costs, without its weights.

    Parameters
    ----------
    name : str
        One of :data:`SHAPES`.
    weight_bytes : float
        Bytes of a weight and of a cached value; 2 in half precision.

    Raises
    ------
    UnknownNameError
    """
    hidden, width, layers, heads, kv_heads, vocabulary, _ = _sizes(name)
    keys = hidden // heads * kv_heads
    return ModelShape(
        num_layers=layers,
        layer_params=2 * hidden * (hidden + keys) + 3 * hidden * width + 2 * hidden,
        head_params=vocabulary * hidden + hidden,
        kv_values=2 * keys,
        attention_width=hidden,
        kv_params=2 * hidden * keys,
        weight_bytes=weight_bytes,
        kv_bytes=weight_bytes,
    )


def _sizes(name: str) -> tuple[int, int, int, int, int, int, bool]:
    if name not in SHAPES:
        raise UnknownNameError(f"unknown shape {name!r}; {suggest(name, SHAPES)}")
    return SHAPES[name]


def random_model(name: str, dtype: Any, device: Any) -> Any:
    """A Llama of a known shape with random weights, drawn on the device.

    Parameters
    ----------
    name : str
        One of :data:`SHAPES`.
    dtype : torch.dtype
    device : torch.device

    Raises
    ------
    UnknownNameError
    """
    config = llama_config(name)
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def llama_config(name: str, num_layers: int | None = None) -> Any:
    """The configuration of a Llama of a known shape, or of its first layers.

    Raises
    ------
    UnknownNameError
    """
    hidden, width, layers, heads, kv_heads, vocabulary, tied = _sizes(name)
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=num_layers or layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=8192,
        eos_token_id=None,
        pad_token_id=0,
    )
