"""How many tokens to draft before full depth looks at them.

With acceptance a, cost c of a draft step and v(d) of checking d drafted tokens, both in plain full-depth steps, a draft
of d tokens yields (1 - a^(d+1)) / (1 - a) tokens for d * c + v(d) steps (Leviathan et al. 2023, arXiv 2211.17192).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..rounds import Round

MOST = 16
"""Tokens of one draft, at most."""


def expected_tokens(acceptance: float, drafted: int) -> float:
    """Tokens that a draft and its check yield on average."""
    if acceptance >= 1:
        return drafted + 1.0
    return (1 - acceptance ** (drafted + 1)) / (1 - acceptance)


def speed_up(acceptance: float, drafted: int, draft_cost: float, verify_cost: float) -> float:
    """Tokens a second over those of plain full depth; costs in its steps."""
    return expected_tokens(acceptance, drafted) / (drafted * draft_cost + verify_cost)


class Drafting(Protocol):
    """Says how long the next draft is, and learns from what became of it."""

    def length(self) -> int:
        """Tokens of the next draft; 0 for a plain step."""
        ...

    def learn(self, done: Round) -> None:
        """Take a finished round into account."""
        ...


@dataclass
class Fixed:
    """Always as many."""

    tokens: int

    def length(self) -> int:
        return self.tokens

    def learn(self, done: Round) -> None:
        pass


@dataclass
class Measured:
    """As many as pay, by what was measured in this run; plain steps while drafting does not.

    It begins with a few plain steps, whose time is the unit, and drafts of :attr:`first` tokens. Then it takes the
    length with the highest predicted speed-up. Where that is below 1 it stops, and tries one draft again after
    :attr:`pause` tokens, and each time twice as many.
    """

    first: int = 2
    plain_rounds: int = 4
    trial_rounds: int = 2
    window: int = 24
    pause: int = 96
    rounds: list[Round] = field(default_factory=list)
    stopped: bool = False
    waited: int = 0
    told: str = ""

    def length(self) -> int:
        plain, drafts = self._split()
        if len(plain) < self.plain_rounds:
            return 0
        if len(drafts) < self.trial_rounds:
            return self.first
        if self.stopped and self.waited < self.pause:
            return 0
        best = max(range(1, MOST + 1), key=self.predicted)
        if self.predicted(best) >= 1:
            self.stopped = False
            return best
        if self.stopped:  # one more try, after a pause
            self.waited, self.pause = 0, 2 * self.pause
            return self.first
        self.stopped, self.waited = True, 0
        return 0

    def learn(self, done: Round) -> None:
        self.rounds.append(done)
        self.waited += 1 if done.drafted == 0 else 0

    def predicted(self, drafted: int) -> float:
        """Speed-up of drafts of this length, from what the last rounds took."""
        plain, drafts = self._split()
        if not plain or not drafts:
            return 1.0
        step = _median([r.verify_seconds for r in plain])
        recent = drafts[-self.window :]
        tried = sum(min(a + 1, r.drafted) for r in recent for a in r.accepted)
        stayed = sum(a for r in recent for a in r.accepted)
        cost = _median([r.draft_seconds / r.drafted for r in recent]) / step
        return speed_up(stayed / tried, drafted, cost, self._verify(plain, recent, drafted) / step)

    def _verify(self, plain: Sequence[Round], drafts: Sequence[Round], drafted: int) -> float:
        """Seconds of a pass over ``drafted + 1`` tokens: a line through one token and what was measured of more."""
        one = _median([r.verify_seconds for r in plain])
        slope = _median([max(r.verify_seconds - one, 0.0) / r.drafted for r in drafts])
        return one + slope * drafted

    def _split(self) -> tuple[list[Round], list[Round]]:
        return [r for r in self.rounds if not r.drafted], [r for r in self.rounds if r.drafted]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def drafting_of(draft_tokens: int | str) -> Drafting:
    """The rule for ``draft_tokens``: a number, or ``auto``."""
    return Measured() if draft_tokens == "auto" else Fixed(int(draft_tokens))
