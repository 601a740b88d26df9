"""How much faster the staircase is than decoding step by step: ``python -m depthsched.score.paired --prompts FILE``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import DepthschedError
from ..plans import DepthPlan, plan
from .answers import Sample
from .load import load_samples
from .scorer import score

METHODS = ("staircase", "step-by-step")


def paired(model: Any, resolved: DepthPlan, samples: Sequence[Sample], repeats: int = 3) -> dict[str, Any]:
    """Score the same samples both ways, in turn, in this process.

    Both compute full depth and the plan from the tokens on; the first round warms up on one sample.

    Returns
    -------
    dict
        Seconds of every round, their ratio (median, least, most), and how far the two scores are apart.
    """
    for method in METHODS:
        score(model, [resolved], samples[:1], method=method)
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    results = {}
    for turn in range(repeats):
        for method in METHODS if turn % 2 == 0 else METHODS[::-1]:
            began = time.perf_counter()
            results[method] = score(model, [resolved], samples, method=method)[0]
            seconds[method].append(time.perf_counter() - began)
    one, other = (results[method] for method in METHODS)
    ratios = sorted(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    return {
        "schedule": resolved.schedule,
        "order": resolved.order,
        "profile": str(resolved.profile.folder) if resolved.profile else None,
        "prompts": one.prompts,
        "tokens": one.tokens,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "ratio": {"median": ratios[len(ratios) // 2], "low": ratios[0], "high": ratios[-1]},
        "kl": {method: result.kl.mean for method, result in results.items()},
        "kl_difference": abs(one.kl.mean - other.kl.mean),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m depthsched.score.paired", description=__doc__)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--schedule", default="constant:depth=20")
    parser.add_argument("--profile")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    try:
        model, samples = load_samples(given.model, given.prompts, given.limit, given.max_new_tokens)
        layers = model.config.get_text_config(decoder=True).num_hidden_layers
        resolved = plan(given.schedule, num_layers=layers, horizon=given.max_new_tokens, profile=given.profile)
        print(json.dumps(paired(model, resolved, samples, max(given.repeats, 1))))
    except DepthschedError as error:
        print(f"paired: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
