"""Is a plan within a margin of full depth over several tasks? Pooled paired differences and an equivalence test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..stats import CONFIDENCE, Values

MARGIN = 0.01
"""One point."""

Decision = Literal["yes", "no", "better", "undecided"]
Pairs = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""By task, the scores of the same items under the plan and at full depth."""

_RESAMPLES = 10_000
_UNSEEN = 4  # items added to the spread, half of them wins: what a sample in which nothing changed may not have seen
_POWER = 0.8


@dataclass(frozen=True)
class Pooled:
    """The weighted mean of tasks' paired differences, and what it says of a margin. Scores are shares.

    Attributes
    ----------
    n : int
        Items of all tasks.
    score, full, diff : float
        Weighted means under the plan and at full depth, and the former less the latter.
    low, high : float
        95% interval of the difference, two-sided.
    lower, upper : float
        Bounds that each hold at 95%; the decision is theirs.
    margin : float
    decision : str
        Two one-sided tests (Schuirmann 1987), each at 5%. ``yes``: neither worse nor better by the margin or more.
        ``no``: worse by more than the margin. ``better``: better by more than the margin. ``undecided``: none is shown.
    needs : int or None
        Of an undecided one: items, in the same proportions, that settle it in 80% of samples if the true
        difference and spread are those seen.
    method : str
        ``bootstrap``, for a number of items fixed beforehand, or ``betting``, for one that the data decide.
    weights : dict
        By task; they sum to 1.
    tasks : dict
        The difference of each task.
    """

    n: int
    score: float
    full: float
    diff: float
    low: float
    high: float
    lower: float
    upper: float
    margin: float
    decision: Decision
    needs: int | None
    method: str
    weights: dict[str, float]
    tasks: dict[str, float]

    def verdict(self) -> str:
        """One sentence, in points of 100."""
        spoken = f"within {points(self.margin)} at 95%: {self.decision}"
        if self.decision == "no":
            return f"{spoken}, worse by at least {100 * -self.upper:.1f}"
        if self.decision == "better":
            return f"within {points(self.margin)} at 95%: better than that, by at least {100 * self.lower:.1f}"
        if self.decision == "undecided":
            return f"{spoken}, needs about {rounded(self.needs or 0)} items if what {self.n} show is so"
        return spoken

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict()}


def pooled(
    pairs: Pairs, *, weights: Mapping[str, float] | None = None, margin: float = MARGIN, seed: int = 0
) -> Pooled:
    """Pool tasks whose numbers of items were fixed beforehand.

    The interval is that of a bootstrap over items within tasks (10 000 resamples). A sample in which few items changed
    resamples to next to nothing, so the bounds are at least as wide as those of a normal interval to whose
    spread two wins and two losses are added (after Agresti and Coull 1998, doi 10.1080/00031305.1998.10480550).

    Parameters
    ----------
    pairs : mapping
        By task, scores in [0, 1] of the same items under the plan and at full depth.
    weights : mapping, optional
        Of the tasks, chosen before the scores were seen; equal ones where left out.
    margin : float
        As a share: 0.01 is one point.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ValueError
        No tasks or items, scores outside [0, 1] or of other lengths, weights that are not positive or are of other
        tasks, a margin outside (0, 1).
    """
    diffs = differences(pairs)
    share = normal_weights(diffs, weights, margin)
    rng = np.random.default_rng(seed)
    means = sum((share[task] * _resampled_means(x, rng) for task, x in diffs.items()), start=np.zeros(_RESAMPLES))
    diff = sum(share[task] * float(x.mean()) for task, x in diffs.items())
    error = math.sqrt(sum(share[task] ** 2 * _variance(x, share[task]) for task, x in diffs.items()))

    def bound(level: float) -> float:
        drawn, normal = float(np.quantile(means, level)), diff + _quantile(level) * error
        return float(np.clip(min(drawn, normal) if level < 0.5 else max(drawn, normal), -1, 1))

    tail = 1 - CONFIDENCE
    lower, upper = bound(tail), bound(1 - tail)
    decision = decide(lower, upper, margin)
    n = sum(map(len, diffs.values()))
    factor = _quantile(1 - tail) + _quantile(_POWER)
    return Pooled(
        n=n,
        **means_of(pairs, share),
        low=bound(tail / 2),
        high=bound(1 - tail / 2),
        lower=lower,
        upper=upper,
        margin=margin,
        decision=decision,
        needs=items_needed(n * error**2 * factor**2, diff, margin) if decision == "undecided" else None,
        method="bootstrap",
        weights=share,
        tasks={task: float(x.mean()) for task, x in diffs.items()},
    )


def decide(lower: float, upper: float, margin: float) -> Decision:
    """What two one-sided bounds say of a margin."""
    if upper < -margin:
        return "no"
    if lower > margin:
        return "better"
    return "yes" if -margin < lower and upper < margin else "undecided"


def items_needed(scale: float, diff: float, margin: float) -> int:
    """``scale`` over the square of the distance to the nearer margin, taken as a tenth of the margin at least."""
    return math.ceil(scale / max(abs(abs(diff) - margin), margin / 10) ** 2)


def differences(pairs: Pairs) -> dict[str, Values]:
    """Plan less full depth, item by item.

    Raises
    ------
    ValueError
    """
    found = {}
    for task, (plan, full) in pairs.items():
        a, b = np.asarray(plan, dtype=float), np.asarray(full, dtype=float)
        if a.shape != b.shape or a.ndim != 1 or not len(a):
            raise ValueError(f"{task}: give one score an item under the plan and at full depth, at least one item")
        if not ((a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)).all():
            raise ValueError(f"{task}: scores must lie between 0 and 1")
        found[task] = a - b
    if not found:
        raise ValueError("no tasks to pool")
    return found


def normal_weights(tasks: Mapping[str, Any], weights: Mapping[str, float] | None, margin: float) -> dict[str, float]:
    """Weights that sum to 1.

    Raises
    ------
    ValueError
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin} must lie between 0 and 1; 0.01 is one point")
    given = dict(weights) if weights is not None else dict.fromkeys(tasks, 1.0)
    if set(given) != set(tasks) or not all(0 < w < math.inf for w in given.values()):
        raise ValueError(f"give one positive weight for each of {', '.join(tasks)}")
    return {task: given[task] / sum(given.values()) for task in tasks}


def means_of(pairs: Pairs, share: Mapping[str, float]) -> dict[str, float]:
    """``score``, ``full`` and ``diff``."""
    score, full = (sum(w * float(np.mean(pairs[task][side])) for task, w in share.items()) for side in (0, 1))
    return {"score": score, "full": full, "diff": score - full}


def points(share: float) -> str:
    value = f"{100 * share:g}"
    return f"{value} point" if value == "1" else f"{value} points"


def rounded(number: float) -> str:
    """A number of items to two digits: it is no more certain than that."""
    step = 10 ** max(len(str(round(number))) - 2, 0)
    return f"{math.ceil(number / step) * step}"


def _resampled_means(diff: Values, rng: np.random.Generator) -> Values:
    """How often each value is drawn is all that a mean sees, and right-or-wrong scores have three."""
    values, counts = np.unique(diff, return_counts=True)
    drawn = rng.multinomial(len(diff), counts / len(diff), size=_RESAMPLES)
    means: Values = drawn @ values / len(diff)
    return means


def _variance(diff: Values, share: float) -> float:
    """Of a mean, with the task's share of the items that were not seen."""
    unseen = _UNSEEN * share
    return float((diff.var() * len(diff) + unseen) / (len(diff) + unseen)) / (len(diff) + unseen)


def _quantile(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(level))
