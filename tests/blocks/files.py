"""Tiny GGUF files, written by gguf's own writer from tiny models as llama.cpp's converter would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoConfig, AutoModelForCausalLM

LAYERS, WORDS = 6, 96
_ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_MIX = [Type.Q4_0, Type.Q4_1, Type.Q8_0]


def tiny_for(family: str, tied: bool, width: int) -> Any:
    """A tiny model whose matrices lie in whole blocks; ``width`` is that of a head."""
    config = AutoConfig.for_model(
        family,
        num_hidden_layers=LAYERS,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width,
        vocab_size=WORDS,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.1)
    return model.eval()


def mixed(name: str, number: int) -> Type:
    """Every type in turn; one matrix stays F16."""
    return Type.F16 if name == "blk.1.ffn_up.weight" else _MIX[number % 3]


def write_gguf(
    file: Path,
    family: str = "llama",
    tied: bool = True,
    kind: Callable[[str, int], Type] = mixed,
    extra: str = "",
    leave_out: str = "",
    width: int = 0,
) -> Path:
    """A file with the weights of :func:`tiny_for`; ``extra`` names a tensor that no such model has."""
    # transformers takes the width of a head of Qwen 3, 128 in all sizes, from there and not from the file.
    width = width or (128 if family == "qwen3" else 16)
    model = tiny_for(family, tied, width)
    config = model.config
    writer = gguf.GGUFWriter(file, _ARCHITECTURES[family])
    writer.add_block_count(LAYERS)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(width)
    _add_tokenizer(writer)
    architecture = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == _ARCHITECTURES[family])
    names = gguf.get_tensor_name_map(architecture, LAYERS)
    weights = {n: w for n, w in model.state_dict().items() if not (tied and n == "lm_head.weight")}
    for number, (name, weight) in enumerate(weights.items()):
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored == leave_out:
            continue
        _add(writer, stored, _for_llama_cpp(name, weight, config), kind(stored, number))
    if extra:
        writer.add_tensor(extra, np.zeros(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: Any) -> None:
    letters = [chr(code) for code in range(33, 33 + WORDS - 10)]
    ends = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # Qwen converters add these where they are missing
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<unk>", "<s>", "</s>", *letters, "Ġ", "ab", "cd", "Ġa", *ends])
    writer.add_token_types([3, 3, 3] + [1] * (WORDS - 6) + [3, 3, 3])
    writer.add_token_merges(["a b", "c d", "Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)


def _for_llama_cpp(name: str, weight: torch.Tensor, config: Any) -> np.ndarray:
    """llama.cpp wants q and k of Llamas with the halves of each head interleaved."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    owner = name.split(".")[-2]
    if config.model_type == "llama" and owner in heads:
        weight = weight.view(heads[owner], 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
    return weight.numpy()


def _add(writer: Any, name: str, weight: np.ndarray, kind: Type) -> None:
    if weight.ndim == 1:
        writer.add_tensor(name, np.ascontiguousarray(weight))
    elif kind == Type.F16:
        writer.add_tensor(name, weight.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
