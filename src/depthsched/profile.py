"""What calibration found for one model. Imports no torch until tensors are asked for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_SAMPLES = 512
_VOLATILE = ("transformers_version", "dtype", "torch_dtype", "_name_or_path", "_attn_implementation", "architectures")


def config_digest(model: Any) -> str:
    """Hash of a model's configuration, without what a save or a load changes."""
    config = {k: v for k, v in model.config.get_text_config(decoder=True).to_dict().items() if k not in _VOLATILE}
    return _digest(json.dumps(config, sort_keys=True, default=str))


def weights_sample(model: Any) -> list[float]:
    """A few weights of every matrix of the model, spread evenly, in the order of their names."""
    matrices = [(n, p) for n, p in sorted(model.named_parameters()) if p.dim() == 2]
    each = max(_SAMPLES // max(len(matrices), 1), 2)
    sample: list[float] = []
    for _, weight in matrices:
        flat = weight.detach().reshape(-1)
        stride = max(flat.numel() // each, 1)
        # An odd offset, so that the sample is not all from one column.
        sample += flat[stride // 3 :: stride][:each].float().tolist()
    return sample


def weights_digest(model: Any) -> str:
    """Hash of :func:`weights_sample` and the configuration; differs between dtypes."""
    return _digest(config_digest(model) + json.dumps(weights_sample(model)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
