"""From a GGUF file to a transformers model whose weights stay in the blocks of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import ModelError
from ..text import one_line
from .conversion import NOT_GGUF, repair_chat_tokens
from .matrix import KINDS, BlockMatrix
from .modules import BlockEmbedding, BlockLinear, refuse_saving

FORMAT = 1
"""Of the packed file; part of its folder's name."""

_FILE = "blocks.safetensors"
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_UNREAD = ("rope_freqs.weight",)  # transformers takes the rotation from the configuration
_ALIGNMENT = 64


def pack(gguf: Path, folder: Path) -> None:
    """Write configuration, tokenizer and weights of a GGUF file into a folder for :func:`assemble`.

    Raises
    ------
    ModelError
        Not a GGUF file, another architecture, or no weights in blocks.
    """
    from transformers import AutoConfig, AutoTokenizer

    from .reader import Reader, write_without_vocabulary

    try:
        reader, small = Reader(gguf), folder / gguf.name
        write_without_vocabulary(reader, small)
        config = AutoConfig.from_pretrained(folder, gguf_file=small.name)
        small.unlink()
        if config.model_type not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise ModelError(f"native weights are for {known}, and {gguf.name} is {config.model_type}; use dense")
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, config=config)
        model = _skeleton(config, torch.float32)
        tensors = _packed(gguf.name, reader.tensors, model)
    except NOT_GGUF as error:
        raise ModelError(f"{gguf.name} is not a GGUF file that transformers can read: {one_line(error)}") from error
    repair_chat_tokens(model, tokenizer)
    model.config.architectures = [type(model).__name__]  # as save_pretrained writes it
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write(tensors, folder / _FILE)


def assemble(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The model of a folder that :func:`pack` wrote: weights in blocks mapped from the file, all else in ``dtype``.

    Raises
    ------
    ModelError
        The folder is damaged.
    """
    from transformers import AutoConfig, GenerationConfig

    try:
        model = _skeleton(AutoConfig.from_pretrained(folder), dtype)
        model.generation_config = GenerationConfig.from_pretrained(folder)
        with safe_open(folder / _FILE, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        _fill(model, tensors, dtype)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise ModelError(f"the packed model {folder} is damaged, delete it: {one_line(error)}") from error
    model.save_pretrained = refuse_saving
    return model  # type: ignore[no-any-return]


def _skeleton(config: Any, dtype: torch.dtype) -> Any:
    """The model without weights: all on the meta device but the tables of the rotation."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    decoder = model.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(config=config)
    return model


def _packed(source: str, stored: Any, model: Any) -> dict[str, Tensor]:
    """Tensors by their names in the assembled model; three, or two, for every matrix in blocks."""
    names, tensors = _names(model), dict[str, Tensor]()
    for tensor in stored:
        if tensor.name in names:
            tensors |= _read(tensor, names.pop(tensor.name), model)
        elif tensor.name not in _UNREAD:
            raise ModelError(f"{source} holds {tensor.name}, for which its architecture has no place; use dense")
    if not any(name.endswith(".quants") for name in tensors):
        types = ", ".join(sorted({tensor.tensor_type.name for tensor in stored}))
        raise ModelError(f"{source} has no weights in blocks of {', '.join(KINDS)}, but {types}; use dense")
    if model.config.tie_word_embeddings:
        names.pop("output.weight", None)
    if names:
        raise ModelError(f"{source} has no {next(iter(names))}, which its architecture needs")
    return tensors


def _read(tensor: Any, name: str, model: Any) -> dict[str, Tensor]:
    """A tensor of the file under its name in the model, in blocks where it can be."""
    from gguf import dequantize

    owner, _, part = name.rpartition(".")
    module, kind = model.get_submodule(owner), tensor.tensor_type.name
    found, wanted = tuple(map(int, reversed(tensor.shape))), tuple(getattr(module, part).shape)
    if found != wanted:
        raise ModelError(f"{tensor.name} is {list(found)} in the file and {list(wanted)} in the model; use dense")
    order = _file_order(name, found[0], model.config)
    is_matrix = part == "weight" and isinstance(module, nn.Linear | nn.Embedding)
    if is_matrix and kind in KINDS and BlockMatrix.fits(*found):
        matrix = BlockMatrix.from_gguf(tensor.data, kind)
        matrix = matrix if order is None else matrix.permute_rows(order)
        halves = {"quants": matrix.quants, "scales": matrix.scales, "mins": matrix.mins}
        return {f"{owner}.{key}": value for key, value in halves.items() if value is not None}
    dense = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
    return {name: dense if order is None else dense[order]}


def _names(model: Any) -> dict[str, str]:
    """Names in GGUF files -> names in transformers."""
    import gguf

    wanted = _ARCHITECTURES[model.config.model_type]
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == wanted)
    table = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    return {table.get_name(name, try_suffixes=(".weight", ".bias")): name for name in model.state_dict()}


def _file_order(name: str, rows: int, config: Any) -> Tensor | None:
    """Where the rows of a tensor lie in the file, if elsewhere.

    For Llamas llama.cpp turns the two halves of each head of q and k into pairs, for its own form of rotation.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    owner = name.split(".")[-2]
    if _ARCHITECTURES[config.model_type] != "llama" or owner not in heads:
        return None
    return torch.arange(rows).view(heads[owner], -1, 2).transpose(1, 2).flatten()


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    """As safetensors, with data that begin at a multiple of 64 bytes."""
    save_file(tensors, file, metadata={"pad": ""})
    with file.open("rb") as written:
        start = 8 + int.from_bytes(written.read(8), "little")
    if start % _ALIGNMENT:
        save_file(tensors, file, metadata={"pad": " " * (_ALIGNMENT - start % _ALIGNMENT)})


def _fill(model: Any, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Put weights in blocks in place of the modules that they are for, and load the others."""
    for owner in [name.removesuffix(".quants") for name in tensors if name.endswith(".quants")]:
        parts = [tensors.pop(f"{owner}.{part}", None) for part in ("quants", "scales", "mins")]
        matrix, old = BlockMatrix(*parts), model.get_submodule(owner)  # type: ignore[arg-type]
        if isinstance(old, nn.Embedding):
            model.set_submodule(owner, BlockEmbedding(matrix, dtype))
        else:
            bias = None if old.bias is None else tensors.pop(f"{owner}.bias").to(dtype)
            model.set_submodule(owner, BlockLinear(matrix, bias))
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    extra = model.load_state_dict(tensors, strict=False, assign=True).unexpected_keys
    if extra:
        raise ValueError(f"{extra[0]} has no place in the model")
    embedding = model.get_input_embeddings()
    if model.config.tie_word_embeddings and isinstance(embedding, BlockEmbedding):
        model.set_output_embeddings(BlockLinear(embedding.matrix))
        model.all_tied_weights_keys = {}  # there is no parameter to tie,
        model._tied_weights_keys = None  # nor where somebody calls tie_weights() later, as lm-eval does
    else:
        model.tie_weights()
    empty = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    if empty:
        raise ValueError(f"{empty[0]} has no weights in the file")
