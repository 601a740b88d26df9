"""What every schedule promises, over its whole settings space."""

import bisect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import depthsched as ds
from depthsched.errors import ScheduleError, SettingsError
from depthsched.schedule import decide_depth, resolve_depths
from depthsched.signals import Signals
from depthsched.testing.strategies import instances

from .strategies import SCHEDULES, any_schedule

LAST = 10**6
# Every step at first, then around powers of two, up to a million.
FAR = np.unique([*range(70), *(2**k + d for k in range(6, 20) for d in (-1, 0, 1)), LAST]).astype(np.int64)


def fitting(schedule: ds.DepthSchedule, num_layers: int) -> int:
    return max(num_layers, schedule.min_depth)


def curve(schedule: ds.DepthSchedule, num_layers: int, steps: np.ndarray) -> np.ndarray:
    """What the framework makes of a schedule's values, written again."""
    values = np.broadcast_to(np.asarray(schedule.depth(steps, num_layers), dtype=float), steps.shape)
    return np.clip(np.floor(values), schedule.min_depth, num_layers)


@pytest.mark.parametrize("name", SCHEDULES)
@given(data=st.data())
def test_depth_is_bounded_and_keeps_what_the_class_declares(name, data):
    schedule = data.draw(instances(SCHEDULES[name]))
    num_layers = fitting(schedule, data.draw(st.integers(1, 128)))
    horizon = data.draw(st.integers(1, 400))
    depths = resolve_depths(schedule, num_layers, horizon)
    assert depths.shape == (horizon,)
    assert depths.dtype == np.int64
    assert depths.min() >= schedule.min_depth
    assert depths.max() <= num_layers
    assert depths[0] == num_layers
    if schedule.monotone:
        assert (np.diff(depths) <= 0).all()
    resolved = schedule.for_horizon(horizon)
    assert isinstance(resolved.start, int)
    assert (depths[: resolved.start] == num_layers).all()
    if schedule.starts_full and resolved.start < horizon:
        assert depths[resolved.start] == num_layers


