"""What the oracle found for one order, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..score.result import interval
from ..stats import Interval
from .depths import KINDS, Answer, Floats
from .headroom import Best

FIRST_EDGE = 8


@dataclass(frozen=True)
class Range:
    """Means over a range of decode steps, with intervals over the prompts that reach it.

    Attributes
    ----------
    first, last : int
        Decode steps; step 1 makes the second token of the answer.
    prompts, tokens : int
    values : dict of str to Interval
    """

    first: int
    last: int
    prompts: int
    tokens: int
    values: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        counts = {"first": self.first, "last": self.last, "prompts": self.prompts, "tokens": self.tokens}
        return {**counts, **_json(self.values)}


@dataclass(frozen=True)
class DepthShare:
    """One depth.

    Attributes
    ----------
    agreement : float
        Share of the steps where it has full depth's most likely token.
    least, stable : float
        Share of the steps whose least, and whose stable depth it is.
    bytes_speedup : float
        Of all steps at this depth.
    """

    depth: int
    agreement: float
    least: float
    stable: float
    bytes_speedup: float


@dataclass(frozen=True)
class KindResult:
    """The oracle of one kind, of :data:`KINDS`.

    Attributes
    ----------
    least, stable : Interval
        Mean over all steps of the least depth that agrees, and of the least from which on all deeper ones agree.
    trend : dict of str to Interval
        Change of both per 100 steps within a prompt, least squares.
    depths : tuple of DepthShare
    per_step : tuple of Range
        ``least`` and ``stable``.
    headroom, stable_headroom : tuple of Best
        The cheapest choice of depths, and the same where a depth counts only if all deeper ones agree too.
    """

    kind: str
    least: Interval
    stable: Interval
    trend: dict[str, Interval]
    depths: tuple[DepthShare, ...]
    per_step: tuple[Range, ...]
    headroom: tuple[Best, ...]
    stable_headroom: tuple[Best, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "kind": self.kind,
            "meaning": KINDS[self.kind],
            "least": self.least.to_json(),
            "stable": self.stable.to_json(),
            "trend_per_100_steps": _json(self.trend),
            "depths": [vars(share) for share in self.depths],
            "per_step": [found.to_json() for found in self.per_step],
            "headroom": [found.to_json() for found in self.headroom],
            "stable_headroom": [found.to_json() for found in self.stable_headroom],
        }


@dataclass(frozen=True)
class PlanRow:
    """A plan on the same samples, beside the best choice of depths at the agreement that it reaches.

    Attributes
    ----------
    plan : str
    agreement : Interval
    bytes_speedup, mean_depth : float
    best : dict of str to float
        Kind to the ``bytes_speedup`` of the oracle at this agreement.
    """

    plan: str
    agreement: Interval
    bytes_speedup: float
    mean_depth: float
    best: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**vars(self), "agreement": self.agreement.to_json()}


@dataclass(frozen=True, eq=False)
class OracleResult:
    """The oracle of one order.

    Attributes
    ----------
    order : str
    profile : str or None
        The folder whose bridges stand in for skipped layers.
    num_layers : int
    depths : tuple of int
        Those that were tried, rising; the last is full depth.
    prompts, tokens : int
        Completions, and decode steps in all of them.
    nll, entropy : Interval
        Of full depth, in nats per step.
    trend : dict of str to Interval
        Change of both per 100 steps within a prompt, least squares.
    per_step : tuple of Range
        ``nll`` and ``entropy``.
    kinds : tuple of KindResult
    plans : tuple of PlanRow
    seconds : float
    answers : tuple of Answer
        Step by step, in the order of the samples.
    """

    order: str
    profile: str | None
    num_layers: int
    depths: tuple[int, ...]
    prompts: int
    tokens: int
    nll: Interval
    entropy: Interval
    trend: dict[str, Interval]
    per_step: tuple[Range, ...]
    kinds: tuple[KindResult, ...]
    plans: tuple[PlanRow, ...]
    seconds: float
    answers: tuple[Answer, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the single steps."""
        plain = ("order", "profile", "num_layers", "prompts", "tokens", "seconds")
        return {
            **{name: getattr(self, name) for name in plain},
            "depths": list(self.depths),
            "nll": self.nll.to_json(),
            "entropy": self.entropy.to_json(),
            "trend_per_100_steps": _json(self.trend),
            "per_step": [found.to_json() for found in self.per_step],
            "kinds": [found.to_json() for found in self.kinds],
            "plans": [row.to_json() for row in self.plans],
        }


def _json(values: dict[str, Interval]) -> dict[str, Any]:
    return {name: found.to_json() for name, found in values.items()}


def mean(rows: Sequence[Floats]) -> Interval:
    """The mean per step of all prompts, its interval over prompts; prompts without a step do not count."""
    some = [row for row in rows if len(row)]
    return interval([float(row.sum()) for row in some], [len(row) for row in some])


def trend(rows: Sequence[Floats]) -> Interval:
    """Change per 100 steps within a prompt: one least-squares slope for all prompts, each around its own mean.

    So a prompt whose answer is long and easy throughout does not look like a change with the position.
    """
    sums, weights = [], []
    for row in rows:
        steps = np.arange(len(row)) - (len(row) - 1) / 2
        if len(row) > 1:
            sums.append(float((steps * row).sum()) * 100)
            weights.append(float((steps**2).sum()))
    return interval(sums, weights) if sums else Interval(0.0, None, None, "mean")


def ranges(values: Mapping[str, Sequence[Floats]]) -> tuple[Range, ...]:
    """Steps 1 to 8, 9 to 16, 17 to 32, and on in doubles."""
    rows = next(iter(values.values()))
    longest, first, last, found = max(map(len, rows)), 1, FIRST_EDGE, []
    while first <= longest:
        here = slice(first - 1, last)
        parts = {name: [row[here] for row in some] for name, some in values.items()}
        counts = [len(row[here]) for row in rows if len(row[here])]
        means = {name: mean(part) for name, part in parts.items()}
        found.append(Range(first, min(last, longest), len(counts), sum(counts), means))
        first, last = last + 1, 2 * last
    return tuple(found)
