"""Peak memory of backends, each in a process of its own.

In a process that measures several backends, each stands on what the others left behind. Here every one gets its
own: load the model, then run twice, compiling included. Loading is not counted, for it can hold a model twice.
"""

from __future__ import annotations

from typing import Any

import depthsched as ds
from depthsched.bench.clock import peak_bytes, reset_peak
from depthsched.bench.compare import BASELINE

from .common import Count, Tokens, load
from .process import in_a_process


def memory(
    backends: str = f"{BASELINE},eager,compiled",
    model: str = "smollm2",
    dtype: str = "float32",
    device: str = "auto",
    weights: str = "dense",
    plan: str = "full",
    batch: Count = 1,
    tokens: Tokens = 128,
) -> dict[str, Any]:
    """Peak memory of each backend in a process of its own, compiling included and loading not.

    All are compared with the first; 'transformers' is its own generate.
    """
    options = {
        "model": model, "dtype": dtype, "device": device, "weights": weights, "plan": plan, "batch": batch,
        "tokens": tokens,
    }  # fmt: skip
    peaks = {name: in_a_process(peak_of, {"backend": name, **options}) for name in backends.split(",")}
    first = next(iter(peaks.values()))
    rows = [{"backend": name, "peak_memory_bytes": peak, "ratio": peak / first} for name, peak in peaks.items()]
    return {"kind": "memory", **options, "rows": rows}


def peak_of(backend: str, model: str, dtype: str, device: str, weights: str, plan: str, batch: int, tokens: int) -> int:
    """Peak bytes of this process in two runs, the weights included."""
    loaded, inputs = load(model, dtype, device, batch, weights)
    reset_peak(loaded.device)
    for _ in range(2):
        if backend == BASELINE:
            loaded.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        else:
            ds.generate(loaded, inputs, plan, max_new_tokens=tokens, backend=backend, do_sample=False)
    return peak_bytes(loaded.device)
