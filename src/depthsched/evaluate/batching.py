"""What batching saves in an evaluation: ``python -m depthsched.evaluate.batching DATA [options]``.

The same items of a task, decoded in batches and one by one by turns, in one process and backend, with the prompts
computed beforehand: tokens per second of both, and whether the outputs are the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from .evaluation import FULL, Evaluation
from .results import TaskRun


def compare_batches(task: str, batches: tuple[int, ...], rounds: int, **options: Any) -> dict[str, Any]:
    """Run a task at full depth in each batch size by turns.

    Returns
    -------
    dict
        For each batch size the median tokens per second, its ratio to the first, and the share of items with the
        output of the first.
    """
    evaluations = {batch: Evaluation(options["model"], [task], batch=batch, **_rest(options)) for batch in batches}
    for evaluation in evaluations.values():
        evaluation.run(FULL)  # loads, compiles and computes the prompts
    runs: dict[int, list[TaskRun]] = {batch: [] for batch in batches}
    for _ in range(rounds):
        for batch, evaluation in evaluations.items():
            runs[batch] += evaluation.run(FULL)
    first = runs[batches[0]]
    rows = []
    for batch in batches:
        pairs = list(zip(runs[batch], first, strict=True))
        ratios = [run.tokens_per_second / base.tokens_per_second for run, base in pairs]
        same = [a.output == b.output for run, base in pairs for a, b in zip(run.samples, base.samples, strict=True)]
        rows.append(
            {
                "batch": batch,
                "tokens_per_second": statistics.median(run.tokens_per_second for run in runs[batch]),
                "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
                "same_output": sum(same) / len(same),
            }
        )
    return {"task": task, "rounds": rounds, "items": len(first[0].samples), "rows": rows}


def _rest(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "model"}


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(prog="python -m depthsched.evaluate.batching")
    parser.add_argument("data")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--task", default="gsm8k_cot")
    parser.add_argument("--batches", default="1,32", help="the first is what the others are compared with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="eager")
    given = vars(parser.parse_args())
    batches = tuple(int(part) for part in given.pop("batches").split(","))
    print(json.dumps(compare_batches(given.pop("task"), batches, given.pop("rounds"), **given)))


if __name__ == "__main__":
    main()
