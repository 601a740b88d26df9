"""How many tokens are drafted before full depth looks at them: its spelling, and when it pays. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from .cost import ModelShape
from .errors import PlanError

MOST = 16
"""Tokens of one draft, at most."""

THRESHOLD = 0.6
"""Where a ``confidence`` rule begins, as in Draft & Verify."""

RULES = f"auto, a whole number from 1 to {MOST}, confidence, confidence:{THRESHOLD} or del"


@dataclass(frozen=True)
class DraftTokens:
    """When to stop drafting, as a value.

    Attributes
    ----------
    rule : str
        ``fixed``: always ``number`` tokens. ``auto``: as many as pay by the clock of the run, at the depth that pays
        best, or none. ``del``: the same by acceptance and layers alone, as in DEL. ``confidence``: until the draft is
        less sure of a token than a threshold that begins at ``number`` and adapts, as in Draft & Verify.
    number : float
    """

    rule: str
    number: float = 0

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what a user gave: a number, or a text.

        Raises
        ------
        PlanError
        """
        text = str(value).strip()
        name, colon, rest = text.partition(":")
        if isinstance(value, cls):
            return value
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise PlanError(f"draft_tokens={value!r} must be {RULES}")
        if text in ("auto", "del"):
            return cls(text)
        if name == "confidence":
            threshold = _number(rest) if colon else THRESHOLD
            if threshold is None or not 0 <= threshold <= 1:
                raise PlanError(f"draft_tokens={value!r}: the threshold must be a number from 0 to 1")
            return cls(name, threshold)
        if _number(text) not in range(1, MOST + 1):
            raise PlanError(f"draft_tokens={value!r} must be {RULES}")
        return cls("fixed", int(float(text)))

    @property
    def chooses_depth(self) -> bool:
        """Whether the rule may draft deeper than the schedule says."""
        return self.rule in ("auto", "del")

    def __str__(self) -> str:
        if self.rule == "fixed":
            return f"{self.number:.0f}"
        return self.rule if self.chooses_depth else f"{self.rule}:{self.number:g}"


def read_drafts(
    lossless: bool, draft_tokens: Any = "auto", skipped_kv: str = "auto", drop_finished: bool = False
) -> DraftTokens | None:
    """How a lossless run drafts; None for any other run.

    Raises
    ------
    PlanError
        One of these arguments would not be followed.
    """
    how = DraftTokens.parse(draft_tokens)
    if not lossless:
        if how.rule != "auto":
            raise PlanError(f"draft_tokens={draft_tokens!r} is for lossless runs; add lossless=True or --lossless")
        return None
    if skipped_kv != "auto":
        raise PlanError(f"skipped_kv={skipped_kv!r}: a lossless run leaves every layer's K and V; leave it out")
    if drop_finished:
        raise PlanError("drop_finished is what a lossless run always does; leave it out")
    return how


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def expected_tokens(acceptance: float, drafted: int) -> float:
    """Tokens that a draft and its check yield on average: ``(1 - a**(d + 1)) / (1 - a)``.

    Parameters
    ----------
    acceptance : float
        Chance that full depth keeps a drafted token, given that it kept those before it.
    drafted : int
    """
    if acceptance >= 1:
        return drafted + 1.0
    return float((1 - acceptance ** (drafted + 1)) / (1 - acceptance))


def draft_speedup(acceptance: float, drafted: int, draft_cost: float, verify_cost: float = 1.0) -> float:
    """Tokens per second over those of plain full depth (Leviathan et al. 2023, arXiv 2211.17192).

    Parameters
    ----------
    acceptance : float
    drafted : int
        Tokens of each draft.
    draft_cost, verify_cost : float
        Of one drafted token, and of the pass that checks them, in plain steps at full depth.
    """
    return expected_tokens(acceptance, drafted) / (drafted * draft_cost + verify_cost)


@dataclass(frozen=True)
class DraftPrediction:
    """What drafting is predicted to give, by bytes.

    Attributes
    ----------
    drafted : int
        Tokens of each draft; 0 where plain steps are faster.
    draft_cost : float
        Bytes of a draft step over those of a step at full depth.
    verify_cost : float
    speedup : float
    """

    drafted: int
    draft_cost: float
    verify_cost: float
    speedup: float


def predict_drafting(
    shape: ModelShape,
    depth: int,
    acceptance: float,
    drafted: int | None = None,
    *,
    context: float = 0,
    batch: int = 1,
    bridge: int = 0,
    verify_cost: float = 1.0,
) -> DraftPrediction:
    """Predict the speed-up of a lossless run from the bytes that its passes read. Nothing is measured.

    Parameters
    ----------
    shape : ModelShape
    depth : int
        Layers of a draft step.
    acceptance : float
        Chance that full depth keeps a drafted token.
    drafted : int, optional
        Tokens of each draft; left out, the number from 0 to 16 with the highest speed-up.
    context : float
        Tokens in the cache.
    batch : int
    bridge : int
        Weights that bridges add to a draft step.
    verify_cost : float
        Of a pass over ``drafted + 1`` tokens in steps over one. Weights are read once in both, so that 1 is the bound
        of a machine that waits for memory only.

    Raises
    ------
    PlanError
        The depth is not one of the model's, or the acceptance no share.
    """
    if not 1 <= depth <= shape.num_layers or not 0 <= acceptance <= 1:
        raise PlanError(f"depth {depth} must be from 1 to {shape.num_layers}, and acceptance {acceptance} from 0 to 1")
    full = shape.step_bytes(shape.num_layers, context, batch)
    cost = shape.step_bytes(depth, context, batch, bridge=bridge) / full

    def of(count: int) -> DraftPrediction:
        verify = verify_cost if count else 1.0
        return DraftPrediction(count, cost, verify, draft_speedup(acceptance, count, cost, verify))

    return of(drafted) if drafted is not None else max(map(of, range(MOST + 1)), key=lambda found: found.speedup)
