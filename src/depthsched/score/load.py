"""A model and prompts with their completions, from the words of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..models import load_model
from ..parallel import launch
from ..work.cluster import Cluster
from .answers import Progress, Sample, own_answers
from .prompts import read_prompts


def load_samples(
    model: str,
    prompts: str | Path,
    limit: int | None = None,
    max_new_tokens: int = 128,
    *,
    raw: bool = False,
    dtype: str = "float32",
    device: str = "auto",
    weights: str = "auto",
    device_map: Any = None,
    offload_folder: str | Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> tuple[Any, Any, list[Sample]]:
    """The model, its tokenizer, and the prompts of a file with their completions.

    Parameters
    ----------
    model, dtype, device, weights, device_map, offload_folder
        As for :func:`depthsched.load_model`; under ``torchrun`` with ``tensor_parallel``.
    prompts, limit
        As for :func:`read_prompts`, which runs first: a wrong file costs no loading.
    max_new_tokens, raw, progress, cluster
        As for :func:`own_answers`.
    """
    rows = read_prompts(prompts, limit)
    places = {"device_map": device_map, "offload_folder": offload_folder}
    split = launch.world() > 1
    loaded, tokenizer = load_model(model, dtype=dtype, device=device, weights=weights, tensor_parallel=split, **places)
    samples = own_answers(
        loaded, tokenizer, rows, max_new_tokens=max_new_tokens, raw=raw, progress=progress, cluster=cluster
    )
    return loaded, tokenizer, samples