@pytest.mark.parametrize("name", SCHEDULES)
@given(data=st.data())
def test_a_million_steps_give_no_warning_nan_or_rise(name, data):
    schedule = data.draw(instances(SCHEDULES[name])).for_horizon(LAST + 1)
    num_layers = fitting(schedule, data.draw(st.integers(1, 128)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = np.asarray(schedule.depth(FAR, num_layers))
    assert np.isfinite(values).all()
    depths = curve(schedule, num_layers, FAR)
    if schedule.monotone:
        assert (np.diff(depths) <= 0).all()
    if schedule.starts_full:
        assert depths[0] == num_layers


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=10)
@given(data=st.data())
def test_a_plan_of_a_million_steps_resolves(name, data):
    schedule = data.draw(instances(SCHEDULES[name]))
    num_layers = fitting(schedule, 32)
    depths = resolve_depths(schedule, num_layers, LAST + 1)
    resolved = schedule.for_horizon(LAST + 1)
    at = FAR[resolved.start + FAR <= LAST]
    expected = curve(resolved, num_layers, at)
    if len(at) and resolved.start == 0:
        expected[0] = num_layers  # step 0 is the prefill
    assert (depths[at + resolved.start] == expected).all()


@pytest.mark.parametrize("name", SCHEDULES)
@given(data=st.data())
def test_one_step_at_a_time_gives_what_an_array_gives(name, data):
    schedule = data.draw(instances(SCHEDULES[name])).for_horizon(256)
    num_layers = fitting(schedule, data.draw(st.integers(1, 128)))
    steps = np.array(data.draw(st.lists(st.integers(0, LAST), min_size=1, max_size=20)), dtype=np.int64)
    vectorised = curve(schedule, num_layers, steps)
    scalar = [curve(schedule, num_layers, np.array([step]))[0] for step in steps]
    plain = [math.floor(schedule.depth(int(step), num_layers)) for step in steps]
    assert vectorised.tolist() == scalar
    assert vectorised.tolist() == [min(max(p, schedule.min_depth), num_layers) for p in plain]


@given(alpha=st.floats(0, 1, exclude_min=True, exclude_max=True), num_layers=st.integers(1, 200))
def test_d3_is_the_formula_in_exact_arithmetic(alpha, num_layers):
    steps = [*range(40), 63, 100, 257]
    exact = Fraction(Decimal(repr(alpha)))
    # Powers of a number like 1e-300 are far below every depth; their exact form has tens of thousands of digits.
    expected = [math.floor(num_layers * exact**i) if i * math.log10(alpha) > -300 else 0 for i in steps]
    schedule = ds.parse_schedule(f"d3:alpha={alpha!r}")
    got = [math.floor(v) for v in np.asarray(schedule.depth(np.array(steps), num_layers))]
    assert got == expected


@given(tenths=st.integers(1, 99), step=st.integers(0, 12), factor=st.integers(1, 20), digits=st.sampled_from([10, 100]))
@example(tenths=7, step=2, factor=1, digits=10)
@example(tenths=9, step=1, factor=1, digits=10)
def test_d3_is_exact_where_the_value_is_an_integer(tenths, step, factor, digits):
    """L * alpha**i is an integer when L is a multiple of the denominator; 100 * 0.7**2 in floats is 48.99...97."""
    assume(tenths < digits)
    alpha = Fraction(tenths, digits)
    num_layers = (alpha**step).denominator * factor
    assume(num_layers < 2**40)
    schedule = ds.parse_schedule(f"d3:alpha={tenths / digits}")
    expected = num_layers * alpha**step
    assert expected.denominator == 1
    assert math.floor(schedule.depth(step, num_layers)) == expected


@pytest.mark.parametrize(
    ("alpha", "num_layers", "step", "depth"),
    [(0.7, 100, 2, 49), (0.9, 10, 1, 9), (0.5, 32, 5, 1), (0.8, 125, 3, 64), (0.1, 1000, 3, 1), (0.995, 32, 1, 31)],
)
def test_d3_by_hand(alpha, num_layers, step, depth):
    assert ds.plan(ds.parse_schedule(f"d3:alpha={alpha}"), "early-exit", num_layers=num_layers).depth(step) == depth


def test_linear_by_hand():
    """L=8 down to 4 over 5 steps: 8, 7, 6, 5, 4, then 4; halves round up."""
    assert ds.plan("linear:end=4,over=5", num_layers=8, horizon=8).depths == (8, 7, 6, 5, 4, 4, 4, 4)
    assert ds.plan("linear:end=5,over=7", num_layers=8, horizon=8).depths == (8, 8, 7, 7, 6, 6, 5, 5)
    assert ds.plan("linear:end=4", num_layers=8, horizon=5).depths == (8, 7, 6, 5, 4)
    assert ds.plan("linear:end=4,start=3", num_layers=8, horizon=8).depths == (8, 8, 8, 8, 7, 6, 5, 4)


def test_step_by_hand():
    assert ds.plan("step:at=2+4,drop=1+3", num_layers=8, horizon=6).depths == (8, 8, 7, 7, 5, 5)
    assert ds.plan("step:at=2+4,drop=1+3,start=1", num_layers=8, horizon=6).depths == (8, 8, 8, 7, 7, 5)


def test_constant_is_full_in_the_prefill_and_before_start():
    assert ds.plan("constant:depth=5", num_layers=8, horizon=4).depths == (8, 5, 5, 5)
    assert ds.plan("constant:depth=5,start=2", num_layers=8, horizon=4).depths == (8, 8, 5, 5)
    assert ds.plan("constant:depth=1,min_depth=6", num_layers=8, horizon=3).depths == (8, 6, 6)


@given(schedule=any_schedule())
def test_specs_parse_and_print(schedule):
    spec = schedule.spec()
    again = ds.parse_schedule(spec)
    assert again == schedule
    assert again.spec() == spec == str(schedule)


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("d3", "d3"),
        (" d3 : alpha = 0.99 , start = 32 ", "d3:start=32,alpha=0.99"),
        ("d3:alpha=0.995", "d3"),
        ("d3:start=0.25,min_depth=4", "d3:start=0.25,min_depth=4"),
        ("constant:depth=7", "constant:depth=7"),
        ("linear:over=none,end=3", "linear:end=3"),
        ("step:at=3,drop=1", "step:at=3,drop=1"),
        ("confidence:depth=3,margin=0.25", "confidence:depth=3,margin=0.25"),
    ],
)
def test_spec_strings_by_hand(written, printed):
    schedule = ds.parse_schedule(written)
    parts = sorted(schedule.spec().partition(":")[2].split(","))
    assert (schedule.name, parts) == (printed.partition(":")[0], sorted(printed.partition(":")[2].split(",")))
    assert ds.parse_schedule(printed) == schedule


@given(start=st.floats(0, 1, exclude_min=True, exclude_max=True), horizon=st.integers(1, 2000))
def test_a_decimal_start_is_a_share_of_the_horizon(start, horizon):
    tokens = math.floor(start * horizon)
    share = ds.plan(f"d3:alpha=0.9,start={start!r}", num_layers=32, horizon=horizon)
    assert share.depths == ds.plan(f"d3:alpha=0.9,start={tokens}", num_layers=32, horizon=horizon).depths
    assert share.depths[: tokens + 1] == (32,) * min(tokens + 1, horizon)


def test_start_shifts_the_curve():
    plain = ds.plan("d3:alpha=0.9", num_layers=32, horizon=50).depths
    shifted = ds.plan("d3:alpha=0.9,start=10", num_layers=32, horizon=60).depths
    assert shifted == (32,) * 10 + plain


