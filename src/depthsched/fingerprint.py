"""What tells one model from another: its configuration, and a sample of its weights."""

from __future__ import annotations

import json
import math
from typing import Any

from .errors import ProfileError
from .files import digest

_SAMPLES = 512
_VOLATILE = ("transformers_version", "dtype", "torch_dtype", "_name_or_path", "_attn_implementation", "architectures")


def config_digest(model: Any) -> str:
    """Hash of a model's configuration, without what a save or a load changes."""
    config = {k: v for k, v in model.config.get_text_config(decoder=True).to_dict().items() if k not in _VOLATILE}
    return digest(json.dumps(config, sort_keys=True, default=str))


def weights_sample(model: Any) -> list[float]:
    """A few weights of every matrix of the model, spread evenly, in the order of their names."""
    from .blocks.modules import block_matrices

    tied = getattr(model, "all_tied_weights_keys", {})  # offloaded ones are no longer the same parameter
    matrices: dict[str, Any] = {
        n: p for n, p in model.named_parameters() if p.dim() == 2 and not (p.is_meta and n in tied)
    }
    in_blocks = block_matrices(model)
    matrices |= in_blocks
    each = max(_SAMPLES // max(len(matrices), 1), 2)
    sample: list[float] = []
    for name, weight in sorted(matrices.items()):
        size = math.prod(weight.shape)
        stride = max(size // each, 1)
        taken = slice(stride // 3, size, stride)  # an odd offset, so that the sample is not all from one column
        if name in in_blocks:
            sample += _in_blocks(name, weight, list(range(size)[taken][:each]))
        else:
            sample += _values(model, name, weight).detach().reshape(-1)[taken][:each].float().tolist()
    return sample


def _in_blocks(name: str, matrix: Any, positions: list[int]) -> list[float]:
    """Some weights of a matrix in blocks, counted row by row."""
    import torch

    if matrix.quants.is_meta:
        raise ProfileError(f"weight {name} is on the meta device, without its values; load the model's weights")
    places = torch.tensor(positions, device=matrix.quants.device)
    rows = matrix.rows_of(places // matrix.columns)
    values: list[float] = rows.gather(1, (places % matrix.columns)[:, None]).flatten().tolist()
    return values


def _values(model: Any, name: str, weight: Any) -> Any:
    """A weight as a plain tensor: read from where accelerate offloaded it, and dequantised where that is needed."""
    if weight.is_meta:
        owner, _, key = name.rpartition(".")
        hook = getattr(model.get_submodule(owner), "_hf_hook", None)
        maps = [getattr(one, "weights_map", None) for one in getattr(hook, "hooks", [hook])]
        if not any(maps):
            raise ProfileError(f"weight {name} is on the meta device and was never loaded; load the model's weights")
        weight = next(held for held in maps if held)[key]
    return weight.dequantize() if hasattr(weight, "__tensor_flatten__") else weight


def weights_digest(model: Any) -> str:
    """Hash of :func:`weights_sample` and the configuration; differs between dtypes."""
    return digest(config_digest(model) + json.dumps(weights_sample(model)))
