"""A long run, block by block: does speed hold while the cache grows?

Tokens per second fall, because attention has more to read; bytes per second should not, and memory should grow by the
cache alone.
"""

from __future__ import annotations

from typing import Any

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bench.clock import peak_bytes
from depthsched.errors import SettingsError

from .common import Tokens, Watch, load


def long(
    model: str = "smollm2",
    dtype: str = "bfloat16",
    device: str = "auto",
    weights: str = "dense",
    plan: str = "d3:alpha=0.9999",
    backend: str = "compiled",
    tokens: Tokens = 4096,
    block: Tokens = 512,
) -> dict[str, Any]:
    """One long run after a short one that compiles: speed, bytes and memory of each full block of tokens."""
    if tokens < block:
        raise SettingsError(f"--tokens {tokens} fills no block of {block}; give at least --block")
    loaded, inputs = load(model, dtype, device, 1, weights)
    shape = adapter_for(loaded).shape()
    options: dict[str, Any] = {"backend": backend, "do_sample": False}
    ds.generate(loaded, inputs, plan, max_new_tokens=8, **options)
    memory = Watch(lambda: peak_bytes(loaded.device))
    run = ds.generate(loaded, inputs, plan, max_new_tokens=tokens, streamer=memory, **options)
    blocks, cost = [], run.cost
    for first in range(0, tokens - block + 1, block):
        steps = run.trace.steps[max(first, 1) : first + block]
        seconds = sum(step.seconds for step in steps)
        moved = float(cost.scheduled[max(first, 1) - 1 : first + block - 1].sum())
        blocks.append(
            {
                "tokens": first + block,
                "mean_depth": sum(step.depth for step in steps) / len(steps),
                "tokens_per_second": len(steps) / seconds,
                "gb_per_s": moved / seconds / 1e9,
                "peak_memory_bytes": memory.seen[first + block],
            }
        )
    return {
        "kind": "long",
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "weights": weights,
        "plan": plan,
        "tokens": tokens,
        "backend": run.trace.backend,
        "compile_seconds": run.trace.compile_seconds,
        "cache_bytes": block * shape.num_layers * shape.kv_values * shape.kv_bytes,
        "blocks": blocks,
    }