@pytest.mark.parametrize("start", ["-1", "1.0", "1.5", "0.0", "nan", "inf", "x"])
def test_a_start_that_is_neither_is_refused(start):
    with pytest.raises(SettingsError, match="start="):
        ds.parse_schedule(f"d3:start={start}")


@given(
    depth=st.integers(1, 40),
    margin=st.floats(0, 1),
    step=st.integers(0, 100),
    start=st.integers(0, 50),
    seen=st.builds(Signals, margin=st.floats(0, 1)),
)
def test_confidence_returns_to_full_depth_when_unsure(depth, margin, step, start, seen):
    schedule = ds.parse_schedule(f"confidence:depth={depth},margin={margin},start={start}")
    got = decide_depth(schedule, step, 32, seen)
    full = step < max(start, 1) or seen.margin < margin
    assert got == (32 if full else min(depth, 32))


Answer = Callable[["Asked", Any, int], Any]
FALLS = (3, 9, 20)


@dataclass(frozen=True)
class Asked(ds.DepthSchedule):
    """Its depth is one of the functions below."""

    monotone: ClassVar[bool] = False
    answer: ClassVar[Answer]

    last: int = 2

    def depth(self, step: Any, num_layers: int) -> Any:
        return type(self).answer(self, step, num_layers)


def asked(function: Answer) -> type[Asked]:
    return type("Asked", (Asked,), {"answer": staticmethod(function), "name": "asked"})


# How one idea is written for arrays, and ways that people write it for one step.
PAIRS: dict[str, tuple[Answer, list[Answer]]] = {
    "if": (
        lambda self, step, layers: np.where(step < 10, layers, self.last),
        [
            lambda self, step, layers: layers if step < 10 else self.last,
            lambda self, step, layers: [layers] if step < 10 else [self.last],
            lambda self, step, layers: (layers if step in range(10) else self.last,),
            lambda self, step, layers: np.array([[layers if step < 10 else self.last]]),
            lambda self, step, layers: Fraction(layers) if step < 10 else Decimal(self.last),
            lambda self, step, layers: layers if np.max(step) < 10 else self.last,
            lambda self, step, layers: layers if np.any(np.asarray(step) < 10) else self.last,
            lambda self, step, layers: {True: layers, False: self.last}[step < 10],
        ],
    ),
    "power": (
        lambda self, step, layers: layers * 0.75**step,
        [
            lambda self, step, layers: layers * math.pow(0.75, step),
            lambda self, step, layers: layers * 0.75 ** int(step),
            lambda self, step, layers: layers * math.prod([0.75] * step),
        ],
    ),
    "minimum": (
        lambda self, step, layers: layers - np.minimum(step, 6),
        [
            lambda self, step, layers: layers - min(step, 6),
            lambda self, step, layers: layers - min(round(step), 6),
            lambda self, step, layers: layers - (step if step < 6 else 6),
        ],
    ),
    "table": (
        lambda self, step, layers: layers - np.searchsorted(FALLS, step, side="right"),
        [
            lambda self, step, layers: layers - bisect.bisect(FALLS, step),
            lambda self, step, layers: layers - sum(1 for fall in FALLS if step >= fall),
        ],
    ),
    "wave": (
        lambda self, step, layers: layers - np.where(step % 3 == 2, 2, 0),
        [
            lambda self, step, layers: layers - [0, 0, 2][step % 3],
            lambda self, step, layers: layers if step % 3 != 2 else layers - 2,
        ],
    ),
}


@pytest.mark.parametrize(
    ("array", "one_step"), [(array, one) for array, ones in PAIRS.values() for one in ones], ids=lambda _: ""
)
@settings(max_examples=30)
@given(
    num_layers=st.integers(4, 40),
    horizon=st.integers(1, 60),
    start=st.integers(0, 70) | st.floats(0.01, 0.99),
    last=st.integers(0, 50),
)
def test_a_schedule_written_for_one_step_gives_the_plan_of_one_written_for_arrays(
    array: Answer, one_step: Answer, num_layers: int, horizon: int, start: float, last: int
) -> None:
    """Compared also with a loop over the steps, which never sees an array."""
    made = [asked(written)(last=last, start=start) for written in (array, one_step)]
    plans = [ds.plan(schedule, "early-exit", num_layers=num_layers, horizon=horizon) for schedule in made]
    assert plans[0] == plans[1]
    assert plans[0].digest == plans[1].digest
    first = int(plans[0].schedule.partition("start=")[2].partition(",")[0] or 0)
    by_hand = [
        num_layers
        if step == 0 or step < first
        else min(max(math.floor(np.asarray(one_step(made[1], step - first, num_layers)).item()), 1), num_layers)
        for step in range(horizon)
    ]
    assert list(plans[1].depths) == by_hand


