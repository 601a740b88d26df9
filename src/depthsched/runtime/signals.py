"""What the rows of a run show to an adaptive schedule, and how deep the next step runs for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import PlanError
from ..plans import DepthPlan
from ..signals import WINDOW, Signals
from .textclass import TextClasses

_OF_LOGITS = ("entropy", "top1", "margin")
_MEANS = {f"mean_{name}": name for name in _OF_LOGITS}
_TOKENS = ("token", "token_class")
BY_ROW_ALONE = frozenset({*_TOKENS, *_MEANS, "agreement"})
"""Signals that join what one row shows at different times: beams, which change places, have none of them."""


class Decision(NamedTuple):
    """How deep a step runs, and what the row saw that asked for it; None where nothing was seen."""

    depth: int
    signals: Signals | None


class _Row:
    """What is known of one row besides its last pass."""

    def __init__(self, prompt_tokens: int, before: int | None) -> None:
        self.prompt_tokens, self.before = prompt_tokens, before
        self.recent: deque[dict[str, float]] = deque(maxlen=WINDOW)
        self.checks: deque[bool] = deque(maxlen=WINDOW)


class SignalReader:
    """Reads the signals of one run of a plan, and only those that its schedule asks for.

    Parameters
    ----------
    plan : DepthPlan
    tokenizer : optional
        For ``token_class``.
    """

    def __init__(self, plan: DepthPlan, tokenizer: Any = None) -> None:
        self.plan, self.needs = plan, plan.needs
        self.classes = TextClasses(tokenizer) if "token_class" in self.needs else None
        wanted = {_MEANS.get(name, name) for name in self.needs}
        self._of_logits = [name for name in _OF_LOGITS if name in wanted]
        self.looks_back = any(name in _MEANS for name in self.needs)
        self._tokens = any(name in _TOKENS for name in self.needs)
        self._cosine = "cosine" in self.needs
        self.rows: list[_Row] = []

    @property
    def hears_checks(self) -> bool:
        """Whether the schedule asks how often full depth agreed."""
        return "agreement" in self.needs

    def begin(self, input_ids: Tensor | None, attention_mask: Tensor) -> None:
        """Take the prompts: ids ``[rows, tokens]``, None where only states are known, and the mask of their length."""
        if not self.plan.adaptive:
            return
        counts = attention_mask.sum(dim=-1).tolist() if "prompt_tokens" in self.needs else [0] * len(attention_mask)
        last = [None] * len(counts) if input_ids is None or not self._tokens else input_ids[:, -1].tolist()
        self.rows = [_Row(count, before) for count, before in zip(counts, last, strict=True)]

    def checked(self, agrees: Tensor) -> None:
        """Hear of checks at full depth: whether it agreed, bool ``[rows, checks]``, the oldest first."""
        for row, some in zip(self.rows, agrees.tolist(), strict=True):
            row.checks.extend(some)

    def decide(
        self, step: int, logits: Tensor, tokens: Tensor, unfinished: Tensor | None = None,
        cosine: Callable[[], Tensor] | None = None,
    ) -> Decision:  # fmt: skip
        """The depth of a step: the deepest that a row asks for which goes on.

        Parameters
        ----------
        step : int
        logits : Tensor
            Of the last pass, before any sampling setting, ``[rows, vocabulary]``.
        tokens : Tensor
            What the step runs, ``[rows]``.
        unfinished : Tensor, optional
            Rows that go on, bool ``[rows]``; all where it is left out.
        cosine : callable, optional
            Gives that of the last pass, ``[rows]``.
        """
        if not self.plan.adaptive:
            return Decision(self.plan.depth(step), None)
        measured = self.measure(logits, cosine)
        ids = tokens.tolist() if self._tokens else [None] * len(self.rows)
        alive = [True] * len(self.rows) if unfinished is None or len(self.rows) == 1 else unfinished.tolist()
        seen = [
            (step, self.see(row, step, token, numbers))
            for row, (token, numbers, runs) in enumerate(zip(ids, measured, alive, strict=True))
            if runs
        ]
        return deepest(self.plan, seen)

    def measure(self, logits: Tensor, cosine: Callable[[], Tensor] | None = None) -> list[dict[str, float]]:
        """The numbers that are asked for of logits ``[n, vocabulary]``, and the cosine where it is asked for."""
        columns = of_logits(logits, self._of_logits)
        if self._cosine:
            assert cosine is not None, "runs without it refuse the plan"
            columns["cosine"] = cosine().to(logits.device)
        if not columns:
            return [{} for _ in range(len(logits))]
        table = torch.stack([*columns.values()], dim=-1).tolist()  # all of them in one wait for the device
        return [dict(zip(columns, values, strict=True)) for values in table]

    def see(
        self, row: int, step: int, token: int | None, measured: dict[str, float], before: int | None = None
    ) -> Signals:
        """What a row shows after a token, the ``step``-th of its answer.

        Called for each token in order, or where nothing looks back for some of them, with the one ``before``.
        """
        here = self.rows[row]
        before = here.before if before is None else before
        if self.looks_back:
            here.recent.append(measured)
        known: dict[str, Any] = {**measured, "token": token, "answer_tokens": step, "prompt_tokens": here.prompt_tokens}
        if self.classes is not None and token is not None:
            known["token_class"] = self.classes(token, before)
        here.before = token
        for name, of in _MEANS.items():
            if name in self.needs:
                known[name] = sum(past[of] for past in here.recent) / len(here.recent)
        if self.hears_checks:
            known["agreement"] = sum(here.checks) / len(here.checks) if here.checks else None
        return Signals(**{name: known[name] for name in self.needs})


def deepest(plan: DepthPlan, seen: Iterable[tuple[int, Signals]]) -> Decision:
    """The deepest of what rows ask for, each at its step with what it sees; the first of equal ones."""
    return max((Decision(plan.decide(step, signals), signals) for step, signals in seen), key=lambda one: one.depth)


def of_logits(logits: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Entropy, top-1 and margin as far as they are named, each ``[n]``, of logits ``[n, vocabulary]``."""
    if not names:
        return {}
    log_p = torch.log_softmax(logits.float(), dim=-1)
    found = {}
    if "entropy" in names:
        found["entropy"] = -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(-1)
    if "margin" in names:
        top = log_p.topk(2, dim=-1).values.exp()
        found |= {"top1": top[:, 0], "margin": top[:, 0] - top[:, 1]}
    elif "top1" in names:
        found["top1"] = log_p.max(dim=-1).values.exp()
    return {name: found[name] for name in names}


def refuse_signals(plan: DepthPlan, *, tokenizer: Any, checks: bool, lossless: bool = False) -> None:
    """Raise where a run cannot give what the plan's schedule asks for.

    Parameters
    ----------
    plan : DepthPlan
    tokenizer
        None where there is none.
    checks : bool
        Whether the run compares tokens with full depth.
    lossless : bool

    Raises
    ------
    PlanError
    """
    asks = f"schedule {plan.schedule!r} asks for"
    if "token_class" in plan.needs and tokenizer is None:
        raise PlanError(f"{asks} token_class, which needs the tokenizer: give tokenizer=tokenizer")
    if "agreement" in plan.needs and not checks:
        raise PlanError(
            f"{asks} agreement, and nothing compares with full depth in this run; use skipped_kv='recompute', with "
            "verify_below or renew for more checks, or lossless"
        )
    if "cosine" in plan.needs and lossless:
        raise PlanError(f"{asks} cosine, which lossless runs do not keep: their passes run several tokens at once")
