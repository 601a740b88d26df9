"""Rules that hold for every way of running a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapters import Adapter
from ..errors import PlanError
from ..parallel.ranks import Ranks
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..schedule import DepthSchedule

SKIPPED_KV = ("auto", "write", "omit", "recompute")


def as_plan(
    plan: DepthPlan | PlanSpec | DepthSchedule | str, order: Any, profile: Any, num_layers: int, horizon: int
) -> DepthPlan:
    """The plan itself, or a spec or schedule resolved for the model."""
    if not isinstance(plan, DepthPlan):
        return PlanSpec.parse(plan, order, profile).resolve(num_layers, horizon)
    if order is not None:
        raise PlanError("this plan has its order already; give the order when you make the plan")
    if profile is not None:
        raise PlanError("this plan is resolved already; give the profile when you make the plan")
    return plan


def check_plan(plan: DepthPlan, adapter: Adapter) -> None:
    """Raise unless the plan was resolved for a model of this depth."""
    if plan.num_layers != adapter.num_layers:
        raise PlanError(
            f"the plan is for {plan.num_layers} layers and the model has {adapter.num_layers}; "
            f"resolve it with num_layers={adapter.num_layers}"
        )
    if plan.profile is not None:
        plan.profile.check_model(adapter.model)


def begin_on_ranks(ranks: Ranks | None, plan: DepthPlan, given: Mapping[str, Any], ids: Any = None) -> None:
    """Before a run: every rank runs the same plan on the same prompt, and draws the same random numbers.

    Raises
    ------
    PlanError
        The run would end by the clock.
    RankError
    """
    if ranks is None:
        return
    if given.get("max_time", getattr(given.get("generation_config"), "max_time", None)) is not None:
        raise PlanError("every rank has a clock of its own, so that max_time would end them at different tokens; "
                        "leave it out, and give max_new_tokens")  # fmt: skip
    plain = {name: value for name, value in given.items() if isinstance(value, (bool, int, float, str))}
    ids = given.get("input_ids", given.get("inputs")) if ids is None else ids
    ranks.begin("prompt", None if ids is None else ids.tolist())
    ranks.same("plan", plan.digest)
    ranks.same("setting of the run", sorted(plain.items()))


def agreed(plan: DepthPlan, depth: int, ranks: Ranks | None) -> int:
    """The depth of a step: of a model on several ranks every one runs what rank 0 decides from what it sees."""
    return ranks.first(depth) if ranks is not None and plan.adaptive else depth


def writes_kv(plan: DepthPlan, skipped_kv: str) -> bool:
    """Whether skipped layers write K and V.

    ``auto`` writes only where a skipped layer may run again: for plans that are not nested. ``recompute`` never does.

    Raises
    ------
    PlanError
        ``omit`` on a plan that is not nested, which would read positions that were never computed.
    """
    if skipped_kv not in SKIPPED_KV:
        raise PlanError(f"skipped_kv={skipped_kv!r} must be one of {', '.join(SKIPPED_KV)}")
    if skipped_kv == "omit" and not plan.nested:
        raise PlanError(
            f"plan {plan.schedule!r} is not nested: its depth can rise, and a layer that runs again would read "
            "positions it never saw; use skipped_kv='write', 'recompute' or 'auto'"
        )
    return skipped_kv == "write" or (skipped_kv == "auto" and not plan.nested)
