"""Is a score under a plan that of full depth? Paired statistics over the items of a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..stats import CONFIDENCE, bootstrap

POWER = 0.8
TOLERANCE = 0.05
"""A drop of this size matters to people who read scores: what a sample must be able to exclude."""

_RESAMPLES = 10_000
_FEW = 10  # discordant pairs below which resampling them understates what other samples would show


@dataclass(frozen=True)
class Paired:
    """A score under a plan against full depth, on the same items.

    Attributes
    ----------
    n : int
        Items.
    score, full, diff : float
        Mean score under the plan, at full depth, and the former less the latter.
    low, high : float
        95% interval of the difference.
    interval : str
        How it was made: ``bootstrap``, or ``adjusted-wald`` for right-or-wrong scores with under ten
        discordant pairs.
    p_value : float
        Two-sided: exact McNemar test for right-or-wrong scores, sign test for others. The two are one
        binomial test on the items that changed.
    wins, losses : int
        Items that the plan scores higher and lower.
    detectable : float
        Minimum detectable difference: the smallest true one that so many items show in 80% of samples.
    """

    n: int
    score: float
    full: float
    diff: float
    low: float
    high: float
    interval: str
    p_value: float
    wins: int
    losses: int
    detectable: float

    def verdict(self, tolerance: float = TOLERANCE) -> str:
        """One sentence; scores are taken as shares and spoken of in points of 100."""
        drop = max(0.0, -self.low)
        if self.high < 0:
            return f"a drop of {100 * -self.high:.1f} to {100 * drop:.1f} points at 95%"
        if self.full <= drop:
            return (
                f"too small to say: full depth scores {100 * self.full:.1f}, "
                f"and {self.n} items cannot exclude losing all of it"
            )
        if drop > tolerance:
            needed = math.ceil(self.n * (drop / tolerance) ** 2)
            return (
                f"too small to say: {self.n} items cannot exclude a drop of {100 * drop:.1f} points at 95%; "
                f"excluding {100 * tolerance:.0f} takes about {needed}"
            )
        better = f", a gain of at least {100 * self.low:.1f}" if self.low > 0 else ""
        return f"no drop above {100 * drop:.1f} points at 95%{better}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict()}


def paired(plan: Sequence[float], full: Sequence[float], *, seed: int = 0) -> Paired:
    """Compare the scores of the same items under a plan and at full depth.

    Parameters
    ----------
    plan, full : sequence of float
        One score an item, in the same order.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ValueError
        No items, or not as many here as there.
    """
    a, b = np.asarray(plan, dtype=float), np.asarray(full, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError("give one score an item under the plan and at full depth, at least one item")
    diff = a - b
    wins, losses = int((diff > 0).sum()), int((diff < 0).sum())
    binary = bool(np.isin(np.concatenate([a, b]), (0.0, 1.0)).all())
    few = binary and wins + losses < _FEW
    low, high = _adjusted_wald(wins, losses, len(diff)) if few else _bootstrap(diff, seed)
    return Paired(
        n=len(diff),
        score=float(a.mean()),
        full=float(b.mean()),
        diff=float(diff.mean()),
        low=low,
        high=high,
        interval="adjusted-wald" if few else "bootstrap",
        p_value=sign_test(wins, losses),
        wins=wins,
        losses=losses,
        detectable=detectable(diff, binary=binary),
    )


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value that wins and losses are equally likely; McNemar's exact test is the same sum."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def detectable(diff: np.ndarray, *, binary: bool) -> float:
    """The true difference that a two-sided test at 5% finds in 80% of samples of this size.

    The spread is that of the sample. For right-or-wrong scores it is bounded by the share of discordant pairs,
    with one pair added on each side, so that a sample without any does not claim to see everything.
    """
    from scipy.stats import norm

    n = len(diff)
    if binary:
        spread = math.sqrt((np.count_nonzero(diff) + 2) / (n + 2))
    else:
        spread = float(diff.std(ddof=1)) if n > 1 else math.inf
    factor = float(norm.ppf(0.5 + CONFIDENCE / 2) + norm.ppf(POWER))
    return min(factor * spread / math.sqrt(n), 1.0 if binary else math.inf)


def _bootstrap(diff: np.ndarray, seed: int) -> tuple[float, float]:
    if np.ptp(diff) == 0:
        return float(diff[0]), float(diff[0])
    return bootstrap(lambda x: x.mean(axis=-1), diff, resamples=_RESAMPLES, seed=seed)


def _adjusted_wald(wins: int, losses: int, n: int) -> tuple[float, float]:
    """Bonett and Price's interval for a difference of paired shares (Stat. Med. 2012, doi 10.1002/sim.4213)."""
    from scipy.stats import norm

    up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(up - down - half, -1.0), min(up - down + half, 1.0)
