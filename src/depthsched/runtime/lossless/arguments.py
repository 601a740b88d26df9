"""What a lossless run refuses, so that no argument is taken and then ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import PlanError
from ..arguments import effective
from ..backends import Backend
from .drafting import MOST


def drafting_backend(chosen: Backend, reason: str, asked: str, eager: Callable[[], Backend]) -> tuple[Backend, str]:
    """The backend of a lossless run: the chosen one, or eager where that cannot check several tokens at once.

    Raises
    ------
    PlanError
        It was asked for by name.
    """
    if hasattr(chosen, "drafts"):
        return chosen, reason
    if asked not in ("auto", "eager"):
        raise PlanError(f"backend {asked!r} does not check several tokens in one pass yet; use eager, or auto")
    return eager(), f"{chosen.name} does not check several tokens in one pass yet"


def check_lossless(model: Any, given: Mapping[str, Any], *, lossless: bool, draft_tokens: int | str, cut: bool) -> None:
    """Raise where an argument would not be followed.

    Raises
    ------
    PlanError
    """
    if not lossless:
        raise PlanError(f"draft_tokens={draft_tokens!r} is for lossless runs; add lossless=True")
    whole = isinstance(draft_tokens, int) and not isinstance(draft_tokens, bool)
    if draft_tokens != "auto" and not (whole and 1 <= int(draft_tokens) <= MOST):
        raise PlanError(f"draft_tokens={draft_tokens!r} must be auto or a whole number from 1 to {MOST}")
    for name in ("output_scores", "output_logits"):
        if effective(name, model, dict(given)):
            raise PlanError(f"{name} is not kept in a lossless run, whose steps make several tokens; run plan='full'")
    if cut:
        raise PlanError("drop_finished is what a lossless run always does; leave it out")
