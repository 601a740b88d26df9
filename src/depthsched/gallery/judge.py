"""Whether a row is better than constant depth at the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..score.result import interval
from ..stats import Interval

METRICS = {"kl": 1, "agreement": 2}  # places in a prompt's sums; tokens come first
WORDS = ("better than", "worse than", "not distinguishable from")


@dataclass(frozen=True)
class Verdict:
    """A plan less constant depth at the bytes of the plan, paired by prompt.

    Attributes
    ----------
    kl, agreement : Interval
        Of the difference per token.
    word : str
        By KL: ``better than``, ``worse than`` or ``not distinguishable from``.
    between : tuple of str
        The constant plans whose mix stands for the bytes.
    """

    kl: Interval
    agreement: Interval
    word: str
    between: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"kl": self.kl.to_json(), "agreement": self.agreement.to_json(), "word": self.word,
                "between": list(self.between)}  # fmt: skip


def neighbours(saved: float, constants: Mapping[int, float]) -> tuple[int, ...]:
    """The depths whose constant plans save just less and just more; one where it saves the same.

    Full depth, ``max(constants) + 1``, saves nothing. Empty where no constant depth saves as much.
    """
    known = {**constants, max(constants, default=0) + 1: 1.0}
    same = [depth for depth, value in known.items() if abs(value - saved) <= 1e-9 * saved]
    less = max((d for d, value in known.items() if value < saved), key=lambda d: (known[d], -d), default=None)
    more = min((d for d, value in known.items() if value > saved), key=lambda d: (known[d], d), default=None)
    if same:
        return (same[0],)
    return () if less is None or more is None else (less, more)


def mixed(saved: float, ends: Sequence[tuple[float, np.ndarray[Any, Any]]]) -> np.ndarray[Any, Any]:
    """Sums of each prompt of a mix of plans that moves the bytes of ``saved``: bytes and sums are both linear in it."""
    if len(ends) == 1:
        return ends[0][1]
    (less, first), (more, second) = ends
    share = (1 / less - 1 / saved) / (1 / less - 1 / more)
    return first * (1 - share) + second * share


def judge(
    rows: np.ndarray[Any, Any], saved: float, ends: Sequence[tuple[float, np.ndarray[Any, Any]]], names: Sequence[str]
) -> Verdict | None:
    """Compare a plan with a mix of constant plans.

    Parameters
    ----------
    rows : array
        Tokens, and sums of KL and agreement, of each prompt under the plan, ``[prompts, 3]``.
    saved : float
        Its saving in bytes.
    ends : sequence of (float, array)
        Savings and ``rows`` of the constant plans next to it; empty: there are none.
    names : sequence of str
        Of these plans.
    """
    if not ends:
        return None
    less = rows - mixed(saved, ends)
    kl, agreement = (interval(less[:, place].tolist(), rows[:, 0].tolist()) for place in METRICS.values())
    low, high = kl.bounds
    word = WORDS[0] if high < 0 else WORDS[1] if low > 0 else WORDS[2]
    return Verdict(kl, agreement, word if kl.low is not None else WORDS[2], tuple(names))
