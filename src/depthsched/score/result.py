"""What scoring found, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..display.views import score_html
from ..stats import Interval, bootstrap

METRICS = ("kl", "agreement", "nll_full", "nll")
_PLAN = ("schedule", "order", "profile", "method", "prompts", "tokens")


@dataclass(frozen=True)
class PromptScore:
    """Sums over the decode steps of one prompt."""

    tokens: int
    kl: float
    agreement: float
    nll_full: float
    nll: float
    depth: float


@dataclass(frozen=True)
class Group:
    """Means over the positions that share a depth or a range of steps.

    Attributes
    ----------
    first, last : int
        The depth (both equal), or the first and last decode step of the range.
    """

    first: int
    last: int
    tokens: int
    kl: float
    agreement: float
    nll_full: float
    nll: float


@dataclass(frozen=True)
class ScoreResult:
    """Quality of one plan against full depth, teacher-forced. Decode steps only: the prefill is full in both.

    Attributes
    ----------
    schedule, order : str
    profile : str or None
    method : str
        ``staircase`` (one pass) or ``step-by-step``.
    prompts, tokens : int
        Prompts and decode steps that were scored.
    kl, agreement : Interval
        KL(full || scheduled) in nats per token, and the share of tokens with the same most likely token.
    nll_full, nll : Interval
        Negative log-likelihood of the completion per token, at full depth and under the plan.
    mean_depth, bytes_speedup : float
    per_depth, per_step : tuple of Group
    per_prompt : tuple of PromptScore
        For paired comparisons of two plans on the same prompts.
    seconds : float
        Wall clock of scoring: both passes, without generating answers.
    notes : tuple of str
        What the plan had to change.
    renewal : str
        How its cache was renewed; empty where it was not.
    """

    schedule: str
    order: str
    profile: str | None
    method: str
    prompts: int
    tokens: int
    kl: Interval
    agreement: Interval
    nll_full: Interval
    nll: Interval
    mean_depth: float
    bytes_speedup: float
    per_depth: tuple[Group, ...]
    per_step: tuple[Group, ...]
    per_prompt: tuple[PromptScore, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    renewal: str = ""

    @property
    def perplexity_full(self) -> float:
        """Perplexity of the completions at full depth."""
        return math.exp(self.nll_full.mean)

    @property
    def perplexity(self) -> float:
        """Perplexity of the completions under the plan."""
        return math.exp(min(self.nll.mean, 700))

    def _repr_html_(self) -> str:
        return score_html(self)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; intervals are ``{mean, low, high}`` under ``intervals``."""
        plain = (*_PLAN, "perplexity_full", "perplexity", "mean_depth", "bytes_speedup", "seconds")
        return {
            **{name: getattr(self, name) for name in plain},
            "notes": list(self.notes),
            **({"renewal": self.renewal} if self.renewal else {}),
            "kl": self.kl.mean,
            "agreement": self.agreement.mean,
            "intervals": {name: getattr(self, name).to_json() for name in METRICS},
            "per_depth": [{"depth": g.first, **_values(g)} for g in self.per_depth],
            "per_step": [{"first": g.first, "last": g.last, **_values(g)} for g in self.per_step],
        }


def _values(group: Group) -> dict[str, Any]:
    return {"tokens": group.tokens, **{name: getattr(group, name) for name in METRICS}}


def interval(sums: Sequence[float], counts: Sequence[float], seed: int = 0) -> Interval:
    """The mean per token over all prompts, with a bootstrap interval that draws whole prompts."""
    total, tokens = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    mean = float(total.sum() / tokens.sum())
    if len(total) < 2:
        return Interval(mean, None, None, "mean")
    if np.ptp(total / tokens) == 0:
        return Interval(mean, mean, mean, "mean")
    return Interval(mean, *bootstrap(lambda t, n: t.sum(axis=-1) / n.sum(axis=-1), total, tokens, seed=seed), "mean")


def group(first: int, last: int, values: Mapping[str, np.ndarray[Any, Any]], mask: np.ndarray[Any, Any]) -> Group:
    """Means of the positions that a mask picks."""
    return Group(first, last, int(mask.sum()), **{name: float(values[name][mask].mean()) for name in METRICS})