@given(
    answers=st.lists(st.integers(1, 8), min_size=2, max_size=12),
    reduce=st.sampled_from([np.max, np.min, lambda s: np.atleast_1d(s)[0], lambda s: np.atleast_1d(s)[-1], np.size]),
)
def test_one_number_for_an_array_is_never_taken_for_other_steps(
    answers: list[int], reduce: Callable[[Any], int]
) -> None:
    schedule = asked(lambda self, step, layers: answers[int(reduce(step)) % len(answers)])()
    depths = resolve_depths(schedule, 8, 40)
    alone = [8] + [answers[int(reduce(step)) % len(answers)] for step in range(1, 40)]
    assert depths.tolist() == alone


def test_a_plan_asks_once_for_every_step_and_keeps_the_answer() -> None:
    calls: list[int] = []

    def answer(self: Asked, step: Any, layers: int) -> int:
        if step < 10:  # fails on an array
            calls.append(step)
        return layers

    plan = ds.plan(asked(answer)(), num_layers=8, horizon=10)
    assert calls == list(range(10))
    for step in range(20):
        plan.depth(step), plan.keep(step)
    assert plan.mean_depth == 8
    assert len(calls) == 10


def test_the_steps_of_a_schedule_written_for_one_are_plain_ints() -> None:
    seen: set[type] = set()

    def answer(self: Asked, step: Any, layers: int) -> int:
        seen.add(type(step))
        return layers if step < 3 else 2

    ds.plan(asked(answer)(), num_layers=8, horizon=10)
    assert seen == {np.ndarray, int}


@given(bad=st.integers(1, 30), start=st.integers(0, 9))
def test_a_failure_names_the_step_and_what_was_raised(bad: int, start: int) -> None:
    def answer(self: Asked, step: Any, layers: int) -> float:
        if step < bad:
            return layers
        raise KeyError("two\nlines")

    with pytest.raises(ScheduleError) as caught:
        resolve_depths(asked(answer)(start=start), 8, bad + start + 1)
    message = str(caught.value)
    assert f"failed at step {start + bad}: depth({bad}, 8) raised KeyError" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [None, "all", True, 1j, [], [1, 2], float("nan"), float("inf"), slice(1)], ids=repr)
def test_what_is_no_depth_is_refused_at_its_step(value: object) -> None:
    answer: Answer = lambda self, step, layers: layers if step < 5 else value  # noqa: E731
    with pytest.raises(ScheduleError, match=r"step 7\b") as caught:
        resolve_depths(asked(answer)(start=2), 8, 20)
    assert "\n" not in str(caught.value)


def _method(text: str) -> type[ds.DepthSchedule]:
    names: dict[str, Any] = {}
    exec(text, {"np": np}, names)
    return dataclass(frozen=True)(type("Written", (ds.AdaptiveSchedule,), names))


@pytest.mark.parametrize(
    "text",
    [
        "def depth(self): return 3",
        "def depth(self, step): return 3",
        "def depth(step, num_layers): return 3",
        "def depth(self, step, num_layers, more): return 3",
        "def depth(self, *, step, num_layers): return 3",
        "depth = 3",
        "def depth(self, step, num_layers): return 3\ndef decide(self, step, num_layers): return 3",
        "def depth(self, step, num_layers): return 3\ndef decide(step, num_layers, signals): return 3",
    ],
)
def test_a_wrong_number_of_arguments_is_one_line(text: str) -> None:
    with pytest.raises(ScheduleError, match=r"needs def (depth|decide)\(self, step, num_layers") as caught:
        ds.plan(_method(text)(), num_layers=8, horizon=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "def depth(self, i, n): return n",
        "def depth(self, *args): return args[1]",
        "def depth(self, step, num_layers, floor=3): return num_layers",
        "@staticmethod\ndef depth(step, num_layers): return num_layers",
        "@classmethod\ndef depth(cls, step, num_layers): return num_layers",
    ],
)
def test_other_ways_to_take_two_arguments_work(text: str) -> None:
    names = text + "\ndef decide(self, step, num_layers, signals): return num_layers"
    assert ds.plan(_method(names)(), num_layers=8, horizon=4).depths == (8, 8, 8, 8)


@pytest.mark.parametrize("answer", ["None", "[1, 2]", "1 / 0", "True", "float('nan')"])
def test_what_decide_returns_is_checked_at_its_step(answer: str) -> None:
    schedule: Any = _method(f"def decide(self, step, num_layers, signals): return {answer}")()
    with pytest.raises(ScheduleError, match=r"step 4\b") as caught:
        decide_depth(schedule, 4, 8, Signals(margin=0.5))
    assert "\n" not in str(caught.value)
