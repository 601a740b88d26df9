"""Items until a question is settled: bounds of a pooled difference that hold however often one looks.

Testing by betting (Waudby-Smith and Ramdas 2023, arXiv 2010.09686). Against "the mean is at most m" one starts with a
capital of 1 and bets on every item x in [-1, 1] that it lies above m: the capital times 1 + g (x - m) / (1 + m), for a
share g in [0, 1]. If the mean is at most m, the capital is expected not to grow, so that by Ville's inequality it ever
reaches 20 with probability 5% at most. Here it is spread over several shares, as in the paper's "diversified Kelly
betting", which needs no tuning; their mean is a test as well. Where it has reached 20, m is excluded from then on.

For several tasks the task of each item is drawn by its weight, then the item without repetition: every difference
has the weighted mean as its expectation, whatever the tasks' own means are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..files import digest
from ..stats import CONFIDENCE, Values
from .pooling import MARGIN, Decision, Pairs, Pooled, differences, items_needed, means_of, normal_weights

_SHARES = 2.0 ** -np.arange(9)
_HAIR = 1 - 1e-9  # an item at the very end of its range leaves a trace of the capital


def draw_order(sizes: Mapping[str, int], weights: Mapping[str, float], seed: int = 0) -> list[tuple[str, int]]:
    """Items in the order in which they are to be run, until a task that is drawn has no items left.

    Parameters
    ----------
    sizes : mapping
        Items of each task.
    weights : mapping
        Of the same tasks; they sum to 1.
    seed : int
        A task's own order depends on nothing else but its name and size.

    Returns
    -------
    list of (task, index)
    """
    names = list(sizes)
    rest = {
        name: np.random.default_rng([seed, int(digest(name), 16)]).permutation(sizes[name]).tolist() for name in names
    }
    rng = np.random.default_rng(seed)
    order: list[tuple[str, int]] = []
    while True:
        task = names[rng.choice(len(names), p=[weights[name] for name in names])]
        if not rest[task]:
            return order
        order.append((task, rest[task].pop()))


def log_capital(diffs: Values, mean: float) -> Values:
    """The logarithm of the capital against "the mean is at most this", after each item.

    Parameters
    ----------
    diffs : array
        ``[..., n]``, between -1 and 1.
    mean : float
        Above -1, at most 1.
    """
    gain = np.maximum((diffs - mean) / (1 + mean), -_HAIR)
    total: Values = np.full(diffs.shape, -np.inf)
    for share in _SHARES:
        total = np.logaddexp(total, np.cumsum(np.log1p(share * gain), axis=-1))
    return total - math.log(len(_SHARES))


def lower_bound(diffs: Values, tail: float = 1 - CONFIDENCE) -> float:
    """The largest mean excluded from below by all looks so far; the capital falls with the mean, so it is bisected."""
    low, high = -1.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        out = float(log_capital(diffs, middle).max()) >= -math.log(tail)
        low, high = (middle, high) if out else (low, middle)
    return low


def first_decision(diffs: Values, margin: float = MARGIN) -> tuple[Decision, int]:
    """The answer and the items after which it came; ``undecided`` and all of them where none did.

    Parameters
    ----------
    diffs : array
        ``[n]``, in the order in which the items were drawn.
    margin : float
    """
    needed = -math.log(1 - CONFIDENCE)

    def when(sign: int, mean: float) -> float:
        hits = np.flatnonzero(log_capital(sign * diffs, mean) >= needed)
        return float(hits[0] + 1) if len(hits) else math.inf

    answers: dict[Decision, float] = {
        "no": when(-1, margin),
        "better": when(1, margin),
        "yes": max(when(1, -margin), when(-1, -margin)),
    }
    decision = min(answers, key=lambda name: answers[name])
    return ("undecided", len(diffs)) if math.isinf(answers[decision]) else (decision, int(answers[decision]))


def settle(
    order: Sequence[tuple[str, int]],
    scores: Mapping[str, Mapping[int, tuple[float, float]]],
    *,
    weights: Mapping[str, float],
    margin: float = MARGIN,
) -> Pooled:
    """What the items run so far say, whenever one asks.

    Parameters
    ----------
    order : sequence of (task, index)
        Those that were run, as :func:`draw_order` drew them with these weights.
    scores : mapping
        By task and item, the score under the plan and at full depth, in [0, 1].
    weights : mapping
    margin : float

    Returns
    -------
    Pooled
        Of the items up to the first decision. Its bounds hold at all looks.

    Raises
    ------
    ValueError
        As for :func:`~depthsched.evaluate.pooling.pooled`.
    """
    share = normal_weights(weights, weights, margin)
    pairs = [scores[task][item] for task, item in order]
    diffs = np.array([plan - full for plan, full in pairs])
    decision, n = first_decision(diffs, margin)
    drawn: dict[str, list[tuple[float, float]]] = {}
    for task, item in order[:n]:
        drawn.setdefault(task, []).append(scores[task][item])
    by_task: Pairs = {task: ([a for a, _ in found], [b for _, b in found]) for task, found in drawn.items()}
    seen = differences(by_task)
    parts = normal_weights(seen, {task: share[task] for task in seen}, margin)
    diffs = diffs[:n]
    tail = 1 - CONFIDENCE
    lower, upper = lower_bound(diffs, tail), -lower_bound(-diffs, tail)
    found = Pooled(
        n=n,
        **means_of(by_task, parts),
        low=lower_bound(diffs, tail / 2),
        high=-lower_bound(-diffs, tail / 2),
        lower=lower,
        upper=upper,
        margin=margin,
        decision=decision,
        needs=None,
        method="betting",
        weights=share,
        tasks={task: float(x.mean()) for task, x in seen.items()},
    )
    if decision != "undecided":
        return found
    return replace(found, needs=max(_needed(diffs, found.diff, margin), n + 1))


def _needed(diffs: Values, diff: float, margin: float) -> int:
    """Items after which the best single share of the capital, with the others at nothing, reaches 20."""
    variance = (float(diffs.var()) * len(diffs) + 2) / (len(diffs) + 2)
    return items_needed(2 * variance * math.log(len(_SHARES) / (1 - CONFIDENCE)), diff, margin)
