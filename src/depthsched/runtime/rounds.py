"""What happened in a lossless run: one record for every draft and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from ..cost import Cost, ModelShape
from ..drafts import expected_tokens
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
        further = shape.sent(plan.num_layers) * one.drafted * batch  # the check sends every position's states
        total += Cost(np.array([plain]), np.array([spent.total + further]))
        context += made
    return total


@dataclass(frozen=True)
class Payoff:
    """What drafting was worth, in plain steps at full depth.

    Attributes
    ----------
    acceptance : float
        Chance of a drafted token, given that those before it in its draft stayed.
    mean_drafted : float
        Tokens of a draft.
    draft_cost, verify_cost : float
        Of one drafted token, and of the pass that checks a draft.
    predicted : float
        Speed-up by :func:`~depthsched.drafts.draft_speedup` from the acceptance and the costs at each depth and length.
    measured : float
        Tokens that were kept over what they took.
    """

    acceptance: float
    mean_drafted: float
    draft_cost: float
    verify_cost: float
    predicted: float
    measured: float


def payoff(rounds: Sequence[Round], unit: float | None = None) -> Payoff | None:
    """What drafting was worth, or None where nothing was drafted or the time of a plain step is not known.

    Parameters
    ----------
    rounds : sequence of Round
    unit : float, optional
        Seconds of a plain step at full depth; left out, those of the run's own plain steps.
    """
    drafts, plain = [r for r in rounds if r.drafted], [r.verify_seconds for r in rounds if not r.drafted]
    # The mean, as the time of drafts is a sum too: the median of steps that now and then wait is some 5% lower.
    unit = fmean(plain) if unit is None and plain else unit
    if not drafts or not unit:
        return None
    groups: dict[tuple[int, int], list[Round]] = {}
    for one in drafts:
        groups.setdefault((one.depth, one.drafted), []).append(one)
    tokens = cost = float(len(plain))
    for (depth, drafted), some in groups.items():
        tokens += len(some) * expected_tokens(_share([r for r in drafts if r.depth == depth]), drafted)
        cost += sum(r.draft_seconds + r.verify_seconds for r in some) / unit
    made = sum(1 + sum(r.accepted) / len(r.accepted) for r in rounds)
    drafted = sum(r.drafted for r in drafts)
    return Payoff(
        acceptance=_share(drafts),
        mean_drafted=drafted / len(drafts),
        draft_cost=sum(r.draft_seconds for r in drafts) / drafted / unit,
        verify_cost=sum(r.verify_seconds for r in drafts) / len(drafts) / unit,
        predicted=tokens / cost,
        measured=made * unit / sum(r.draft_seconds + r.verify_seconds for r in rounds),
    )


def _share(rounds: Sequence[Round]) -> float:
    tried = sum(min(a + 1, r.drafted) for r in rounds for a in r.accepted)
    return sum(a for r in rounds for a in r.accepted) / tried if tried else 0.0


def summary(rounds: Sequence[Round], draft_tokens: str = "", decisions: Sequence[str] = ()) -> dict[str, Any]:
    """The numbers of a run that :meth:`Run.to_json` shows; ``payoff`` is None where it is not known."""
    drafted = sum(r.drafted * len(r.accepted) for r in rounds)
    accepted = sum(sum(r.accepted) for r in rounds)
    found = payoff(rounds)
    return {
        "draft_tokens": draft_tokens,
        "verify_passes": len(rounds),
        "drafted": drafted,
        "accepted": accepted,
        "acceptance": accepted / drafted if drafted else None,
        "acceptance_by_place": acceptance(rounds),
        "draft_seconds": sum(r.draft_seconds for r in rounds),
        "verify_seconds": sum(r.verify_seconds for r in rounds),
        "predicted_speedup": found.predicted if found else None,
        "measured_speedup": found.measured if found else None,
        "draft_cost": found.draft_cost if found else None,
        "verify_cost": found.verify_cost if found else None,
        "decisions": list(decisions),
    }


def report_lines(rounds: Sequence[Round], decisions: Sequence[str]) -> list[str]:
    """The same for people."""
    said = summary(rounds)
    share = f", {said['acceptance']:.0%} of" if said["drafted"] else ", of"
    lines = [f"{len(rounds)} passes at full depth{share} {said['drafted']} drafted tokens accepted"]
    if said["acceptance_by_place"]:
        places = " ".join(f"{share:.0%}" for share in said["acceptance_by_place"])
        lines.append(f"accepted, of drafts that were right so far, by place: {places}")
    found = payoff(rounds)
    if found:
        lines.append(
            f"predicted {found.predicted:.2f}x and measured {found.measured:.2f}x of this run's plain steps "
            f"(draft step {found.draft_cost:.2f}, check {found.verify_cost:.2f} of one)"
        )
    return lines + list(decisions)
