"""What predictions are about: a known shape, a configuration, a loaded model; and a model to time."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from ..adapters import adapter_for
from ..adapters.storage import stored_bytes
from ..blocks.matrix import BlockMatrix
from ..blocks.modules import BlockEmbedding, BlockLinear, weights_form
from .predict import Subject
from .shapes import SHAPES, known_shape, llama_config

Q4_BYTES = 18 / 32
"""Of a weight in Q4_0: 32 of them in 4 bits with one float16 scale."""

_NOISE = 1 << 20


def shape_subject(name: str, dtype: torch.dtype, weights: str = "dense") -> Subject:
    """A known shape; ``native`` weights are all in Q4_0.

    Raises
    ------
    UnknownNameError
    """
    shape = known_shape(name, dtype.itemsize)
    if weights == "native":
        shape = dataclasses.replace(shape, weight_bytes=Q4_BYTES)
    hidden, _, _, heads, kv_heads, vocabulary, tied = SHAPES[name]
    embedding = 0.0 if tied else vocabulary * hidden * shape.weight_bytes
    return Subject(name, shape, hidden, heads, kv_heads, vocabulary, embedding, _text(dtype), weights)


def model_subject(name: str, model: Any) -> Subject:
    """A transformers model, on the meta device too."""
    adapter = adapter_for(model)
    config, shape = adapter.config, adapter.shape()
    heads = config.num_attention_heads
    everything = stored_bytes(model)
    read = sum(shape.layer_bytes) + (shape.head_bytes or 0.0)
    return Subject(
        name, shape, config.hidden_size, heads, getattr(config, "num_key_value_heads", None) or heads,
        config.vocab_size, max(everything - read, 0.0), _text(adapter.dtype), weights_form(model),
    )  # fmt: skip


def configured(source: str, dtype: torch.dtype) -> Any:
    """A model by its configuration alone, without weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def probe_model(name: str, dtype: torch.dtype, weights: str, layers: int) -> Any:
    """Some layers, embedding and head of a known shape on the CPU, with weights drawn once and repeated."""
    from transformers import AutoModelForCausalLM

    config = llama_config(name, layers)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.get_decoder().rotary_emb = type(model.get_decoder().rotary_emb)(config=config)
    if weights == "native":
        for owner, module in [*model.named_modules()]:
            if isinstance(module, nn.Linear):
                model.set_submodule(owner, BlockLinear(_blocks(module.out_features, module.in_features)))
        embedding = BlockEmbedding(_blocks(config.vocab_size, config.hidden_size), dtype)
        model.set_input_embeddings(embedding)
        if config.tie_word_embeddings:
            model.set_output_embeddings(BlockLinear(embedding.matrix))
    for owner, parameter in [*model.named_parameters()]:
        if parameter.is_meta:
            value = nn.Parameter(_noise(parameter.shape, dtype), requires_grad=False)
            setattr(model.get_submodule(owner.rpartition(".")[0]), owner.rpartition(".")[2], value)
    if weights == "dense":
        model.tie_weights()
    return model.eval()


def _noise(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(_NOISE, generator=generator) * 0.02
    return drawn.to(dtype).repeat(math.ceil(shape.numel() / _NOISE))[: shape.numel()].view(shape).clone()


def _blocks(rows: int, columns: int) -> BlockMatrix:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (_NOISE,), dtype=torch.uint8, generator=generator)
    shape = (rows // 8, columns // 32, 128)
    quants = drawn.repeat(math.ceil(math.prod(shape) / _NOISE))[: math.prod(shape)].view(shape).clone()
    return BlockMatrix(quants, torch.full((*shape[:2], 8), 0.01, dtype=torch.float16))


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
