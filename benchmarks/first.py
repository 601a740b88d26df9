"""The first token: what a prompt costs in the compiled backend and in transformers' own generate, by turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

import depthsched as ds
from depthsched.stats import Interval

from .common import Count, load


def first(
    model: str = "smollm2",
    dtype: str = "bfloat16",
    device: str = "auto",
    weights: str = "dense",
    batch: Count = 1,
    rounds: Count = 9,
) -> dict[str, Any]:
    """Seconds to the first token in rounds by turns, after one that warms up; dense weights for transformers."""
    loaded, inputs = load(model, dtype, device, batch, weights)
    dense = loaded if weights == "dense" else load(model, dtype, device, batch)[0]

    def ours() -> ds.Run:
        return ds.generate(loaded, inputs, max_new_tokens=1, backend="compiled", do_sample=False)

    def theirs() -> Any:
        return dense.generate(**inputs, max_new_tokens=1, do_sample=False)

    ran, _ = ours().trace.backend, theirs()
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    return {
        "kind": "first",
        "dtype": dtype,
        "weights": weights,
        "batch": batch,
        "backend": ran,
        "prompt_tokens": inputs["input_ids"].shape[1],
        "threads": torch.get_num_threads(),
        "rows": [
            {
                "seconds": Interval.of([a for a, _ in pairs]).to_json(),
                "transformers": Interval.of([b for _, b in pairs]).to_json(),
                "ratio": Interval.of([a / b for a, b in pairs]).to_json(),
            }
        ],
    }


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
