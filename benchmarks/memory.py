"""Peak memory of backends, each in a process of its own.

In a process that measures several backends, each stands on what the others left behind. Here every one gets its
own: load the model, then run twice, compiling included. Loading is not counted, for it can hold a model twice.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

import depthsched as ds
from depthsched.bench.arms import BASELINE
from depthsched.bench.clock import peak_bytes, reset_peak

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
    lossless: Annotated[bool, typer.Option(help="Also each of depthsched's backends lossless, drafting 3.")] = False,
) -> dict[str, Any]:
    """Peak memory of each backend in a process of its own, compiling included and loading not.

    All are compared with the first; 'transformers' is its own generate.
    """
    options = {
        "model": model, "dtype": dtype, "device": device, "weights": weights, "plan": plan, "batch": batch,
        "tokens": tokens,
    }  # fmt: skip
    names = backends.split(",")
    arms = {name: {"backend": name, **options} for name in names}
    if lossless:
        arms |= {f"{n}, lossless": {"backend": n, **options, "draft_tokens": 3} for n in names if n != BASELINE}
    peaks = {name: in_a_process(peak_of, arm) for name, arm in arms.items()}
    first = next(iter(peaks.values()))
    rows = [{"backend": name, "peak_memory_bytes": peak, "ratio": peak / first} for name, peak in peaks.items()]
    return {"kind": "memory", **options, "rows": rows}


def peak_of(
    backend: str, model: str, dtype: str, device: str, weights: str, plan: str, batch: int, tokens: int,
    draft_tokens: int = 0,
) -> int:  # fmt: skip
    """Peak bytes of this process in two runs, the weights included."""
    loaded, inputs = load(model, dtype, device, batch, weights)
    how: dict[str, Any] = {"lossless": True, "draft_tokens": draft_tokens} if draft_tokens else {}
    reset_peak(loaded.device)
    for _ in range(2):
        if backend == BASELINE:
            loaded.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        else:
            ds.generate(loaded, inputs, plan, max_new_tokens=tokens, backend=backend, do_sample=False, **how)
    return peak_bytes(loaded.device)
