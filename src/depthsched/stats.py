"""Intervals by resampling, seeded: equal samples give equal intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

CONFIDENCE = 0.95
Values = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Interval:
    """A mean or a median with its 95% interval.

    Attributes
    ----------
    value : float
        Also under the name of its kind: ``mean`` or ``median``.
    low, high : float or None
        None where a sample is too small to tell.
    kind : str
    """

    value: float
    low: float | None
    high: float | None
    kind: Literal["mean", "median"] = "median"

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """The median of a sample and its bootstrap interval."""
        sample = np.asarray(values, dtype=float)
        return cls(float(np.median(sample)), *bootstrap(lambda x: np.median(x, axis=-1), sample))

    @property
    def mean(self) -> float:
        """The value of a mean."""
        return self._value("mean")

    @property
    def median(self) -> float:
        """The value of a median."""
        return self._value("median")

    @property
    def bounds(self) -> tuple[float, float]:
        """``low`` and ``high``; the value itself where there are none."""
        return (self.value if self.low is None else self.low, self.value if self.high is None else self.high)

    def _value(self, kind: str) -> float:
        if kind != self.kind:
            raise AttributeError(f"this interval is that of a {self.kind}")
        return self.value

    def to_json(self) -> dict[str, float | None]:
        """``{mean or median, low, high}``, which :meth:`from_json` reads back."""
        return {self.kind: self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Interval:
        """Read an interval back; ``KeyError`` for anything else."""
        kind: Literal["mean", "median"] = "mean" if "mean" in data else "median"
        return cls(data[kind], data["low"], data["high"], kind)


def bootstrap(
    statistic: Callable[..., Values], *samples: Values, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95% percentile interval of a statistic.

    Parameters
    ----------
    statistic : callable
        Of resampled samples ``[resamples, n]``, along the last axis.
    *samples : array
        All of length n; rows of several are drawn together.
    resamples, seed : int
    """
    n = len(samples[0])
    picks = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(statistic(*(sample[picks] for sample in samples)), [tail, 1 - tail])
    return float(low), float(high)
