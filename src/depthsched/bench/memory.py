"""Peak memory of one run in a process of its own: ``python -m depthsched.bench.memory [options]``.

In a process that measures several backends, each stands on what the others left behind. Here every one gets its
own: load the model, then run twice, compiling included. Loading is not counted, for it can hold a model twice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from .clock import peak_bytes, reset_peak
from .compare import BASELINE
from .inputs import bench_inputs
from .process import in_a_process

_NAME = "depthsched.bench.memory"


def compare_memory(backends: Sequence[str], **options: Any) -> dict[str, Any]:
    """Peak memory of each backend, compiling included and loading not.

    Parameters
    ----------
    backends : sequence of str
        ``transformers`` is its own ``generate``. All are compared with the first.
    options
        ``model``, ``dtype``, ``device``, ``plan``, ``batch``, ``tokens``.

    Returns
    -------
    dict
        The options and ``rows``: ``backend``, ``peak_memory_bytes``, ``ratio``.

    Raises
    ------
    ModelError
        A run failed.
    """
    peaks = {name: in_a_process(_NAME, {"backends": name, **options}) for name in backends}
    first = peaks[backends[0]]
    rows = [{"backend": name, "peak_memory_bytes": peak, "ratio": peak / first} for name, peak in peaks.items()]
    return {"kind": "memory", **options, "rows": rows}


def peak_of(backend: str, *, model: str, dtype: str, device: str, plan: str, batch: int, tokens: int) -> int:
    """Peak bytes of this process in two runs, the weights included."""
    from ..models import load_model
    from ..runtime.generate import generate

    loaded, tokenizer = load_model(model, dtype=dtype, device=device)
    inputs = bench_inputs(tokenizer, batch, loaded.device)
    loaded.generation_config.eos_token_id = None
    reset_peak(loaded.device)
    for _ in range(2):
        if backend == BASELINE:
            loaded.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        else:
            generate(loaded, inputs, plan, max_new_tokens=tokens, backend=backend, do_sample=False)
    return peak_bytes(loaded.device)


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(prog=f"python -m {_NAME}")
    parser.add_argument("--backends", default="transformers,eager,compiled")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plan", default="full")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    backends, one = given.pop("backends").split(","), given.pop("one")
    print(json.dumps(peak_of(backends[0], **given) if one else compare_memory(backends, **given)))


if __name__ == "__main__":
    main()
