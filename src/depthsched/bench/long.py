"""A long run, block by block: ``python -m depthsched.bench.long [options]``.

Does speed hold while the cache grows? Tokens a second fall, because attention has more to read; bytes a second
should not, and memory should grow by the cache alone.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from .clock import peak_bytes
from .inputs import bench_inputs


class _Memory:
    """A streamer that notes the peak memory so far whenever a block is full."""

    def __init__(self, block: int, device: Any) -> None:
        self.block, self.device, self.puts, self.peaks = block, device, -1, list[int]()

    def put(self, tokens: Any) -> None:
        self.puts += 1  # the first is the prompt
        if self.puts and self.puts % self.block == 0:
            self.peaks.append(peak_bytes(self.device))

    def end(self) -> None:
        """Nothing is held back."""


def long_run(model: Any, inputs: Any, plan: str, backend: str, tokens: int, block: int) -> dict[str, Any]:
    """One run after a short one that compiles.

    Returns
    -------
    dict
        ``compile_seconds`` of the long run, ``cache_bytes`` of a block at full depth, and ``blocks``: ``tokens``,
        ``mean_depth``, ``tokens_per_second``, ``gb_per_s``, ``peak_memory_bytes``.
    """
    from ..adapters import adapter_for
    from ..runtime.generate import generate

    shape = adapter_for(model).shape()
    model.generation_config.eos_token_id = None
    options: dict[str, Any] = {"backend": backend, "do_sample": False}
    generate(model, inputs, plan, max_new_tokens=8, **options)
    memory = _Memory(block, model.device)
    run = generate(model, inputs, plan, max_new_tokens=tokens, streamer=memory, **options)
    blocks = []
    for peak, first in zip(memory.peaks, range(0, tokens, block), strict=False):
        steps = run.trace.steps[max(first, 1) : first + block]
        seconds = sum(step.seconds for step in steps)
        moved = run.cost.scheduled[max(first, 1) - 1 : first + block - 1].sum()
        blocks.append(
            {
                "tokens": first + block,
                "mean_depth": sum(step.depth for step in steps) / len(steps),
                "tokens_per_second": len(steps) / seconds,
                "gb_per_s": moved / seconds / 1e9,
                "peak_memory_bytes": peak,
            }
        )
    return {
        "kind": "long",
        "dtype": str(model.dtype).removeprefix("torch."),
        "plan": plan,
        "backend": run.trace.backend,
        "compile_seconds": run.trace.compile_seconds,
        "cache_bytes": block * shape.num_layers * shape.kv_values * shape.kv_bytes,
        "blocks": blocks,
    }


def main() -> None:
    """Print the run as JSON."""
    from ..models import load_model

    parser = argparse.ArgumentParser(prog="python -m depthsched.bench.long")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plan", default="d3:alpha=0.9999")
    parser.add_argument("--backend", default="compiled")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--block", type=int, default=512)
    given = parser.parse_args()
    model, tokenizer = load_model(given.model, dtype=given.dtype, device=given.device)
    inputs = bench_inputs(tokenizer, 1, model.device)
    print(json.dumps(long_run(model, inputs, given.plan, given.backend, given.tokens, given.block)))


if __name__ == "__main__":
    main()
