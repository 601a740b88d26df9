"""The conformance kit: what is right passes, what is wrong is refused by the right check in plain words."""

import json
import math
import subprocess
import sys
import unittest
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings

import depthsched as ds
from depthsched import testing
from depthsched.errors import SettingsError, UnknownNameError

from .zoo import ONE_STEP_SCHEDULES, WRONG_SCHEDULES
from .zoo_orders import WRONG_ORDERS

SCHEDULES = sorted(name for name, entry in ds.registry().schedules.items() if entry.origin.plugin == "depthsched")
ORDERS = sorted(name for name, entry in ds.registry().orders.items() if entry.origin.plugin == "depthsched")


@pytest.mark.parametrize("name", SCHEDULES)
def test_built_in_schedules_pass(name: str) -> None:
    report = testing.check_schedule(name, max_examples=25)
    assert report.passed, report.failures


@pytest.mark.parametrize("name", ORDERS)
def test_built_in_orders_pass(name: str) -> None:
    report = testing.check_order(name, max_examples=25)
    assert report.passed, report.failures


@pytest.mark.parametrize(("cls", "check", "words"), WRONG_SCHEDULES, ids=lambda v: getattr(v, "__name__", None))
def test_wrong_schedules_are_refused_by_the_right_check(
    cls: type[ds.DepthSchedule], check: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _assert_refused(testing.check_schedule(cls, max_examples=15), check, words, capsys)


@pytest.mark.parametrize(("cls", "check", "words"), WRONG_ORDERS, ids=lambda v: getattr(v, "__name__", None))
def test_wrong_orders_are_refused_by_the_right_check(
    cls: type[ds.LayerOrder], check: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _assert_refused(testing.check_order(cls, max_examples=15), check, words, capsys)


@pytest.mark.parametrize("cls", ONE_STEP_SCHEDULES, ids=lambda cls: cls.__name__)
def test_a_schedule_written_for_one_step_passes_with_a_note(cls: type[ds.DepthSchedule]) -> None:
    report = testing.check_schedule(cls, max_examples=15)
    assert report.passed, report.failures
    notes = {result.name: result.message for result in report.results if result.message}
    assert list(notes) == ["vectorised"]
    for words in ("asked step by step", "takes longer", "np.where(step < 9, a, b) for if"):
        assert words in notes["vectorised"]
    assert "\n" not in notes["vectorised"]
    assert len(notes["vectorised"]) < 400
    assert {"name": "vectorised", "passed": True, "message": notes["vectorised"]} in report.to_json()["results"]


def test_one_number_for_all_steps_has_no_note() -> None:
    assert not any(result.message for result in testing.check_schedule("constant", max_examples=10).results)


def _assert_refused(
    report: testing.CheckReport, check: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not report.passed
    own = {r.name: r.message for r in report.failures if not r.message.startswith("not checked, because")}
    assert check in own, report.failures
    message = own[check]
    for word in words:
        assert word in message
    for result in report.failures:
        assert "\n" not in result.message
        assert not any(word in result.message for word in ("ypothesis", "Falsifying", "Traceback", "np.float64"))
        assert len(result.message) < 400
    assert capsys.readouterr() == ("", "")


def test_a_failure_is_the_same_on_every_run() -> None:
    from .zoo import Rising

    first, second = (testing.check_schedule(Rising, max_examples=25) for _ in range(2))
    assert first == second


def test_given_settings_are_checked_exactly() -> None:
    @dataclass(frozen=True)
    class OneBadValue(ds.DepthSchedule):
        """Wrong for one value in a billion."""

        seed: int = ds.setting(0, low=0, high=10**9)

        def depth(self, step: Any, num_layers: int) -> Any:
            return math.nan if self.seed == 123_456_789 else num_layers

    assert testing.check_schedule(OneBadValue, max_examples=25).passed
    report = testing.check_schedule(OneBadValue(seed=123_456_789), max_examples=25)
    assert report.subject == "one-bad-value:seed=123456789"
    assert "one-bad-value:seed=123456789 on 1 layers" in {r.name: r.message for r in report.failures}["finite"]


def test_a_spec_with_settings_and_a_file_can_be_checked(tmp_path: Any) -> None:
    assert testing.check_schedule("d3:alpha=0.99", max_examples=10).subject == "d3:alpha=0.99"
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nimport depthsched as ds\n"
        "@dataclass(frozen=True)\nclass Mine(ds.DepthSchedule):\n    '''Mine.'''\n    share: float = 0.5\n"
        "    def depth(self, step, num_layers):\n        return num_layers * self.share\n"
    )
    report = testing.check_schedule(f"{file}:Mine:share=0.25", max_examples=10)
    assert report.passed, report.failures


def test_report_is_json() -> None:
    from .zoo import Text

    data = json.loads(json.dumps(testing.check_schedule(Text, max_examples=10).to_json()))
    assert (data["subject"], data["kind"], data["passed"]) == ("text", "schedule", False)
    assert {"name": "docstring", "passed": True, "message": ""} in data["results"]


@pytest.mark.parametrize("wrong", [3, dict, ds.LayerOrder])
def test_what_is_no_schedule_is_refused(wrong: Any) -> None:
    with pytest.raises(SettingsError, match="is not a schedule; give a DepthSchedule class"):
        testing.check_schedule(wrong)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'linear'"):
        testing.check_schedule("liner")


def test_importing_the_kit_imports_no_torch() -> None:
    code = "import sys, depthsched.testing; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestScheduleConformance(testing.ScheduleConformance):
    """The class form on a built-in schedule, run here as an author would."""

    schedule = "confidence:depth=4"
    max_examples = 10


class TestOrderConformance(testing.OrderConformance):
    order = "strided"
    max_examples = 10


def test_the_class_form_fails_in_plain_words() -> None:
    from .zoo import Counted

    class Wrong(testing.ScheduleConformance):
        schedule = Counted
        max_examples = 10

    with pytest.raises(AssertionError, match=r"^counted on .* np.where instead of if$") as caught:
        Wrong().test_scalar_equals_vectorised()
    assert not getattr(caught.value, "__notes__", [])


def test_the_class_form_skips_with_the_note() -> None:
    from .zoo import Branches

    class OneStep(testing.ScheduleConformance):
        schedule = Branches
        max_examples = 10

    OneStep().test_scalar_equals_vectorised()
    with pytest.raises(unittest.SkipTest, match="asked step by step"):
        OneStep().test_vectorised()


def test_the_class_form_without_a_schedule_says_so() -> None:
    class Empty(testing.ScheduleConformance):
        pass

    with pytest.raises(SettingsError, match="add the line schedule = MySchedule"):
        Empty().test_finite()


def test_both_forms_run_the_same_checks() -> None:
    for form, report in (
        (testing.ScheduleConformance, testing.check_schedule("confidence", max_examples=1)),
        (testing.OrderConformance, testing.check_order("strided", max_examples=1)),
    ):
        assert {f"test_{r.name}" for r in report.results} == {n for n in dir(form) if n.startswith("test_")}


@dataclass(frozen=True)
class Everything(ds.DepthSchedule):
    """A setting of every type."""

    max_uses: ClassVar[int] = 3
    share: float = ds.setting(0.5, low=0, high=1, low_open=True, high_open=True)
    free: float = -2.0
    count: int = ds.setting(10, low=5)
    open_count: int = ds.setting(7, low=5, high=9, low_open=True, high_open=True)
    maybe: int | None = ds.setting(None, low=2, high=4)
    flag: bool = False
    word: str = "plain"
    mode: Literal["up", "down"] = "up"
    levels: tuple[int, ...] = ds.setting((1,), low=1, high=10**6)
    weights: tuple[float, ...] = ds.setting((0.5,), low=0, high=1e300)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flag and self.maybe is None:
            raise SettingsError("schedule 'everything': flag needs maybe")

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers


@settings(max_examples=100)
@given(testing.settings_strategy(Everything))
def test_drawn_settings_stay_in_the_declared_ranges(values: dict[str, Any]) -> None:
    assert Everything(**values) == Everything(**values)
    assert 0 < values["share"] < 1
    assert -2000 <= values["free"] <= -0.002
    assert values["count"] >= 5
    assert 6 <= values["open_count"] <= 8
    assert values["maybe"] in (None, 2, 3, 4)
    assert not (values["flag"] and values["maybe"] is None)
    assert values["mode"] in ("up", "down")


def test_drawn_settings_reach_the_whole_space() -> None:
    wanted = {
        "a fraction": lambda s: isinstance(s.start, float),
        "many tokens": lambda s: s.start > 1000,
        "a high floor": lambda s: s.min_depth > 64,
        "no levels": lambda s: s.levels == (),
        "levels in no order": lambda s: list(s.levels) != sorted(s.levels),
        "several levels": lambda s: len(s.levels) > 2,
        "a large count": lambda s: s.count > 1000,
        "the flag": lambda s: s.flag,
        "the other mode": lambda s: s.mode == "down",
        "the optional": lambda s: s.maybe is not None,
    }
    reached: set[str] = set()

    @settings(max_examples=300)
    @given(testing.schedules(Everything))
    def collect(schedule: ds.DepthSchedule) -> None:
        reached.update(name for name, holds in wanted.items() if holds(schedule))

    collect()
    assert reached == set(wanted)


@settings(max_examples=100)
@given(testing.schedules(Everything))
def test_specs_of_every_type_round_trip(schedule: ds.DepthSchedule) -> None:
    assert Everything.from_settings(schedule.spec().removeprefix("everything").removeprefix(":")) == schedule


@given(testing.schedules(ds.registry().schedule("step")))
def test_combinations_that_the_class_refuses_are_skipped(schedule: Any) -> None:
    assert len(schedule.at) == len(schedule.drop)


def test_large_floats_in_a_list_round_trip() -> None:
    schedule = Everything(weights=(1e22, 0.5))
    assert schedule.spec() == "everything:weights=1e22+0.5"
    assert Everything.from_settings("weights=1e22+0.5") == schedule


def test_words_outside_a_literal_are_refused() -> None:
    with pytest.raises(SettingsError, match="mode='sideways' is not one of up, down"):
        Everything(mode="sideways")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="mode='sideways' is not one of up, down"):
        Everything.from_settings("mode=sideways")
