"""What a plain Llama-like model is: one whose every part was read, so that fast backends compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..adapters import Adapter
from ..blocks.modules import BlockEmbedding, BlockLinear
from ..blocks.torchao import int8_rows
from ..parallel.ranks import ranks_of
from ..parallel.shards import is_shard, split_dimension
from ..placement import offloads

# What a layer of these classes computes was read in transformers 5.17 to 5.23. A subclass may compute anything.
_CLASSES = frozenset(
    f"transformers.models.{family}.modeling_{family}.{name}{part}"
    for family, name in (("llama", "Llama"), ("mistral", "Mistral"), ("qwen2", "Qwen2"), ("qwen3", "Qwen3"))
    for part in ("DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding", "Model", "ForCausalLM")
)
_PLAIN = frozenset(
    {
        "torch.nn.modules.container.ModuleList",
        "torch.nn.modules.linear.Linear",
        "torch.nn.modules.sparse.Embedding",
        "transformers.activations.SiLUActivation",
        "torch.nn.modules.activation.SiLU",
    }
)
_BLOCKS = frozenset(f"depthsched.blocks.modules.{name}" for name in ("BlockLinear", "BlockEmbedding"))
_TP_FORWARD = "install_forward.<locals>.tp_forward"  # of transformers' tensor parallelism
_SPLIT: dict[str, tuple[int | None, ...]] = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), (0,)),
    **dict.fromkeys(("o_proj", "down_proj"), (1,)),
    **dict.fromkeys(("embed_tokens", "lm_head"), (0, None)),
}
_CAPTURE = "transformers.utils.output_capturing"
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")


def why_not(adapter: Adapter, max_tokens: int, *, stored: bool = False) -> str | None:
    """What the model carries that a fast backend does not compute; None where it can run. Changes nothing.

    Parameters
    ----------
    adapter : Adapter
    max_tokens : int
        The most that a run holds, prompt included.
    stored : bool
        The backend reads weights in blocks and in int8 as they are stored.
    """
    return next(_obstacles(adapter, max_tokens, stored), None)


def _obstacles(adapter: Adapter, max_tokens: int, stored: bool) -> Iterator[str]:
    model, config, layers = adapter.model, adapter.config, [*adapter.layers]
    decoder: Any = adapter.decoder
    output = model.get_output_embeddings()
    yield from _other_classes(adapter, _CLASSES | _PLAIN | (_BLOCKS if stored else frozenset()))
    if getattr(config, "hidden_act", "silu") != "silu":
        yield f"the activation is {config.hidden_act}, not silu"
    if getattr(decoder.rotary_emb, "rope_type", "default") not in _STATIC_ROPE:
        yield f"RoPE of type {decoder.rotary_emb.rope_type!r} changes with the length"
    window = getattr(config, "sliding_window", None)
    if window is not None and max_tokens >= window and _slides(config, layers):
        yield f"the run of {max_tokens} tokens is longer than the sliding window of {window}"
    if model.training:
        yield "the model is in training mode; call model.eval()"
    if not isinstance(output, (nn.Linear, BlockLinear)) or not isinstance(
        decoder.embed_tokens, (nn.Embedding, BlockEmbedding)
    ):
        yield "the embedding or the LM head is not a plain module"
    elsewhere = next((name for name, module in model.named_modules() if offloads(module)), None)
    if elsewhere is not None:
        yield f"the weights of {elsewhere} lie in other memory or on disk, and are moved when it runs"
    split = stored and ranks_of(model) is not None
    for name, module in (("the model", model), *decoder.named_modules(), ("lm_head", output)):
        yield from _changes(name, module, split)
    yield from _other_split(adapter) if split else ()
    yield from _unusual_parameters(model, stored, split)
    shapes = [{name: _shape(module) for name, module in layer.named_modules()} for layer in layers]
    if any(row != shapes[0] for row in shapes):
        yield "the layers have different shapes"


def _slides(config: Any, layers: list[Any]) -> bool:
    return config.model_type == "mistral" or any(getattr(la.self_attn, "sliding_window", None) for la in layers)


def _other_classes(adapter: Adapter, known: frozenset[str]) -> Iterator[str]:
    """Modules that may compute anything: every one inside the model must be of a class that was read."""
    for name, module in adapter.model.named_modules():
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        if kind not in known:
            yield f"{name or 'the model'} is a {type(module).__name__}, no plain Llama, Mistral, Qwen2 or Qwen3 module"


def _changes(name: str, module: Any, split: bool = False) -> Iterator[str]:
    """Anything that changes what calling the module computes, but for what :func:`_other_split` looks at."""
    replaced = "forward" in vars(module) and not (
        split and getattr(module.forward, "__qualname__", "").endswith(_TP_FORWARD)
    )
    if replaced or hasattr(module, "_hf_hook"):
        yield f"{name} has its forward replaced, as a device map and attached runs do"
    if any(map(_acts, [*module._forward_hooks.values(), *module._forward_pre_hooks.values()])):
        yield f"{name} has forward hooks"


def _acts(hook: Any) -> bool:
    """False for those that transformers leaves on a model once it was asked for hidden states or attentions.

    They do nothing outside a call that asks for these, and a run of ours never does.
    """
    return getattr(hook, "__module__", None) != _CAPTURE


def _other_split(adapter: Adapter) -> Iterator[str]:
    """Weights that are split over ranks in another way than outputs, then inputs, of each half of a layer."""
    for name, module in adapter.model.named_modules():
        wanted = _SPLIT.get(name.rpartition(".")[2], (None,))
        for part, weight in module._parameters.items():
            dimension = None if weight is None else split_dimension(weight)
            if weight is not None and dimension not in (wanted if part == "weight" or wanted == (0,) else (None,)):
                yield f"{name}.{part} is split over ranks in dimension {dimension}, not {wanted[0]}"


def _unusual_parameters(model: Any, stored: bool, split: bool) -> Iterator[str]:
    places = {(p.device, p.dtype) for p in model.parameters()}
    if not split and any(is_shard(p) for p in model.parameters()):
        yield "its weights are split over ranks (tensor parallel), and on a GPU only eager runs such a model"
    plain = (
        type(p) is nn.Parameter or (split and is_shard(p)) or (stored and _whole_bytes(p)) for p in model.parameters()
    )
    if not all(plain):
        yield "some weights are not plain parameters (quantised or distributed)"
    if len(places) != 1:
        yield "the weights are spread over several devices or dtypes"
    device, dtype = next(iter(places))
    if device.type == "meta" or dtype not in (torch.float32, torch.bfloat16, torch.float16):
        yield f"weights in {dtype} on {device}"


def _whole_bytes(weight: Any) -> bool:
    """Whether a quantised weight is int8 with a scale for each output, in whole blocks of inputs."""
    return int8_rows(weight) is not None and weight.shape[-1] % 32 == 0


def _shape(module: Any) -> Any:
    """Sizes of a module of one of the known classes, the same for a matrix in blocks as for a dense one."""
    if isinstance(module, (nn.Linear, BlockLinear)):
        return module.in_features, module.out_features, module.bias is not None
    return [(name, tuple(p.shape)) for name, p in module._parameters.items() if p is not None]
