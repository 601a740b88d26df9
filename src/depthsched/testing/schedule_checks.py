"""The rules that every depth schedule keeps, one function a rule. Each raises a Finding that says what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DepthschedError
from ..schedule import AdaptiveSchedule, DepthSchedule, Signals, resolve_depths
from .report import Finding, one_line
from .settings_checks import check_frozen, check_unchanged, say, show, values_of
from .strategies import Case

_RESOLVED = 4096
_USE_NUMPY = "depth() gets one int or a numpy array of steps: use numpy functions, np.where instead of if"


def _at(case: Case, step: int | None = None) -> str:
    where = f"{say(case.schedule)} on {case.num_layers} layers, {case.horizon} tokens"
    return where if step is None else f"{where}, step {step}"


def _resolved(case: Case) -> DepthSchedule:
    made = case.schedule.for_horizon(case.horizon)
    if not isinstance(made, type(case.schedule)):
        raise Finding(
            "bounded",
            f"{_at(case)}: for_horizon() returned {show(made)}; return a schedule of the same class, "
            "such as dataclasses.replace(self, ...)",
        )
    return made


def _call(schedule: DepthSchedule, case: Case, steps: Any, check: str) -> Any:
    try:
        # Values are judged, not warnings: np.where computes both of its sides.
        with np.errstate(all="ignore"):
            return schedule.depth(steps, case.num_layers)
    except (OverflowError, FloatingPointError) as error:
        where = _at(case, None if np.ndim(steps) else int(steps))
        raise Finding(
            "finite", f"{where}: overflows ({one_line(error)}); use a formula that stays finite up to step 10**6"
        ) from error
    except Exception as error:
        asked = f"the array of steps {one_line(steps, 24)}" if np.ndim(steps) else f"step {steps}"
        raise Finding(
            check,
            f"{_at(case)}: depth() fails on {asked} with {type(error).__name__}: {one_line(error, 90)}; {_USE_NUMPY}",
        ) from error


def ask(schedule: DepthSchedule, case: Case, steps: tuple[int, ...] | None = None) -> npt.NDArray[np.float64]:
    """Depths of an array of steps as the schedule returns them, checked to be one finite number a step."""
    steps = case.steps if steps is None else steps
    raw = np.asarray(_call(schedule, case, np.asarray(steps, dtype=np.int64), "scalar_equals_vectorised"))
    if raw.ndim and raw.shape != (len(steps),):
        raise Finding(
            "one_value_per_step",
            f"{_at(case)}: depth() returned an array of shape {raw.shape} for {len(steps)} steps; "
            "return one depth for every step, or one number for all",
        )
    if raw.dtype.kind not in "iuf":
        first = raw.reshape(-1)[0] if raw.size else raw
        raise Finding("finite", f"{_at(case, steps[0])}: depth() returned {show(first)}; return a number")
    depths = np.broadcast_to(raw, (len(steps),)).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(depths))
    if len(bad):
        raise Finding(
            "finite",
            f"{_at(case, steps[bad[0]])}: depth() returned {depths[bad[0]]}; return a finite number at every step "
            "up to 10**6",
        )
    return depths


def _rounded(case: Case, depths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped: npt.NDArray[np.float64] = np.clip(np.floor(depths), case.schedule.min_depth, case.num_layers)
    return clipped


def one_value_per_step(case: Case) -> None:
    """An array of n steps gives n depths, or one number for all of them; also a single step."""
    schedule = _resolved(case)
    ask(schedule, case)
    ask(schedule, case, case.steps[:1])


def finite(case: Case) -> None:
    """Every depth is a finite number, up to step 10**6."""
    ask(_resolved(case), case)


def deterministic(case: Case) -> None:
    """The same question twice has the same answer, whatever was asked in between."""
    schedule = _resolved(case)
    before = values_of(schedule)
    first = ask(schedule, case)
    ask(schedule, case, case.steps[:1])
    second = ask(schedule, case)
    check_unchanged(schedule, before, "depth()")
    different = np.flatnonzero(first != second)
    if len(different):
        at = different[0]
        raise Finding(
            "deterministic",
            f"{_at(case, case.steps[at])}: depth() gave {show(first[at])}, then {show(second[at])}; "
            "the same step must give the same depth, so use no randomness, clock or counter",
        )


def scalar_equals_vectorised(case: Case) -> None:
    """One step at a time gives the depths of all steps at once."""
    schedule = _resolved(case)
    together = ask(schedule, case)
    for step, depth in zip(case.steps, together, strict=True):
        raw = np.asarray(_call(schedule, case, step, "scalar_equals_vectorised"))
        if raw.size != 1 or raw.dtype.kind not in "iuf" or not np.isfinite(raw.reshape(-1)[0]):
            raise Finding(
                "scalar_equals_vectorised",
                f"{_at(case, step)}: depth() returned {show(raw)} for the single step and {show(depth)} "
                f"for it in an array; {_USE_NUMPY}",
            )
        alone = float(raw.reshape(-1)[0])
        # numpy's vectorised power and the scalar one may differ in the last digit; a depth must not.
        if not np.isclose(*np.clip([alone, depth], -1, case.num_layers + 1), rtol=1e-9, atol=1e-9):
            raise Finding(
                "scalar_equals_vectorised",
                f"{_at(case, step)}: depth() gives {show(alone)} for the single step and {show(depth)} "
                f"for it in an array; {_USE_NUMPY}",
            )


def input_unchanged(case: Case) -> None:
    """The array of steps is the caller's and stays as it was."""
    schedule = _resolved(case)
    ask(schedule, case)
    steps = np.asarray(case.steps, dtype=np.int64)
    _call(schedule, case, steps, "input_unchanged")
    different = np.flatnonzero(steps != np.asarray(case.steps))
    if len(different):
        at = different[0]
        raise Finding(
            "input_unchanged",
            f"{_at(case, case.steps[at])}: depth() changed its input array, step {case.steps[at]} became {steps[at]}; "
            "write step = step + 1, not step += 1",
        )


def bounded(case: Case) -> None:
    """The depths of a plan lie in [min_depth, L], and the first one is not negative."""
    schedule = _resolved(case)
    first = ask(schedule, case, (0,))[0]
    if first < 0:
        raise Finding(
            "bounded",
            f"{_at(case, 0)}: depth() returned {show(first)}; return at least 0 at the first step "
            f"(depths are then clamped to [{schedule.min_depth}, {case.num_layers}])",
        )
    ask(schedule, case)
    horizon = min(case.horizon, _RESOLVED)
    try:
        with np.errstate(all="ignore"):
            depths = resolve_depths(_floating(case.schedule), case.num_layers, horizon)
    except DepthschedError as error:
        raise Finding(_owner(schedule), f"{_at(case)}: {error}") from error
    low = case.schedule.min_depth
    outside = np.flatnonzero((depths < low) | (depths > case.num_layers))
    if len(outside):
        at = outside[0]
        raise Finding(
            "bounded",
            f"{_at(case, at)}: the plan's depth is {depths[at]}, expected {low} to {case.num_layers}; "
            "let for_horizon() keep min_depth as it is",
        )
