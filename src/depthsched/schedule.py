"""The idea: how many decoder layers run at each step. Knows no torch and no model."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from .errors import ScheduleError, SettingsError
from .settings import Settings, setting

Steps = int | npt.NDArray[np.int64]
Depths = float | npt.NDArray[Any]


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


class Signals(NamedTuple):
    """What an adaptive schedule sees of the last token's distribution (before any sampling setting).

    In a batch each value is that of the least certain row, so that one depth serves all rows.
    """

    entropy: float
    """Entropy in nats."""
    top1: float
    """Probability of the most likely token."""
    margin: float
    """Probability of the most likely token minus that of the next."""


@dataclasses.dataclass(frozen=True)
class AdaptiveSchedule(DepthSchedule):
    """A schedule that also sees how sure the model was of the last token.

    Its depth may rise, so a run writes K and V of skipped layers from the passed-through state.
    :meth:`depth` is what :meth:`decide` would choose for a sure model; plans show it as the curve.
    """

    monotone: ClassVar[bool] = False

    def decide(self, step: int, num_layers: int, signals: Signals) -> Any:
        """Depth at one step, given the signals of the token before it. Rounded and clamped like any depth."""
        raise ScheduleError(f"schedule {self.name!r} does not define decide(self, step, num_layers, signals); add it")


def resolve_depths(schedule: DepthSchedule, num_layers: int, horizon: int) -> npt.NDArray[np.int64]:
    """Depth of every step 0..horizon-1, rounded, clamped and checked.

    Step 0 comes out of the prefill and is always at full depth.

    Raises
    ------
    ScheduleError
        The schedule returned no number, nan, the wrong shape, or rose although it is declared monotone.
    SettingsError
        ``min_depth`` is larger than the model.
    """
    check_min_depth(schedule, num_layers)
    schedule = schedule.for_horizon(horizon)
    start = min(int(schedule.start), horizon)
    steps = np.arange(horizon - start, dtype=np.int64)
    depths = np.full(horizon, num_layers, dtype=np.int64)
    if len(steps):
        depths[start:] = _clamp(schedule, _ask(schedule, steps, num_layers), num_layers, start)
    if schedule.starts_full and len(steps) and depths[start] != num_layers:
        raise ScheduleError(
            f"schedule {schedule.name!r} declares starts_full but its depth(0) is {depths[start]} of {num_layers}; "
            "return num_layers there or set starts_full = False"
        )
    if horizon:
        depths[0] = num_layers
    _check_monotone(schedule, depths)
    return depths


def deepest_asked(schedule: DepthSchedule, num_layers: int, horizon: int) -> int:
    """The largest depth that a checked schedule asks for, before it is clamped to the model."""
    steps = np.arange(horizon - min(int(schedule.start), horizon), dtype=np.int64)
    return int(np.floor(_ask(schedule, steps, num_layers)).max()) if len(steps) else num_layers


def decide_depth(schedule: AdaptiveSchedule, step: int, num_layers: int, signals: Signals) -> int:
    """Depth of one step of an adaptive schedule; full before ``start``."""
    start = int(schedule.start)
    if step < max(start, 1):
        return num_layers
    raw = np.asarray(schedule.decide(step - start, num_layers, signals)).reshape(-1)[:1]
    return int(_clamp(schedule, raw, num_layers, step)[0])


def check_min_depth(schedule: DepthSchedule, num_layers: int) -> None:
    if schedule.min_depth > num_layers:
        raise SettingsError(
            f"schedule {schedule.name!r}: min_depth={schedule.min_depth} is more than the model's {num_layers} layers"
        )


def _ask(schedule: DepthSchedule, steps: npt.NDArray[np.int64], num_layers: int) -> npt.NDArray[Any]:
    try:
        raw = np.asarray(schedule.depth(steps, num_layers))
    except (ScheduleError, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever a user's method raises becomes one line that names it
        raise ScheduleError(
            f"schedule {schedule.name!r} failed on an array of steps: {type(error).__name__}: {error} "
            "(depth() gets an int or a numpy array; use numpy functions, np.where instead of if)"
        ) from error
    if raw.ndim == 0:
        raw = np.broadcast_to(raw, steps.shape)
    if raw.shape != steps.shape:
        raise ScheduleError(
            f"schedule {schedule.name!r} returned shape {raw.shape} for {len(steps)} steps; return one depth per step"
        )
    return raw


def _clamp(schedule: DepthSchedule, raw: npt.NDArray[Any], num_layers: int, first: int) -> npt.NDArray[np.int64]:
    if raw.dtype.kind not in "iuf":
        bad = raw.reshape(-1)[0]
        raise ScheduleError(f"schedule {schedule.name!r} returned {bad!r} at step {first}; return a number")
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
