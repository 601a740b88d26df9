"""What happened in a lossless run: one record for every draft and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cost import Cost, ModelShape
from ..plans import DepthPlan


@dataclass(frozen=True)
class Round:
    """One draft and the pass that checked it.

    Attributes
    ----------
    depth : int
        Layers that each draft step ran.
    drafted : int
        Tokens proposed in each row; 0 for a plain step at full depth.
    accepted : tuple of int
        Drafted tokens that stayed, of each row that was still running.
    draft_seconds, verify_seconds : float
        Host time of the draft steps together, and of the full-depth pass over ``drafted + 1`` tokens.
    """

    depth: int
    drafted: int
    accepted: tuple[int, ...]
    draft_seconds: float
    verify_seconds: float


def acceptance(rounds: Sequence[Round]) -> list[float]:
    """Share of drafts whose token at each place stayed, among those that had all tokens before it accepted.

    ``acceptance(rounds)[0]`` is the chance of the first drafted token, as far as it was tried.
    """
    most = max((r.drafted for r in rounds), default=0)
    found = []
    for place in range(most):
        tried = [a for r in rounds if r.drafted > place for a in r.accepted if a >= place]
        if not tried:
            break
        found.append(sum(a > place for a in tried) / len(tried))
    return found


def lossless_cost(plan: DepthPlan, shape: ModelShape, rounds: Sequence[Round], prompt_tokens: int, batch: int) -> Cost:
    """Bytes that each round moved, and those of its tokens as plain steps at full depth.

    A pass that checks several tokens reads the weights once. In a batch, rows are taken to be as long as the mean one.
    """
    total, context = Cost(), float(prompt_tokens)
    for one in rounds:
        made = 1 + sum(one.accepted) / len(one.accepted)
        depths = [one.depth] * one.drafted + [plan.num_layers]
        spent = plan.cost(shape, depths, round(context), batch=batch, writes=False)
        plain = plan.cost(shape, [plan.num_layers], round(context), batch=batch, writes=False).total_full * made
        total += Cost(np.array([plain]), np.array([spent.total]))
        context += made
    return total


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """The numbers of a run that :meth:`Run.to_json` shows."""
    drafted = sum(r.drafted * len(r.accepted) for r in rounds)
    accepted = sum(sum(r.accepted) for r in rounds)
    return {
        "verify_passes": len(rounds),
        "drafted": drafted,
        "accepted": accepted,
        "acceptance": accepted / drafted if drafted else None,
        "acceptance_by_place": acceptance(rounds),
        "draft_seconds": sum(r.draft_seconds for r in rounds),
        "verify_seconds": sum(r.verify_seconds for r in rounds),
    }
