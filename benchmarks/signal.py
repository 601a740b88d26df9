"""Which tasks can tell on a model: score and spread at full depth, and what a difference of one point would take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from depthsched.environment import versions
from depthsched.evaluate.evaluation import FULL, Evaluation
from depthsched.evaluate.layouts import layout_of
from depthsched.evaluate.options import EvalOptions
from depthsched.evaluate.results import TaskRun
from depthsched.evaluate.statistics import paired

POINT, FACTOR = 0.01, 1.645 + 0.842
"""One-sided 5%, and 80% power."""


def signal(
    data: Annotated[Path, typer.Argument(help="Folder of local data.")],
    tasks: Annotated[
        str, typer.Option(help="Separated by commas; patterns match.")
    ] = "ifeval,xquad_en,gsm8k_cot,bbh_cot_fewshot",
    plan: Annotated[
        str, typer.Option(help="Beside full depth, one that is known to lose.")
    ] = "constant:depth=20@early-exit",
    limit: Annotated[int, typer.Option(help="Items of each task.")] = 40,
    max_new_tokens: Annotated[int, typer.Option()] = 128,
    chat: Annotated[bool, typer.Option(help="With the chat template.")] = False,
    model: Annotated[str, typer.Option()] = "smollm2",
    dtype: Annotated[str, typer.Option()] = "bfloat16",
    batch: Annotated[int, typer.Option()] = 20,
    out: Annotated[Path | None, typer.Option(help="Keep answers here.")] = None,
) -> dict[str, Any]:
    """Score, spread and items for one point of each task's first metric, and what the plan loses."""
    options = EvalOptions(
        model, tuple(tasks.split(",")), str(data), limit, max_new_tokens, dtype=dtype, batch=batch, chat=chat
    )
    evaluation = Evaluation(options, out)
    fulls, others = evaluation.run(FULL), evaluation.run(plan)
    rows = [_row(full, other) for full, other in zip(fulls, others, strict=True)]
    settings = {"model": model, "dtype": dtype, "max_new_tokens": max_new_tokens, "chat": chat, "limit": limit}
    return {"rows": rows, "plan": plan, **settings, "versions": versions()}


def _row(full: TaskRun, other: TaskRun) -> dict[str, Any]:
    layout = layout_of(full.task)
    metric = next(name for name in full.metrics if layout is None or name.startswith(layout.metric))
    theirs, ours = (np.array([item.scores[metric] for item in run.samples]) for run in (full, other))
    spread, changed = float(theirs.std()), float((ours - theirs).std())
    return {
        "task": full.task,
        "metric": metric,
        "n": len(theirs),
        "score": float(theirs.mean()),
        "error": spread / math.sqrt(len(theirs)),
        "spread": spread,
        "items_apart": _items(math.sqrt(2) * spread),  # two answers that have nothing in common but their score
        "plan_spread": changed,
        "items_paired": _items(changed),
        "paired": paired(ours.tolist(), theirs.tolist()).to_json(),
    }


def _items(spread: float) -> int:
    return math.ceil((FACTOR * spread / POINT) ** 2)
