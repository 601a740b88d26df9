"""What batching saves in an evaluation.

The same items of a task, decoded in batches and one by one by turns, in one process and backend, with the prompts
computed beforehand: tokens per second of both, and whether the outputs are the same.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from depthsched.evaluate.evaluation import FULL, Evaluation
from depthsched.evaluate.options import EvalOptions
from depthsched.evaluate.results import TaskRun

from .common import Count, Tokens, numbers


def batching(
    data: Path,
    model: str = "smollm2",
    task: str = "gsm8k_cot",
    batches: str = "1,32",
    rounds: Count = 3,
    limit: Count = 32,
    max_new_tokens: Tokens = 64,
    dtype: str = "float32",
    backend: str = "eager",
) -> dict[str, Any]:
    """A task at full depth in each batch size by turns; all sizes are compared with the first."""
    options: dict[str, Any] = {
        "data": str(data), "limit": limit, "max_new_tokens": max_new_tokens, "dtype": dtype, "backend": backend,
    }  # fmt: skip
    sizes = numbers("--batches", batches)
    evaluations = {size: Evaluation(EvalOptions(model, (task,), batch=size, **options)) for size in sizes}
    for evaluation in evaluations.values():
        evaluation.run(FULL)  # loads, compiles and computes the prompts
    runs: dict[int, list[TaskRun]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, evaluation in evaluations.items():
            runs[size] += evaluation.run(FULL)
    first = runs[sizes[0]]
    rows = []
    for size in sizes:
        pairs = list(zip(runs[size], first, strict=True))
        ratios = [run.tokens_per_second / base.tokens_per_second for run, base in pairs]
        same = [a.output == b.output for run, base in pairs for a, b in zip(run.samples, base.samples, strict=True)]
        rows.append(
            {
                "batch": size,
                "tokens_per_second": statistics.median(run.tokens_per_second for run in runs[size]),
                "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
                "same_output": sum(same) / len(same),
            }
        )
    return {"task": task, "rounds": rounds, "items": len(first[0].samples), "rows": rows}
