"""How much faster the staircase is than decoding step by step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.score import load_samples, score

from .common import Count, Tokens

METHODS = ("staircase", "step-by-step")


def paired(
    prompts: Annotated[Path, typer.Option()],
    schedule: str = "constant:depth=20",
    profile: str | None = None,
    model: str = "smollm2",
    limit: Count = 16,
    max_new_tokens: Tokens = 128,
    repeats: Count = 3,
) -> dict[str, Any]:
    """Seconds to score a plan in one pass and step by step, alternating in one process, and how far the scores differ.

    Both compute full depth and the plan from the tokens on; the first round warms up on one sample.
    """
    loaded, _, samples = load_samples(model, prompts, limit, max_new_tokens)
    layers = adapter_for(loaded).num_layers
    resolved = ds.plan(schedule, num_layers=layers, horizon=max_new_tokens, profile=profile)
    for method in METHODS:
        score(loaded, [resolved], samples[:1], method=method)
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    results = {}
    for turn in range(repeats):
        for method in METHODS if turn % 2 == 0 else METHODS[::-1]:
            began = time.perf_counter()
            results[method] = score(loaded, [resolved], samples, method=method)[0]
            seconds[method].append(time.perf_counter() - began)
    one, other = (results[method] for method in METHODS)
    ratios = sorted(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    return {
        "schedule": resolved.schedule,
        "order": resolved.order,
        "profile": resolved.profile.place if resolved.profile else None,
        "prompts": one.prompts,
        "tokens": one.tokens,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "ratio": {"median": ratios[len(ratios) // 2], "low": ratios[0], "high": ratios[-1]},
        "kl": {method: result.kl.mean for method, result in results.items()},
        "kl_difference": abs(one.kl.mean - other.kl.mean),
    }
