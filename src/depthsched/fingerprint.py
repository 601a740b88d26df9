"""What tells one model from another: its configuration, and a sample of its weights."""

from __future__ import annotations

import json
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
    tied = getattr(model, "all_tied_weights_keys", {})  # offloaded ones are no longer the same parameter
    matrices = [(n, p) for n, p in sorted(model.named_parameters()) if p.dim() == 2 and not (p.is_meta and n in tied)]
    each = max(_SAMPLES // max(len(matrices), 1), 2)
    sample: list[float] = []
    for name, weight in matrices:
        flat = _values(model, name, weight).detach().reshape(-1)
        stride = max(flat.numel() // each, 1)
        # An odd offset, so that the sample is not all from one column.
        sample += flat[stride // 3 :: stride][:each].float().tolist()
    return sample


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
