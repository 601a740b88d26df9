"""The rules that every depth schedule keeps, one function per rule. Each raises a Finding that says what to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import DepthschedError
from ..schedule import AdaptiveSchedule, DepthSchedule, decide_depth, one_number, raw_depths, resolve_depths
from ..signals import Signals, check_needs
from ..text import one_line
from .report import Finding, Note
from .settings_checks import check_frozen, check_same, check_unchanged, say, show, values_of
from .strategies import LAST_STEP, Case, probes

# Steps of a plan that are resolved one by one; beyond it the checks look at chosen steps.
_RESOLVED = 4096
_USE_NUMPY = "depth() gets one int or a numpy array of steps: use numpy functions, np.where instead of if"


def _at(case: Case, step: int | None = None) -> str:
    where = f"{say(case.schedule)} on {case.num_layers} layers, {case.horizon} tokens"
    return where if step is None else f"{where}, step {step}"


def _resolved(case: Case) -> DepthSchedule:
    if case.schedule.from_profile:
        raise Note(
            "from_profile", f"{say(case.schedule)}: its depths come from a profile; check them with plans of profiles"
        )
    made = case.schedule.for_horizon(case.horizon)
    if not isinstance(made, type(case.schedule)):
        raise Finding(
            "bounded",
            f"{_at(case)}: for_horizon() returned {show(made)}; return a schedule of the same class, "
            "such as dataclasses.replace(self, ...)",
        )
    return made


def _without_name(schedule: DepthSchedule, error: DepthschedError) -> str:
    return str(error).removeprefix(f"schedule {schedule.name!r} ")


def _ask(
    schedule: DepthSchedule, case: Case, steps: tuple[int, ...] | None = None
) -> tuple[npt.NDArray[np.float64], str]:
    """Depths as the schedule returns them, one finite number for each step, and why it was asked step by step."""
    steps = case.steps if steps is None else steps
    try:
        # Values are judged, not warnings: np.where computes both of its sides.
        with np.errstate(all="ignore"):
            raw, why = raw_depths(schedule, np.asarray(steps, dtype=np.int64), case.num_layers)
    except DepthschedError as error:
        said = f"{_at(case)}: {_without_name(schedule, error)}"
        if isinstance(error.__cause__, OverflowError | FloatingPointError):
            raise Finding(
                "finite", f"{said}: it overflows; use a formula that stays finite up to step 10**6"
            ) from error
        broken = "finite" if said.endswith("return a number") else "one_value_per_step"
        raise Finding(broken, said) from error
    if raw.dtype.kind not in "iuf":
        raise Finding("finite", f"{_at(case, steps[0])}: depth() returned {show(raw[0])}; return a number")
    depths = raw.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(depths))
    if len(bad):
        raise Finding(
            "finite",
            f"{_at(case, steps[bad[0]])}: depth() returned {depths[bad[0]]}; return a finite number at every step "
            "up to 10**6",
        )
    return depths, why


def ask(schedule: DepthSchedule, case: Case, steps: tuple[int, ...] | None = None) -> npt.NDArray[np.float64]:
    """Depths of steps as the schedule returns them, checked to be one finite number for each step."""
    return _ask(schedule, case, steps)[0]


def _rounded(case: Case, depths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped: npt.NDArray[np.float64] = np.clip(np.floor(depths), case.schedule.min_depth, case.num_layers)
    return clipped


def one_value_per_step(case: Case) -> None:
    """Every step has one depth."""
    schedule = _resolved(case)
    ask(schedule, case)
    ask(schedule, case, case.steps[:1])


def finite(case: Case) -> None:
    """Every depth is a finite number, up to step 10**6."""
    ask(_resolved(case), case)
    far = LAST_STEP + 1
    longest = replace(case, horizon=far, steps=probes(case.schedule, far))
    ask(_resolved(longest), longest)


def deterministic(case: Case) -> None:
    """The same question twice has the same answer, whatever was asked in between."""
    schedule = _resolved(case)
    before = values_of(schedule)
    first = ask(schedule, case)
    ask(schedule, case, case.steps[:1])
    second = ask(schedule, case)
    check_unchanged(schedule, before, "depth()")
    advice = "the same step must give the same depth, so use no randomness, clock or counter"
    for step, one, other in zip(case.steps, first, second, strict=True):
        check_same("deterministic", _at(case, step), "depth()", one, other, advice)


def scalar_equals_vectorised(case: Case) -> None:
    """One step at a time gives the depths of all steps at once."""
    schedule = _resolved(case)
    together, why = _ask(schedule, case)
    if why:
        return  # only ever asked step by step
    for step, depth in zip(case.steps, together, strict=True):
        try:
            with np.errstate(all="ignore"):
                alone = float(one_number(schedule, "depth", 0, step, case.num_layers))
        except DepthschedError as error:
            raise Finding(
                "scalar_equals_vectorised",
                f"{_at(case, step)}: {_without_name(schedule, error)}, and gives {show(depth)} for it in an array; "
                f"{_USE_NUMPY}",
            ) from error
        # numpy's vectorised power and the scalar one may differ in the last digit; a depth must not.
        low, high = sorted(min(max(value, -1.0), case.num_layers + 1.0) for value in (alone, float(depth)))
        if not high - low <= 1e-9 * max(high, 1.0):
            raise Finding(
                "scalar_equals_vectorised",
                f"{_at(case, step)}: depth() gives {show(alone)} for the single step and {show(depth)} "
                f"for it in an array; {_USE_NUMPY}",
            )


def vectorised(case: Case) -> None:
    """One call answers an array of steps; otherwise they are asked one by one, which takes longer (a note)."""
    _, why = _ask(_resolved(case), case)
    if why:
        raise Note(
            "vectorised",
            f"{_at(case)}: depth() is asked step by step, for an array of steps failed ({one_line(why, 80)}); "
            "the plan is the same and takes longer to make. For arrays write np.where(step < 9, a, b) for if, "
            "np.minimum for min, numpy's functions for those of math",
        )


def input_unchanged(case: Case) -> None:
    """The array of steps is the caller's and stays as it was."""
    schedule = _resolved(case)
    _, why = _ask(schedule, case)
    if why:
        return  # only ever asked step by step
    steps = np.asarray(case.steps, dtype=np.int64)
    with np.errstate(all="ignore"):
        schedule.depth(steps, case.num_layers)
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
    try:
        with np.errstate(all="ignore"):
            depths = resolve_depths(case.schedule, case.num_layers, min(case.horizon, _RESOLVED))
    except DepthschedError as error:
        # The framework's own refusals belong to the checks of what the class declares.
        owner = next((word for word in ("monotone", "starts_full") if word in str(error)), "bounded")
        owner = "adaptive" if any(words in str(error) for words in ("needs a signal", ": needs is")) else owner
        raise Finding(owner, f"{_at(case)}: {error}") from error
    low = case.schedule.min_depth
    outside = np.flatnonzero((depths < low) | (depths > case.num_layers))
    if len(outside):
        at = int(outside[0])
        raise Finding(
            "bounded",
            f"{_at(case, at)}: the plan's depth is {depths[at]}, expected {low} to {case.num_layers}; "
            "let for_horizon() keep min_depth as it is",
        )


