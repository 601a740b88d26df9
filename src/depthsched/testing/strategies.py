"""Hypothesis strategies over the settings of a schedule or an order, read from its fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from hypothesis import reject
from hypothesis import strategies as st

from ..errors import SettingsError
from ..schedule import AdaptiveSchedule, DepthSchedule
from ..settings import Settings, field_types
from ..signals import SIGNALS, TEXT_CLASSES, Signals
from ..values import item_of, options_of

MAX_LAYERS = 128
LAST_STEP = 10**6
_S = TypeVar("_S", bound=Settings)
_WORDS = st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True).filter(lambda word: word not in ("none", "true", "false"))


def settings_strategy(cls: type[Settings]) -> st.SearchStrategy[dict[str, Any]]:
    """Every combination of settings that the fields of a class allow.

    Parameters
    ----------
    cls : type
        A schedule or order class.

    Returns
    -------
    SearchStrategy of dict
        Keyword arguments for ``cls``. Values follow the type of each field and the range given to
        :func:`depthsched.setting`. A number without a range stays within a factor of 1000 of its default and
        keeps its sign. A combination that ``cls`` refuses with a SettingsError is skipped.
    """
    return _combinations(cls).map(lambda made: made[0])


def schedules(cls: type[DepthSchedule]) -> st.SearchStrategy[DepthSchedule]:
    """Schedules of a class over the whole space of its settings; see :func:`settings_strategy`."""
    return instances(cls)


def instances(cls: type[_S]) -> st.SearchStrategy[_S]:
    """Objects of any settings class."""
    return _combinations(cls).map(lambda made: made[1])


class _TupleForm(NamedTuple):
    style: str
    length: int


@st.composite
def _combinations(draw: st.DrawFn, cls: type[_S]) -> tuple[dict[str, Any], _S]:
    # Tuples of one class usually belong together (at and drop of step), so they get one form.
    form = _TupleForm(draw(st.sampled_from(["default", "rising", "sorted", "any"])), draw(st.integers(1, 4)))
    values = {field.name: draw(_field(field, hint, form)) for field, hint in field_types(cls) if field.init}
    try:
        return values, cls(**values)
    except SettingsError:
        reject()


def _field(field: dataclasses.Field[Any], hint: Any, form: _TupleForm) -> st.SearchStrategy[Any]:
    if field.name == "start" and hint == int | float:
        fraction = st.floats(0, 1, exclude_min=True, exclude_max=True)
        return st.just(0) | st.integers(0, 64) | st.integers(0, LAST_STEP) | fraction
    if field.name == "min_depth":
        return st.just(1) | st.integers(1, 8) | st.integers(1, MAX_LAYERS)
    default = _default(field)
    drawn = [_option(field.metadata, option, default, form) for option in options_of(hint)]
    if default is dataclasses.MISSING:
        return st.one_of(*drawn)
    if isinstance(default, tuple):
        return st.just(default) if form.style == "default" else st.one_of(*drawn)
    return st.one_of(st.just(default), *drawn)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _option(meta: Mapping[str, Any], option: Any, default: Any, form: _TupleForm) -> st.SearchStrategy[Any]:
    if option is type(None):
        return st.none()
    if isinstance(option, str | int):  # a word of a Literal
        return st.just(option)
    if (item := item_of([option])) is not None:
        first = default[0] if isinstance(default, tuple) and default else dataclasses.MISSING
        return _tuples(st.one_of([_option(meta, one, first, form) for one in options_of(item)]), form)
    if option is bool:
        return st.booleans()
    if option is int:
        return _integers(meta, default)
    if option is float:
        return _floats(meta, default)
    if option is str:
        return _WORDS
    if default is not dataclasses.MISSING:
        return st.just(default)
    raise SettingsError(
        f"a setting of type {option!r} cannot be tried out; use int, float, bool, str, Literal, a tuple of them or None"
    )


def _tuples(items: st.SearchStrategy[Any], form: _TupleForm) -> st.SearchStrategy[tuple[Any, ...]]:
    # Rising ones first: most tuples of settings are positions or levels, and refuse the rest.
    if form.style == "any":
        return st.lists(items, max_size=4).map(tuple)
    unique = form.style != "sorted"
    return st.lists(items, min_size=form.length, max_size=form.length, unique=unique).map(sorted).map(tuple)


def _integers(meta: Mapping[str, Any], default: Any) -> st.SearchStrategy[int]:
    low, high = _limits(meta, default, whole=True)
    low_int, high_int = int(low), int(high)
    return st.integers(low_int, min(high_int, low_int + MAX_LAYERS)) | st.integers(low_int, high_int)


def _floats(meta: Mapping[str, Any], default: Any) -> st.SearchStrategy[float]:
    low, high = _limits(meta, default, whole=False)
    return st.floats(
        low,
        high,
        exclude_min=bool(meta.get("low_open")) and meta.get("low") is not None,
        exclude_max=bool(meta.get("high_open")) and meta.get("high") is not None,
    )


def _limits(meta: Mapping[str, Any], default: Any, *, whole: bool) -> tuple[float, float]:
    """Both ends of what to draw; an end that was not declared lies a factor of 1000 from the default."""
    low, high = meta.get("low"), meta.get("high")
    number = default if isinstance(default, int | float) and not isinstance(default, bool) else 1
    ends = sorted([number / 1000, number * 1000]) if number else [0.0, 1000.0]
    if whole:
        ends = [-(-ends[0] // 1), ends[1] // 1]
        low = low + 1 if low is not None and meta.get("low_open") else low
        high = high - 1 if high is not None and meta.get("high_open") else high
    if low is None:
        low = ends[0] if high is None or ends[0] < high else high - max(1000, abs(high))
    if high is None:
        high = ends[1] if ends[1] > low else low + max(1000, abs(low))
    return low, high


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to try: a schedule on a model of some depth, over some tokens."""

    schedule: DepthSchedule
    num_layers: int
    horizon: int
    steps: tuple[int, ...]
    """Steps to ask for, rising, counted from the schedule's start."""


