"""Renewal: full-depth passes over all positions since the last one, so that the cache is exact again.

No K and V are written for skipped layers. A cache with holes is made whole by running the tokens concerned through
all layers once more, together with the step that needs them: the weights are read once for all of these positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import PlanError
from ..plans import DepthPlan
from .signals import of_logits

SENTENCE = "sentence"
_ENDS = tuple(".!?…。！？")
_CLOSING = " \t\"')]}»”’"


@dataclass(frozen=True)
class Renewal:
    """When a run with ``skipped_kv="recompute"`` renews its cache, besides where the plan itself needs it.

    Attributes
    ----------
    verify_below : float
        A token whose margin (most likely probability minus the next) is below this is checked at full depth before it
        is kept; 0 checks none.
    every : int
        A full pass at least once in so many steps; 0 for no such rule.
    decode : callable or None
        From a list of ids to text: the step that feeds the end of a sentence is a full pass.
    """

    verify_below: float = 0.0
    every: int = 0
    decode: Callable[[list[int]], str] | None = field(default=None, compare=False)

    @property
    def acts(self) -> bool:
        """Whether there is a rule besides what the plan needs."""
        return bool(self.verify_below or self.every or self.decode)

    def __str__(self) -> str:
        every = f"a full pass every {self.every} steps" if self.every else ""
        check = f"tokens below {self.verify_below:g} checked" if self.verify_below else ""
        return ", ".join(
            filter(None, ["recompute", check, every, "a full pass at sentence ends" if self.decode else ""])
        )

    def due(self, behind: int, tokens: Tensor) -> bool:
        """Whether a step that feeds ``tokens [rows]`` must be a full pass, ``behind`` positions after the last one."""
        if self.every and behind >= self.every - 1:
            return True
        return self.decode is not None and any(ends_sentence(self.decode([token])) for token in tokens.tolist())


def ends_sentence(token: str) -> bool:
    """Whether a token's text ends a sentence: with a full stop and the like, or in a line break."""
    return "\n" in token or token.rstrip(_CLOSING).endswith(_ENDS)


def renewal_of(
    skipped_kv: str, verify_below: float | None, renew: int | str | None, tokenizer: Any, *, lossless: bool = False
) -> Renewal | None:
    """The rules of a run, or None where nothing is renewed.

    Raises
    ------
    PlanError
        A value that means nothing, or an argument that would be ignored.
    """
    for name, value in (("verify_below", verify_below), ("renew", renew)):
        if value is None:
            continue
        if lossless:
            raise PlanError(f"{name}={value!r} is for runs without lossless, which checks every token at full depth")
        if skipped_kv not in ("auto", "recompute"):
            raise PlanError(
                f"{name}={value!r} renews K and V in passes at full depth, which skipped_kv={skipped_kv!r} excludes; "
                "use skipped_kv='recompute' or leave it out"
            )
    if skipped_kv == "recompute" and lossless:
        raise PlanError("skipped_kv='recompute' is what a lossless run always does; leave it out")
    if skipped_kv != "recompute" and verify_below is None and renew is None:
        return None
    if verify_below is not None and not 0 < verify_below <= 1:
        raise PlanError(f"verify_below={verify_below} must be above 0 and at most 1: a lead in probability")
    every = _distance(renew)
    return Renewal(float(verify_below or 0.0), every, _decoder(tokenizer) if renew == SENTENCE else None)


def _distance(renew: int | str | None) -> int:
    if renew is None or renew == SENTENCE:
        return 0
    whole = isinstance(renew, int) and not isinstance(renew, bool)
    if not whole or int(renew) < 1:
        raise PlanError(f"renew={renew!r} must be a number of steps from 1, or {SENTENCE!r}")
    return int(renew)


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    if tokenizer is None:
        raise PlanError(f"renew={SENTENCE!r} needs the tokenizer: ds.generate(..., tokenizer=tokenizer)")
    decode: Callable[[list[int]], str] = tokenizer.decode
    return decode


class Ran(NamedTuple):
    """What a step ran.

    Attributes
    ----------
    depth : int
        Layers of the pass that its token came from.
    renewed : int
        Earlier positions of each row in that pass; 0 for a plain step.
    tried : int
        Layers of a pass before it whose token was too unsure to keep; 0 where there was none.
    """

    depth: int
    renewed: int = 0
    tried: int = 0


class Steps:
    """The decode steps of a run, one after the other, and how much of its cache full depth has written.

    Parameters
    ----------
    decoder
        With ``step(tokens, depth, unfinished)`` and ``renew(tokens, at, keep)``: a
        :class:`~depthsched.runtime.sampler.RunningRows`.
    plan : DepthPlan
    length : int
        Tokens of the prompt, padding included.
    renewal : Renewal or None
        Without one every step is a plain one.
    checked : callable, optional
        Told at every pass at full depth over earlier positions, for each of them, whether full depth has the most
        likely token that the position had, bool ``[batch, positions]``.

    Attributes
    ----------
    whole : int
        Slots of the cache, from the first, that hold what full depth writes.
    """

    def __init__(
        self, decoder: Any, plan: DepthPlan, length: int, renewal: Renewal | None,
        checked: Callable[[Tensor], None] | None = None,
    ) -> None:  # fmt: skip
        self.decoder, self.renewal, self.checked = decoder, renewal, checked
        self._likeliest: list[Tensor] = []
        self.full = self.lowest = plan.num_layers
        self.whole = length

    def __call__(self, ids: Tensor, depth: int, unfinished: Tensor | None = None) -> tuple[Tensor, Ran]:
        """Feed the last of ``ids [batch, tokens]``, the whole text so far; logits ``[batch, vocabulary]``.

        ``unfinished``, bool ``[batch]``, says which rows still count.
        """
        here, rules = ids.shape[1] - 1, self.renewal
        # Keep sets are nested: a layer has a hole where a position ran at less than the depth that now runs it.
        if rules and (depth > self.lowest or rules.due(here - self.whole, running_rows(ids[:, -1], unfinished))):
            return self._full(ids)
        logits = self.decoder.step(ids[:, -1], depth, unfinished)
        if depth == self.full and self.whole == here:
            self.whole += 1
            return logits, Ran(depth)
        self.lowest = min(self.lowest, depth)
        if self.checked is not None:
            self._likeliest.append(logits.argmax(dim=-1))
        if rules and rules.verify_below and unsure(running_rows(logits, unfinished), rules.verify_below):
            return self._full(ids, tried=depth)
        return logits, Ran(depth)

    def _full(self, ids: Tensor, tried: int = 0) -> tuple[Tensor, Ran]:
        """The same step at full depth, over everything that was not."""
        at, self.whole, self.lowest = self.whole, ids.shape[1], self.full
        count, ran = ids.shape[1] - at, Ran(self.full, ids.shape[1] - 1 - at, tried)
        logits = self.decoder.renew(ids[:, at:], at, 1 if self.checked is None else count)
        if self.checked is not None and self._likeliest:
            before, self._likeliest = torch.stack(self._likeliest, dim=1), []
            self.checked(logits[:, : before.shape[1]].argmax(dim=-1) == before)
        return logits[:, -1], ran


def unsure(logits: Tensor, below: float) -> bool:
    """Whether the margin of any row of logits ``[rows, vocabulary]`` is below this."""
    return bool((of_logits(logits, ["margin"])["margin"] < below).any())


def running_rows(rows: Tensor, unfinished: Tensor | None) -> Tensor:
    """Those of ``rows [batch, ...]`` that go on; all where nothing is known. What ended rows hold means nothing."""
    return rows if unfinished is None or len(rows) == 1 else rows[unfinished]
