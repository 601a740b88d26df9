"""What a lossless run refuses, so that no argument is taken and then ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import PlanError
from ..arguments import effective
from ..backends import Backend
from ..ragged import refuse_cache


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


def check_lossless(model: Any, given: Mapping[str, Any], *, rows: int) -> None:
    """Raise where a lossless run would not follow an argument of transformers' ``generate``.

    Raises
    ------
    PlanError
    """
    for name in ("output_scores", "output_logits"):
        if effective(name, model, given):
            raise PlanError(f"{name} is not kept in a lossless run, whose steps make several tokens; run plan='full'")
    refuse_cache(given.get("past_key_values"), effective("cache_implementation", model, given), rows)
