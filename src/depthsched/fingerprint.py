"""What tells one model from another: its configuration, and a sample of its weights."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from .errors import ProfileError
from .files import digest

_SAMPLES = 512
_VOLATILE = (
    "transformers_version", "dtype", "torch_dtype", "_name_or_path", "_attn_implementation", "architectures",
    "distributed_config",
)  # fmt: skip


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
    places = {name: _spread(math.prod(weight.shape), each) for name, weight in matrices.items()}
    sample = _in_blocks({name: (matrix, places[name]) for name, matrix in in_blocks.items()})
    split = [name for name in sorted(matrices) if name not in in_blocks and hasattr(matrices[name], "placements")]
    sample |= _of_all_ranks(model, {name: (matrices[name], places[name]) for name in split})
    for name in matrices.keys() - sample.keys():
        taken = _values(model, name, matrices[name]).detach().reshape(-1)
        sample[name] = taken[places[name].start : places[name].stop : places[name].step].float().tolist()
    return [value for name in sorted(matrices) for value in sample[name]]


def _spread(size: int, count: int) -> range:
    """That many places of a matrix at equal distances, or all where it has fewer."""
    stride = max(size // count, 1)
    return range(stride // 3, size, stride)[:count]  # an odd offset, so that the sample is not all from one column


def _in_blocks(wanted: dict[str, tuple[Any, range]]) -> dict[str, list[float]]:
    """Some weights of matrices in blocks, counted row by row."""
    from .blocks.matrix import entries

    for name, (matrix, _) in wanted.items():
        if matrix.quants.is_meta:
            raise ProfileError(f"weight {name} is on the meta device, without its values; load the model's weights")
    return dict(zip(wanted, entries([*wanted.values()]), strict=True))


def _of_all_ranks(model: Any, wanted: dict[str, tuple[Any, range]]) -> dict[str, list[float]]:
    """Some values of matrices that are split over ranks, the same on each."""
    if not wanted:
        return {}
    import torch

    from .parallel.ranks import ranks_of
    from .parallel.shards import entries

    ranks = ranks_of(model)
    assert ranks is not None, "only ranks share a matrix"
    found = torch.cat([entries(weight, places, ranks) for weight, places in wanted.values()]).to(model.device)
    ranks.reduce(found)
    counts = [len(places) for _, places in wanted.values()]
    return {name: part.tolist() for name, part in zip(wanted, torch.split(found, counts), strict=True)}


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


@dataclass(frozen=True)
class ModelIdentity:
    """What a profile records to know its model again: :func:`config_digest` and :func:`weights_sample`."""

    name: str
    num_layers: int
    hidden_size: int
    config: str
    weights: tuple[float, ...]

    @classmethod
    def of(cls, model: Any, name: str) -> ModelIdentity:
        """The identity of a loaded model."""
        config = model.config.get_text_config(decoder=True)
        return cls(
            name, config.num_hidden_layers, config.hidden_size, config_digest(model), tuple(weights_sample(model))
        )

    def difference(self, model: Any) -> str | None:
        """What tells a loaded model from this one, if anything does. The dtype may differ."""
        if config_digest(model) != self.config:
            return "configuration differs"
        sample = weights_sample(model)
        # A weight rounds by at most 2**-8 of itself when a model is loaded in bfloat16.
        same = len(sample) == len(self.weights) and all(
            math.isclose(a, b, rel_tol=2**-7, abs_tol=1e-6) for a, b in zip(sample, self.weights, strict=True)
        )
        return None if same else "weights differ"
