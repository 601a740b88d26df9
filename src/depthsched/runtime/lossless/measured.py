"""Drafts that pay, by what was measured in this run: how long, how deep, or none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median_low as median
from typing import NamedTuple

from ...drafts import MOST, draft_speedup
from ..rounds import Round

LOSS = 0.02
"""Of the time of plain full depth: the most that trying may cost. A run is to lose 3% at most, and clocks err too."""

HORIZON = 160
"""Tokens to which :data:`LOSS` refers in shorter runs: enough for a first draft of two tokens, none of them kept."""

SURE = 1.1
"""A predicted speed-up from which on plain steps in between are rare."""

OFTEN, SELDOM = 8, 48
"""Drafts from one plain step to the next, at most."""

RECENT = 24
"""Rounds of a depth that are looked at."""

PRIOR = 2
"""Drafted tokens that what is known of other depths counts for."""


class Prices(NamedTuple):
    """Costs in plain steps at full depth: of a draft step, of a check without a draft, and of each token more in it."""

    draft: float
    check: float
    row: float

    def of(self, drafted: int) -> float:
        """A draft of so many tokens and its check."""
        return drafted * self.draft + self.check + self.row * drafted


class _Choice(NamedTuple):
    speedup: float
    depth: int
    drafted: int
    acceptance: float

    def __str__(self) -> str:
        return f"{self.speedup:.2f}x predicted at acceptance {self.acceptance:.2f}"


def by_clock(rounds: Sequence[Round], unit: float, depth: int, layers: int) -> Prices:
    """What the last rounds of a depth took; ``unit`` is the time of a plain step."""
    draft = median([r.draft_seconds / r.drafted for r in rounds]) / unit
    row = median([max(r.verify_seconds - unit, 0.0) / r.drafted for r in rounds]) / unit
    return Prices(draft, 1.0, row)


def by_layers(rounds: Sequence[Round], unit: float, depth: int, layers: int) -> Prices:
    """Layers alone: what DEL (arXiv 2504.05598) counts."""
    return Prices(depth / layers, 1.0, 0.0)


@dataclass
class Measured:
    """Takes the depth and the length with the highest predicted speed-up, and plain steps where none is above 1.

    A run begins with a few plain steps, whose time is the unit, and a short draft at the plan's depth. Other depths are
    predicted from what is known and tried where that looks better: the cost goes with the layers, and rejections with
    the square of the layers left out (SmolLM2's go with a power of 1.3 to 1.9, so that this errs on the side of
    trying). What drafting costs more than plain steps is kept account of: a draft that could bring
    the loss above 2% of the run so far, or of 160 tokens, is not made. Plain steps in between keep the unit true, soon
    and often while little is gained, and a draft is at most twice as long as any before it: a machine that was slow for
    its first steps makes every draft look cheap.
    Once drafting stops it is tried again after :attr:`pause` tokens, and then after twice as many.

    Parameters
    ----------
    depths : sequence of int
        Those of the plan below full depth, rising.
    layers : int
    prices : callable
        :func:`by_clock` or :func:`by_layers`.
    """

    depths: Sequence[int]
    layers: int
    prices: Callable[[Sequence[Round], float, int, int], Prices] = by_clock
    first: int = 2
    plain_rounds: int = 4
    pause: int = 96
    name: str = "auto"
    watches: bool = False
    decisions: list[str] = field(default_factory=list)
    lost: float = 0.0
    tokens: float = 0.0
    _plain: deque[float] = field(default_factory=lambda: deque(maxlen=8))
    _drafts: dict[int, deque[Round]] = field(default_factory=dict)
    _plain_seen: int = 0
    _since_plain: int = 0
    _expected: float = 1.0
    _longest: int = 0
    _waited: int = 0
    _stopped: bool = False
    _told: int = 0

    def next(self, scheduled: int) -> tuple[int, int]:
        if scheduled >= self.layers or self._unit_is_due():
            return scheduled, 0
        if self._stopped and self._waited < self.pause:
            return scheduled, 0
        if not self._drafts:
            return scheduled, self.first if self._affordable(self.first + 1.0) else 0
        best = self._best(scheduled)
        self._expected = best.speedup
        if best.speedup >= 1 and best.drafted:
            self._go(best)
            return best.depth, best.drafted
        if not self._stopped:
            self._stop(best)
            return scheduled, 0
        self._waited, self.pause = 0, 2 * self.pause  # one more try, after a pause
        return best.depth, self.first if self._affordable(self._prices(best.depth).of(self.first) - 1) else 0

    def goes_on(self, chance: float) -> bool:
        return True

    def learn(self, done: Round) -> None:
        made = 1 + sum(done.accepted) / len(done.accepted)
        self.tokens += made
        if done.drafted == 0:
            self._plain.append(done.verify_seconds)
            self._plain_seen += 1
            self._since_plain, self._waited = 0, self._waited + 1
            return
        self._since_plain, self._longest = self._since_plain + 1, max(self._longest, done.drafted)
        self._drafts.setdefault(done.depth, deque(maxlen=RECENT)).append(done)
        if self.prices is by_clock:
            self.lost += (done.draft_seconds + done.verify_seconds) / self._unit - made
        else:
            self.lost += self._prices(done.depth).of(done.drafted) - made

    def acceptance(self, depth: int) -> float:
        """Chance of a drafted token at a depth: from its own drafts and, while they are few, those of the nearest."""
        stayed, tried = self._counted(depth)
        near = self._nearest(depth, but=depth)
        if near is None:
            expected = 0.5
        else:
            found, of = self._counted(near)
            expected = self._between(near, (found + PRIOR / 2) / (of + PRIOR), depth, power=2)
        return (stayed + PRIOR * expected) / (tried + PRIOR)

    def _unit_is_due(self) -> bool:
        """Whether a plain step is needed, to know what one takes by now."""
        most = SELDOM if self._expected > SURE else OFTEN
        return self._plain_seen < self.plain_rounds or self._since_plain >= min(self._plain_seen // 3, most)

    @property
    def _unit(self) -> float:
        return median(self._plain)

    def _best(self, scheduled: int) -> _Choice:
        """The choice with the highest predicted speed-up; 0 drafted where the account allows for no draft."""
        found = [d for d in self.depths if d >= scheduled]
        thinned = sorted({found[i * (len(found) - 1) // 3] for i in range(4)}) if found else [scheduled]
        choices, longest = [], min(MOST, 2 * max(self._longest, self.first))
        for depth in thinned:
            acceptance, prices = self.acceptance(depth), self._prices(depth)
            for drafted in range(1, longest + 1):
                speedup = draft_speedup(acceptance, drafted, prices.draft, prices.check + prices.row * drafted)
                affordable = self._affordable(prices.of(drafted) - 1)
                choices.append(_Choice(speedup, depth, drafted if affordable else 0, acceptance))
        return max(choices, key=lambda choice: (choice.drafted > 0, choice.speedup))

    def _prices(self, depth: int) -> Prices:
        near = self._nearest(depth)
        if near is None or self.prices is by_layers:
            return by_layers([], 1.0, depth, self.layers)
        known = self.prices([*self._drafts[near]], self._unit, near, self.layers)
        return known._replace(draft=self._between(near, known.draft, depth))

    def _between(self, near: int, value: float, depth: int, power: int = 1) -> float:
        """What is 1 at full depth and ``value`` at ``near``, at another depth."""
        left_out = (self.layers - depth) / (self.layers - near)
        return min(max(1 - (1 - value) * left_out**power, 0.0), max(value, 1.0))

    def _nearest(self, depth: int, but: int = -1) -> int | None:
        known = [d for d in self._drafts if d != but]
        return min(known, key=lambda d: (abs(d - depth), d)) if known else None

    def _counted(self, depth: int) -> tuple[int, int]:
        rounds = self._drafts.get(depth, ())
        stayed = sum(a for r in rounds for a in r.accepted)
        return stayed, sum(min(a + 1, r.drafted) for r in rounds for a in r.accepted)

    def _affordable(self, loss: float) -> bool:
        return self.lost + loss <= LOSS * max(HORIZON, self.tokens)

    def _go(self, choice: _Choice) -> None:
        if choice.depth != self._told:
            self.decisions.append(f"token {self.tokens:.0f}: drafts at depth {choice.depth}, {choice}")
        self._told, self._stopped = choice.depth, False

    def _stop(self, choice: _Choice) -> None:
        why = str(choice) if choice.drafted else f"trying has cost {LOSS:.0%} of plain decoding"
        self.decisions.append(f"token {self.tokens:.0f}: stops drafting, {why}")
        self._told, self._stopped, self._waited = 0, True, 0
