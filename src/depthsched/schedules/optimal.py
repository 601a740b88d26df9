"""The depths that do the least damage for a budget, solved from what a calibration measured."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..cost import Floats, step_costs
from ..errors import PlanError, ProfileError, SettingsError
from ..order import keep_layers
from ..schedule import DepthSchedule
from ..settings import setting
from .full import Full
from .least_damage import least_damage
from .step import Step

if TYPE_CHECKING:
    from ..damage import DamageTable
    from ..profile import Profile

CALIBRATE = "depthsched calibrate --prompts FILE --out DIR"
MOST_STRETCHES = 256


@dataclass(frozen=True)
class Optimal(DepthSchedule):
    """The depths that never rise and do the least damage for a budget, solved from a profile.

    The profile's damage table has the KL of every depth at every place of an answer, the account of cost its bytes;
    a dynamic program finds the sequence with the least sum of damage. It assumes that damage adds up over positions. It
    does not quite: shallow steps also hurt later ones through the cache. The table is measured with all steps before at
    the same depth, which counts that, for a schedule that falls rather too much than too little.
    """

    budget: float | None = setting(
        None, low=1, high=1000, help="saving in bytes over the horizon, such as 1.25; this or mean_depth"
    )
    mean_depth: float | None = setting(None, low=1, high=10**6, help="mean depth of the decode steps, in its place")

    from_profile: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and self.mean_depth is not None:
            raise SettingsError("schedule 'optimal' takes budget or mean_depth, not both")

    def depth(self, step: Any, num_layers: int) -> Any:
        raise PlanError(
            f"schedule 'optimal' is solved from a profile, in its own order with its bridges: give --profile DIR, "
            f"which {CALIBRATE} writes, and no other order"
        )

    def for_profile(self, profile: Profile | None, num_layers: int, horizon: int) -> DepthSchedule:
        if profile is None:
            return self  # its depth() says what is missing
        if self.budget is None and self.mean_depth is None:
            raise SettingsError("schedule 'optimal' needs budget or mean_depth, for example optimal:budget=1.25")
        if profile.damage is None:
            raise ProfileError(
                f"the profile in {profile.place} has no damage table, from which 'optimal' is solved; "
                f"calibrate again: {CALIBRATE}"
            )
        first = max(int(self.start), 1)
        if horizon <= 1:
            return Full()
        depths = [d for d in profile.damage.depths if d >= self.min_depth]
        ends = _stretches(min(first, horizon), horizon)
        cost = self._cost(profile, depths, ends)
        total, fixed = self._budget(profile, horizon, first)
        damage = np.stack([_damage(profile.damage, depth, ends) for depth in depths], axis=1)
        taken = least_damage(cost, damage, total - fixed)
        if taken is None:
            raise SettingsError(self._out_of_reach(cost, total, fixed, horizon))
        return _as_step(num_layers, [depths[choice] for choice in taken], ends)

    def _budget(self, profile: Profile, horizon: int, first: int) -> tuple[float, float]:
        """What all decode steps may cost, and what those before ``start`` do."""
        full = profile.damage.shape.num_layers if profile.damage else 0
        if self.mean_depth is not None:
            return float(np.floor(self.mean_depth * (horizon - 1) + 1e-9)), float(full * (min(first, horizon) - 1))
        whole = _bytes(profile, full, 1, horizon)
        return whole / (self.budget or 1.0), _bytes(profile, full, 1, min(first, horizon))

    def _cost(self, profile: Profile, depths: list[int], ends: list[int]) -> Floats:
        """Of each stretch of steps at each depth, ``[stretches, depths]``."""
        if self.mean_depth is not None:
            return np.outer(np.diff(ends), depths).astype(np.float64)
        rows = [[_bytes(profile, d, a, b) for d in depths] for a, b in pairwise(ends)]
        return np.array(rows).reshape(-1, len(depths))

    def _out_of_reach(self, cost: Floats, total: float, fixed: float, horizon: int) -> str:
        least = fixed + float(cost.min(axis=1).sum())
        if self.mean_depth is not None:
            asked, reach = f"mean_depth={self.mean_depth:g}", f"from {least / (horizon - 1):.2f} on"
        else:
            asked, reach = f"budget={self.budget:g}", f"up to {total * (self.budget or 1) / least:.3f}"
        return f"schedule 'optimal': {asked} is out of reach over {horizon} tokens with this profile; {reach}"


def _stretches(first: int, horizon: int) -> list[int]:
    """Boundaries of the stretches of steps that share a depth: single steps, or longer ones of a long output."""
    size = -(-(horizon - first) // MOST_STRETCHES) or 1
    return [*range(first, horizon, size), horizon]


def _bytes(profile: Profile, depth: int, first: int, end: int) -> float:
    """Bytes of decode steps ``first`` to ``end - 1`` at a depth: linear in the context, so that the middle counts."""
    assert profile.damage is not None
    shape, steps = profile.damage.shape, end - first
    context = profile.damage.prompt_tokens + (first + end - 1) / 2
    keep = keep_layers(profile.drop_order, depth, shape.num_layers)
    whole = int(context)
    low, high = step_costs(
        shape, [depth] * 2, whole - 1, keep_sets={depth: keep}, bridge_params=profile.bridge_params
    ).scheduled
    return steps * float(low + (high - low) * (context - whole))


def _damage(table: DamageTable, depth: int, ends: list[int]) -> Floats:
    """Of each stretch at a depth: the sum over its steps."""
    sums = np.concatenate([[0.0], table.at(depth, np.arange(ends[0], ends[-1])).cumsum()])
    found: Floats = np.diff(sums[np.asarray(ends) - ends[0]])
    return found


def _as_step(num_layers: int, depths: list[int], ends: list[int]) -> DepthSchedule:
    falls = [(end, depth) for end, depth, before in zip(ends, depths, [num_layers, *depths], strict=False)
             if depth < before]  # fmt: skip
    if not falls:
        return Full()
    at, to = zip(*falls, strict=True)
    return Step(at=at, drop=tuple(num_layers - depth for depth in to))
