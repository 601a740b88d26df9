"""What a scoring asks of every piece, as a value that can go to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DepthschedError, PlanError
from ..plans import DepthPlan
from ..runtime.renewal import Renewal


@dataclass(frozen=True)
class Asked:
    """Plans and how they are scored, as of :func:`~depthsched.score.score`."""

    plans: tuple[DepthPlan, ...]
    method: str
    renewal: Renewal | None
    backend: str
    force: bool
    tokenizer: Any

    def to_json(self) -> dict[str, Any]:
        """A JSON object; a worker has a tokenizer of its own.

        Raises
        ------
        PlanError
            The text of a plan does not give the plan back.
        """
        rules = self.renewal
        return {
            "plans": [plan_text(plan) for plan in self.plans],
            "method": self.method,
            "renewal": rules and {"verify_below": rules.verify_below, "every": rules.every, "ends": bool(rules.decode)},
            "backend": self.backend,
            "force": self.force,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], tokenizer: Any) -> Asked:
        """On a worker.

        Raises
        ------
        PlanError, ProfileError
            A profile is not what it is where the work was given out.
        """
        rules = data["renewal"]
        renewal = rules and Renewal(rules["verify_below"], rules["every"], tokenizer.decode if rules["ends"] else None)
        plans = tuple(plan_of(*plan) for plan in data["plans"])
        return cls(plans, data["method"], renewal, data["backend"], data["force"], tokenizer)


def plan_text(plan: DepthPlan) -> tuple[dict[str, Any], str]:
    """A plan as a JSON object that :func:`plan_of` reads on a worker, and its digest.

    Raises
    ------
    PlanError
        The text of the plan does not give the plan back.
    """
    data = plan.to_json()
    if plan.profile is not None:
        data["profile"] = str(plan.profile.folder.resolve())  # a worker stands in another folder
    try:
        again = DepthPlan.from_json(data)
    except DepthschedError as problem:
        raise PlanError(f"plan {plan.schedule!r} cannot go to a worker: {problem}") from problem
    if again.digest != plan.digest or again.decider != plan.decider:
        raise PlanError(f"plan {plan.schedule!r} cannot go to a worker: its text gives another plan")
    return data, plan.digest


def plan_of(data: Mapping[str, Any], digest: str) -> DepthPlan:
    """The plan of :func:`plan_text`.

    Raises
    ------
    PlanError, ProfileError
        The profile is not what it is where the work was given out.
    """
    plan = DepthPlan.from_json(data)
    if plan.digest != digest:
        raise PlanError(f"plan {plan.schedule!r} has another profile on a worker, in {data['profile']}")
    return plan