def monotone(case: Case) -> None:
    """Where the class declares monotone, the depth never rises."""
    if not case.schedule.monotone:
        return
    depths = _rounded(case, ask(_resolved(case), case))
    rises = np.flatnonzero(np.diff(depths) > 0)
    if len(rises):
        at = int(rises[0])
        raise Finding(
            "monotone",
            f"{_at(case, case.steps[at + 1])}: the depth rises from {depths[at]:.0f} (step {case.steps[at]}) to "
            f"{depths[at + 1]:.0f}, but the class declares monotone = True; return a depth that never rises, "
            "or set monotone = False on the class",
        )


def starts_full(case: Case) -> None:
    """Where the class declares starts_full, every layer runs at step 0."""
    if not case.schedule.starts_full:
        return
    depth = _rounded(case, ask(_resolved(case), case, (0,)))[0]
    if depth != case.num_layers:
        raise Finding(
            "starts_full",
            f"{_at(case, 0)}: the depth is {depth:.0f}, expected {case.num_layers}, because the class declares "
            "starts_full = True; return num_layers at step 0, or set starts_full = False on the class",
        )


def frozen(case: Case) -> None:
    """The class is a frozen dataclass; asking for depths changes no setting."""
    check_frozen(case.schedule)
    schedule = _resolved(case)
    before = values_of(schedule)
    try:
        ask(schedule, case)
    except Finding:
        return  # another check's business
    check_unchanged(schedule, before, "depth()")


def adaptive(value: tuple[Case, Signals]) -> None:
    """decide() gives one finite number, the same when asked twice, whatever it sees, and reads what ``needs`` names."""
    case, signals = value
    schedule = _resolved(case)
    assert isinstance(schedule, AdaptiveSchedule)
    try:
        check_needs(schedule.name, schedule.needs)
    except DepthschedError as error:
        raise Finding("adaptive", str(error)) from error
    step = case.steps[0]
    where = f"{_at(case, step)}, {signals}"
    try:
        with np.errstate(all="ignore"):
            answers = [float(one_number(schedule, "decide", 0, step, case.num_layers, signals)) for _ in range(2)]
    except DepthschedError as error:
        said = _without_name(schedule, error)
        raise Finding(
            "adaptive", f"{_at(case)}: {said}{'' if 'write needs' in said else '; return a depth'}"
        ) from error
    if not np.isfinite(answers).all():
        raise Finding("adaptive", f"{where}: decide() returned {answers[0]}; return one finite number")
    check_same("adaptive", where, "decide()", answers[0], answers[1], "the same signals must give the same depth")
    if answers[0] < 0:
        raise Finding("adaptive", f"{where}: decide() returned {show(answers[0])}; return at least 0")
    depth = decide_depth(schedule, step + int(schedule.start), case.num_layers, signals)
    if not schedule.min_depth <= depth <= case.num_layers:
        raise Finding("adaptive", f"{where}: the depth is {depth}, expected {schedule.min_depth} to {case.num_layers}")


CASE_CHECKS = {
    rule.__name__: rule
    for rule in (
        frozen,
        one_value_per_step,
        finite,
        deterministic,
        scalar_equals_vectorised,
        vectorised,
        input_unchanged,
        bounded,
        monotone,
        starts_full,
    )
}
