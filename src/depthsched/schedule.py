"""The idea: how many decoder layers run at each step. Knows no torch and no model."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from .classes import check_method
from .errors import DepthschedError, ScheduleError, SettingsError
from .settings import Settings, setting
from .signals import Signals, check_needs
from .text import one_line

if TYPE_CHECKING:
    from .profile import Profile

_HUGE = 2**62


@dataclasses.dataclass(frozen=True)
class DepthSchedule(Settings):
    """How many decoder layers run at each step.

    Subclass it as a frozen dataclass, make the settings its fields and write one method, :meth:`depth`.
    depthsched rounds down, clamps to ``[min_depth, num_layers]``, and checks that values are finite and
    that what the class declares holds.

    Attributes
    ----------
    start : int or float
        The decay begins here. An integer counts tokens, a decimal in (0, 1) is a fraction of the horizon.
        Before it every layer runs; from it on the schedule counts from 0.
    min_depth : int
        The depth never falls below this.
    monotone : bool, class attribute
        Declares that the depth never rises from one step to the next. True unless the class says otherwise;
        with it a plan is nested and needs no KV repair.
    starts_full : bool, class attribute
        Declares that ``depth(0, L) == L``.
    from_profile : bool, class attribute
        Declares that depths come from a profile, through :meth:`for_profile`, and that there are none without one.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class HalfLife(DepthSchedule):
    ...     half_life: float = 128.0
    ...
    ...     def depth(self, step, num_layers):
    ...         return num_layers * 0.5 ** (step / self.half_life)
    """

    kind: ClassVar[str] = "schedule"
    monotone: ClassVar[bool] = True
    starts_full: ClassVar[bool] = False
    from_profile: ClassVar[bool] = False

    start: int | float = setting(
        0, low=0, kw_only=True, help="full depth before this: tokens, or a fraction of the horizon"
    )
    min_depth: int = setting(1, low=1, kw_only=True, help="the depth never falls below this")

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.start, float) and not 0 < self.start < 1:
            raise SettingsError(
                f"schedule {self.name!r}: start={self.start} must be a whole number of tokens or a fraction in (0, 1)"
            )

    def depth(self, step: Any, num_layers: int) -> Any:
        """Depth at ``step``, before rounding and clamping.

        A plan asks for an array of all its steps. Where that fails, or does not give one depth for each, it asks
        step by step with an int, which takes longer and gives the same plan.

        Parameters
        ----------
        step : int or numpy array of int64
            Steps counted from ``start``; never negative.
        num_layers : int
            Decoder layers of the model, L.

        Returns
        -------
        float, int or numpy array of the shape of ``step``
        """
        raise ScheduleError(f"schedule {self.name!r} does not define depth(self, step, num_layers); add the method")

    def for_horizon(self, horizon: int) -> Self:
        """This schedule with everything that depends on the number of tokens filled in.

        The base turns a fractional ``start`` into tokens. Override it, and call it through ``super()``,
        when a setting of yours means "of the whole output".
        """
        if isinstance(self.start, float):
            return dataclasses.replace(self, start=math.floor(self.start * horizon))
        return self

    def for_profile(self, profile: Profile | None, num_layers: int, horizon: int) -> DepthSchedule:
        """The schedule whose depths a plan takes: this one, unless it is made from what a calibration measured.

        Called once for a plan, after :meth:`for_horizon`.

        Parameters
        ----------
        profile : Profile or None
            The profile whose order and bridges the plan uses.
        num_layers, horizon : int
        """
        return self


@dataclasses.dataclass(frozen=True)
class AdaptiveSchedule(DepthSchedule):
    """A schedule that also sees how the text and the model are going: before each step the signals it asks for.

    Its depth may rise, so a run writes K and V of skipped layers from the passed-through state.
    :meth:`depth` is what :meth:`decide` would choose for a sure model; plans show it as the curve.

    Attributes
    ----------
    needs : tuple of str, class attribute
        Names of :data:`depthsched.signals.SIGNALS`: what :meth:`decide` reads. Nothing else is computed, and reading
        anything else is an error.
    """

    monotone: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("entropy", "top1", "margin")

    def decide(self, step: int, num_layers: int, signals: Signals) -> Any:
        """Depth at one step of one row, given what it shows after the last token. Rounded and clamped like any depth.

        Parameters
        ----------
        step : int
            Counted from ``start``.
        num_layers : int
        signals : Signals
            Those of ``needs``.
        """
        raise ScheduleError(f"schedule {self.name!r} does not define decide(self, step, num_layers, signals); add it")


def resolve_depths(schedule: DepthSchedule, num_layers: int, horizon: int) -> npt.NDArray[np.int64]:
    """Depth of every step 0..horizon-1, rounded, clamped and checked.

    Step 0 comes out of the prefill and is always at full depth.

    Raises
    ------
    ScheduleError
        The schedule failed, returned no number, nan, the wrong shape, or rose although it is declared monotone.
    SettingsError
        ``min_depth`` is larger than the model.
    """
    return ask_depths(schedule, num_layers, horizon)[0]


def ask_depths(schedule: DepthSchedule, num_layers: int, horizon: int) -> tuple[npt.NDArray[np.int64], int]:
    """:func:`resolve_depths`, and the largest depth that was asked for before it was clamped to the model."""
    check_min_depth(schedule, num_layers)
    check_method(schedule, "depth", "step", "num_layers", error=ScheduleError)
    if isinstance(schedule, AdaptiveSchedule):
        check_method(schedule, "decide", "step", "num_layers", "signals", error=ScheduleError)
        check_needs(schedule.name, schedule.needs)
    schedule = schedule.for_horizon(horizon)
    start = min(int(schedule.start), horizon)
    steps = np.arange(horizon - start, dtype=np.int64)
    depths = np.full(horizon, num_layers, dtype=np.int64)
    deepest = num_layers
    if len(steps):
        raw, _ = raw_depths(schedule, steps, num_layers, start)
        depths[start:] = _clamp(schedule, raw, num_layers, start)
        deepest = int(np.floor(raw.max()))
    if schedule.starts_full and len(steps) and depths[start] != num_layers:
        raise ScheduleError(
            f"schedule {schedule.name!r} declares starts_full but its depth(0) is {depths[start]} of {num_layers}; "
            "return num_layers there or set starts_full = False"
        )
    if horizon:
        depths[0] = num_layers
    _check_monotone(schedule, depths)
    return depths, deepest


def decide_depth(schedule: AdaptiveSchedule, step: int, num_layers: int, signals: Signals) -> int:
    """Depth of one step of an adaptive schedule; full before ``start``."""
    start = int(schedule.start)
    if step < max(start, 1):
        return num_layers
    raw = one_number(schedule, "decide", start, step - start, num_layers, signals)
    return int(_clamp(schedule, np.asarray([raw]), num_layers, step)[0])


def check_min_depth(schedule: DepthSchedule, num_layers: int) -> None:
    if schedule.min_depth > num_layers:
        raise SettingsError(
            f"schedule {schedule.name!r}: min_depth={schedule.min_depth} is more than the model's {num_layers} layers"
        )


def raw_depths(
    schedule: DepthSchedule, steps: npt.NDArray[np.int64], num_layers: int, start: int = 0
) -> tuple[npt.NDArray[Any], str]:
    """What ``depth`` returns for each step, and why the steps were asked one by one; empty where an array was enough.

    Parameters
    ----------
    steps : array of int64, ``[n]``
        Counted from ``start``; not empty.

    Raises
    ------
    ScheduleError
        The method fails on a single step too, or does not give one number for it.
    """
    # Never an array of one: numpy lets `if` and int() pass there, and one depth for all could not be told apart.
    asked = steps.copy() if len(steps) > 1 else np.append(steps, steps[-1] + 1)
    try:
        together = np.asarray(schedule.depth(asked, num_layers))
    except DepthschedError:
        raise
    except Exception as error:  # whatever a method written for one step raises on an array
        why = f"{type(error).__name__}: {one_line(error, 120)}"
    else:
        if together.shape == asked.shape and together.dtype.kind != "O":
            return together[: len(steps)], ""
        if together.ndim == 0 and _is_constant(schedule, together.item(), steps, num_layers):
            return np.broadcast_to(together, steps.shape), ""
        given = "one number" if together.ndim == 0 else f"shape {together.shape} of {together.dtype.name}"
        why = f"it returned {given} for {len(asked)} steps, not one depth per step"
    try:
        return np.asarray([one_number(schedule, "depth", start, step, num_layers) for step in steps.tolist()]), why
    except ScheduleError as error:
        # A method that cannot work on an int is meant for arrays, and there is its fault.
        if not any(words in str(error.__cause__) for words in ("'int'", "0-dimensional")):
            raise
        raise ScheduleError(f"{error} (for an array of steps: {why})") from error.__cause__


def _is_constant(schedule: DepthSchedule, depth: Any, steps: npt.NDArray[np.int64], num_layers: int) -> bool:
    """Whether the one depth that an array gave is that of every step; a maximum over the steps is not."""
    try:
        return all(bool(schedule.depth(step, num_layers) == depth) for step in steps.tolist())
    except Exception:  # then the step by step call says what is wrong
        return False


def one_number(schedule: DepthSchedule, method: str, start: int, step: int, *rest: Any) -> int | float:
    """One number from ``depth`` or ``decide`` for one step."""
    name, at = f"schedule {schedule.name!r}", start + step
    try:
        answer = getattr(schedule, method)(step, *rest)
        raw = np.asarray(answer)
    except DepthschedError:
        raise
    except Exception as error:  # whatever a user's method raises becomes one line that names it
        call = f"{method}({', '.join(map(str, (step, *rest)))})"
        raise ScheduleError(
            f"{name} failed at step {at}: {call} raised {type(error).__name__}: {one_line(error)}"
        ) from error
    if raw.size != 1:
        raise ScheduleError(f"{name} returned shape {raw.shape} for the single step {at}; return one depth per step")
    value = raw.item()
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise ScheduleError(f"{name} returned {one_line(repr(value), 60)} at step {at}; return a number")
    if isinstance(value, int):
        return max(-_HUGE, min(value, _HUGE))  # 2 ** step of a late step is no int64
    return float(value)


def _clamp(schedule: DepthSchedule, raw: npt.NDArray[Any], num_layers: int, first: int) -> npt.NDArray[np.int64]:
    if raw.dtype.kind not in "iuf":
        values = raw.tolist()
        at = next((i for i, v in enumerate(values) if isinstance(v, bool) or not isinstance(v, int | float)), 0)
        raise ScheduleError(f"schedule {schedule.name!r} returned {values[at]!r} at step {first + at}; return a number")
    finite = np.isfinite(raw)
    if not finite.all():
        at = int(np.argmin(finite))
        raise ScheduleError(f"schedule {schedule.name!r} returned {raw[at]} at step {first + at}; return a number")
    clamped: npt.NDArray[np.int64] = np.clip(np.floor(raw), schedule.min_depth, num_layers).astype(np.int64)
    return clamped


def _check_monotone(schedule: DepthSchedule, depths: npt.NDArray[np.int64]) -> None:
    rises = np.flatnonzero(np.diff(depths) > 0)
    if schedule.monotone and len(rises):
        at = int(rises[0])
        raise ScheduleError(
            f"schedule {schedule.name!r} is declared monotone but rises from {depths[at]} to {depths[at + 1]} "
            f"at step {at + 1}; set monotone = False on the class if that is meant"
        )
