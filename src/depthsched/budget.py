"""From a budget to a setting: "mean depth 20 of 30 over 256 tokens" -> alpha."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .errors import SettingsError
from .order import LayerOrder
from .plans import plan
from .plugins import registry
from .schedule import DepthSchedule
from .settings import field_types, spec_key, split_spec


def schedule_for_budget(
    spec: str,
    mean_depth: float,
    *,
    num_layers: int,
    horizon: int = 256,
    order: str | LayerOrder | None = None,
) -> DepthSchedule:
    """The schedule of a family whose mean depth comes closest to a budget.

    Parameters
    ----------
    spec : str
        The family and any settings that stay fixed, such as ``"d3"`` or ``"linear:start=32"``. The one setting
        that the family marks as its budget setting (``alpha`` of d3) is solved for with scipy.
    mean_depth : float
        Wanted mean depth of the decode steps.
    num_layers, horizon, order
        As for :func:`depthsched.plan`.

    Raises
    ------
    SettingsError
        The family has no budget setting, it is given already, or no value of it reaches the budget.

    Examples
    --------
    >>> schedule_for_budget("d3", 20, num_layers=30, horizon=256).spec()[:11]
    'd3:alpha=0.'
    """
    name, settings = split_spec(spec)
    cls = registry().schedule(name)
    field, hint = budget_field(cls)
    if any(pair.partition("=")[0].strip() == spec_key(field) for pair in settings.split(",")):
        raise SettingsError(f"schedule {name!r}: {spec_key(field)} is what the budget solves for; leave it out")

    def build(value: Any) -> DepthSchedule:
        text = ",".join(filter(None, [settings, f"{spec_key(field)}={value}"]))
        return cls.from_settings(text)

    def excess(value: Any) -> float:
        return plan(build(value), order, num_layers=num_layers, horizon=horizon).mean_depth - mean_depth

    whole = hint is int
    low, high = (1, num_layers) if whole else (1e-9, math.nextafter(1.0, 0.0))
    lowest, highest = excess(low) + mean_depth, excess(high) + mean_depth
    if not math.isfinite(mean_depth) or not lowest <= mean_depth <= highest:
        raise SettingsError(
            f"mean depth {mean_depth} is out of reach for {spec!r}: between {lowest:.2f} and {highest:.2f}"
        )
    return build(_solve_whole(excess, num_layers) if whole else solve_number(excess, low, high))


def budget_field(cls: type[DepthSchedule]) -> tuple[dataclasses.Field[Any], Any]:
    """The setting of a schedule that a budget is solved for, and its type."""
    for field, hint in field_types(cls):
        if field.metadata.get("budget"):
            return field, hint
    raise SettingsError(f"schedule {cls.name!r} has no setting to solve a budget for; give its settings yourself")


def _solve_whole(excess: Any, num_layers: int) -> int:
    return min(range(1, num_layers + 1), key=lambda value: (abs(excess(value)), value))


def solve_number(excess: Any, low: float, high: float) -> float:
    """Where the excess, which does not fall, changes sign; of the two sides of that jump, the closer one."""
    from scipy.optimize import bisect

    if excess(high) <= 0:
        return high
    if excess(low) >= 0:
        return low
    root = float(bisect(excess, low, high, xtol=1e-13, rtol=1e-14, maxiter=200))
    sides = [max(low, root - 1e-11), root, min(high, root + 1e-11)]
    # As few digits as keep the mean depth: 0.9958 reads better than 0.99581234567.
    best = min(sides, key=lambda value: abs(excess(value)))
    target = abs(excess(best))
    for digits in range(3, 13):
        short = round(best, digits)
        if low < short < high and abs(excess(short)) <= target + 1e-9:
            return short
    return best
