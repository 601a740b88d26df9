"""What a run that renews its cache needs: a backend that can, and a cache that can be cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers.cache_utils import DynamicCache

from ..errors import PlanError
from .arguments import effective
from .backends import Backend
from .cache import can_cut


def renewing_backend(chosen: Backend, reason: str, asked: str, eager: Callable[[], Backend]) -> tuple[Backend, str]:
    """The chosen backend, or eager where that cannot run several positions in one step.

    Raises
    ------
    PlanError
        It was asked for by name.
    """
    if hasattr(chosen, "renews"):
        return chosen, reason
    if asked not in ("auto", "eager"):
        raise PlanError(f"backend {asked!r} does not renew K and V in one pass yet; use eager, or auto")
    return eager(), f"{chosen.name} does not renew K and V in one pass yet"


def cache_to_renew(model: Any, given: Mapping[str, Any]) -> DynamicCache:
    """The cache of the run: the caller's, or a new one that keeps every position, also behind a sliding window.

    Raises
    ------
    PlanError
        The caller's cannot be cut where a pass begins.
    """
    cache, kind = given.get("past_key_values"), effective("cache_implementation", model, given)
    if kind is not None:
        raise PlanError(
            f"skipped_kv='recompute' takes positions off the cache and runs them again, which a cache of "
            f"cache_implementation={kind!r} cannot; leave it out"
        )
    if cache is None:
        return DynamicCache()
    if not can_cut(cache):
        raise PlanError(
            "skipped_kv='recompute' takes positions off the cache and runs them again, which this "
            f"{type(cache).__name__} cannot; give a DynamicCache() without a sliding window, or none"
        )
    return cache
