"""What the demo found, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..stats import Interval


@dataclass(frozen=True)
class DemoRow:
    """One way to decode, measured.

    Attributes
    ----------
    name, plan, profile : str
        What it is called; the plan as a spec; where its calibrated layers come from, None where there are none.
    lossless : bool
    backend, reason : str
        What ran and why; ``transformers`` for its own ``generate``.
    mean_depth : float
        Layers that ran for a decoded token. A lossless run counts drafts and checks, so that it may exceed the model's.
    tokens_per_second, vs_transformers, vs_full : Interval
        Over prompts and rounds; the ratios prompt by prompt and round by round.
    same_token : float
        Share of places in full depth's own answers where the way's next token is full depth's. Every place is asked
        with full depth's text before it, since after a first difference two texts have nothing to compare. Of a
        lossless run, whose text is its claim, ``same_text``.
    same_text : float
        Share of an answer before its first token that is not full depth's.
    """

    name: str
    plan: str
    profile: str | None
    lossless: bool
    backend: str
    reason: str
    mean_depth: float
    tokens_per_second: Interval
    vs_transformers: Interval
    vs_full: Interval
    same_token: float
    same_text: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object; intervals are ``{median, low, high}``."""
        return {name: value.to_json() if isinstance(value, Interval) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class DemoText:
    """What a way wrote to the first prompt, up to the end of the answer: tokens, and how many layers ran for each."""

    name: str
    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    num_layers: int


@dataclass(frozen=True)
class DemoResult:
    """Rows of the table, the answers of full depth and of one lossy way, and what they were measured on.

    Attributes
    ----------
    context : mapping
        Of both sides dtype and form of the weights (``dtype``, ``weights``, ``transformers_dtype``); ``device``,
        ``machine``, ``threads``, ``versions``, ``prompts``, ``tokens``, ``rounds``, the schedule ``d3``, ``places``
        where next tokens were compared, and ``notes`` of plans.
    """

    context: Mapping[str, Any]
    rows: tuple[DemoRow, ...]
    texts: tuple[DemoText, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {**self.context, "rows": [row.to_json() for row in self.rows], "texts": [vars(t) for t in self.texts]}
