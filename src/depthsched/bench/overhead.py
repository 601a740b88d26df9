"""What scheduling itself costs: the host work of a step that exists only because there is a plan."""

from __future__ import annotations

import time

from ..plans import DepthPlan
from ..runtime.trace import StepRecord, Trace

_ROUNDS = 20


def scheduling_seconds(plan: DepthPlan, steps: int) -> float:
    """Seconds a step for looking up its depth and keep set and writing it to the trace; the best of several rounds.

    The same calls as in a run, without the model between them. Adaptive plans also read signals from the logits,
    which is not counted here.
    """
    best = float("inf")
    for _ in range(_ROUNDS):
        trace, bridges = Trace(plan, "", ""), plan.bridges
        began = time.perf_counter()
        for step in range(1, steps):
            depth = plan.decide(step, None)
            set(plan.keep_sets[depth])
            bridges.get(depth, {})
            trace.steps.append(StepRecord(step, depth, time.perf_counter() - began, (0,), None))
        best = min(best, time.perf_counter() - began)
    return best / max(steps - 1, 1)