_PROBES = sorted({*range(130), *(2**k + d for k in range(7, 20) for d in (-1, 0, 1)), 10**4, 10**5, LAST_STEP})


@st.composite
def cases(draw: st.DrawFn, drawn: st.SearchStrategy[DepthSchedule]) -> Case:
    """A schedule, a model it fits on, an output length, and steps within that output."""
    schedule = draw(drawn)
    if schedule.min_depth > MAX_LAYERS:
        num_layers = schedule.min_depth
    else:
        num_layers = draw(st.integers(schedule.min_depth, MAX_LAYERS))
    horizon = draw(st.sampled_from([256, 8, LAST_STEP + 1]) | st.integers(1, 1024))
    if draw(st.booleans()):
        last = last_step(schedule, horizon)
        first = draw(st.integers(0, last))
        return Case(schedule, num_layers, horizon, tuple(range(first, min(first + 64, last + 1))))
    return Case(schedule, num_layers, horizon, probes(schedule, horizon))


def last_step(schedule: DepthSchedule, horizon: int) -> int:
    """The last step that an output of ``horizon`` tokens asks for, counted from the schedule's start."""
    start = int(schedule.start * horizon) if isinstance(schedule.start, float) else schedule.start
    return max(horizon - 1 - start, 0)


def probes(schedule: DepthSchedule, horizon: int) -> tuple[int, ...]:
    """The first steps of an output, then ever fewer up to its last."""
    last = last_step(schedule, horizon)
    return tuple(step for step in _PROBES if step <= last)


@st.composite
def signals(draw: st.DrawFn, needs: Sequence[str]) -> Signals:
    """The signals that a schedule asks for, their extremes included; the lead of a token is never above its share."""
    drawn = {name: draw(_signal(name)) for name in needs}
    for lead, share in (("margin", "top1"), ("mean_margin", "mean_top1")):
        if lead in drawn and share in drawn:
            drawn[lead] = min(drawn[lead], drawn[share])
    return Signals(**drawn)


def _signal(name: str) -> st.SearchStrategy[Any]:
    if name == "token_class":
        return st.sampled_from(TEXT_CLASSES)
    low, high, whole = SIGNALS[name].low, SIGNALS[name].high, SIGNALS[name].unit in ("id", "tokens")
    numbers = st.integers(int(low), int(high)) if whole else st.floats(low, high)
    ends = [int(low), int(high)] if whole else [low, high]
    return st.sampled_from([*ends, None] if name == "agreement" else ends) | numbers


@st.composite
def decisions(draw: st.DrawFn, drawn: st.SearchStrategy[DepthSchedule]) -> tuple[Case, Signals]:
    """A case of an adaptive schedule and what it sees of the last token."""
    case = draw(cases(drawn))
    assert isinstance(case.schedule, AdaptiveSchedule)
    step = draw(st.sampled_from(case.steps))
    known = [name for name in case.schedule.needs if name in SIGNALS]  # others are the check's to refuse
    return dataclasses.replace(case, steps=(step,)), draw(signals(known))
