"""How many tokens to draft before full depth looks at them, and at which depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ...drafts import MOST, DraftTokens
from ...plans import DepthPlan
from ..rounds import Round
from .measured import Measured, by_clock, by_layers

UNIT_STEPS = 2
"""Plain steps at the beginning of a run, whose time is the unit of what it reports."""


class Drafting(Protocol):
    """Says how long the next draft is and at which depth it runs, and learns from what became of it."""

    name: str
    """How it is spelled."""
    watches: bool
    """Whether :meth:`goes_on` wants to know how sure the draft is."""
    decisions: list[str]
    """What was changed during the run, a line each."""

    def next(self, scheduled: int) -> tuple[int, int]:
        """Depth and most tokens of the next draft; 0 tokens for a plain step. ``scheduled`` is the plan's depth."""
        ...

    def goes_on(self, chance: float) -> bool:
        """Whether another token is drafted after one that the draft gave this chance, in its least certain row."""
        ...

    def learn(self, done: Round) -> None:
        """Take a finished round into account."""
        ...


@dataclass
class Fixed:
    """Always as many, at the plan's depth."""

    tokens: int
    name: str = ""
    watches: bool = False
    decisions: list[str] = field(default_factory=list)
    plain: int = 0

    def next(self, scheduled: int) -> tuple[int, int]:
        return scheduled, self.tokens if self.plain >= UNIT_STEPS else 0

    def goes_on(self, chance: float) -> bool:
        return True

    def learn(self, done: Round) -> None:
        self.plain += done.drafted == 0


@dataclass
class Confidence(Fixed):
    """Until the draft is less sure of a token than a threshold, which adapts: Draft & Verify (arXiv 2309.08168).

    After each check, with the share of drafted tokens that were kept: ``kept = kept / 2 + share / 2``; the threshold
    moves a tenth of the way to one that is 0.01 higher where ``kept`` is below 0.9 and 0.01 lower elsewhere. A draft
    that ran to its limit changes nothing. The unsure token itself is checked like the others: leaving it out because it
    is unlikely would make likely tokens more frequent than full depth has them.
    """

    tokens: int = MOST
    threshold: float = 0.6
    target: float = 0.9
    kept: float = 0.9
    watches: bool = True
    _unsure: bool = False

    def goes_on(self, chance: float) -> bool:
        self._unsure = chance < self.threshold
        return not self._unsure

    def learn(self, done: Round) -> None:
        super().learn(done)
        if done.drafted == 0:
            return
        self.kept = 0.5 * self.kept + 0.5 * sum(done.accepted) / (done.drafted * len(done.accepted))
        if self._unsure:
            aim = self.threshold + (0.01 if self.kept < self.target else -0.01)
            self.threshold = min(max(0.9 * self.threshold + 0.1 * aim, 0.0), 1.0)


def drafting_of(how: DraftTokens, plan: DepthPlan) -> Drafting:
    """The rule for one run of a plan."""
    if how.rule == "fixed":
        return Fixed(int(how.number), str(how))
    if how.rule == "confidence":
        return Confidence(threshold=how.number, name=str(how))
    prices = by_clock if how.rule == "auto" else by_layers
    return Measured(sorted(plan.keep_sets)[:-1], plan.num_layers, prices, name=str(how))
