"""Every rule, run over the whole space of a class's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from .. import plugins
from ..errors import SettingsError
from ..order import LayerOrder
from ..schedule import AdaptiveSchedule, DepthSchedule
from ..settings import Settings, split_spec
from . import order_checks, schedule_checks
from .report import SETTINGS, CheckReport, Finding, run_checks, smallest_finding
from .settings_checks import check_docstring, check_spec_round_trip
from .strategies import cases, decisions, instances

EXAMPLES = 50
T = TypeVar("T")
Finders = dict[str, Callable[[], Finding | None]]


def check_schedule(schedule: type[DepthSchedule] | DepthSchedule | str, *, max_examples: int = EXAMPLES) -> CheckReport:
    """Check that a schedule keeps every rule, without pytest.

    Parameters
    ----------
    schedule : type, DepthSchedule or str
        A class, whose settings are then drawn from its whole space; an object or a spec with settings, which
        is checked first as it is; or a registered name.
    max_examples : int
        Settings, models and outputs to try for each check.

    Returns
    -------
    CheckReport
        Every check, each failure with the smallest example that was found. The same on every run.

    Raises
    ------
    SettingsError, UnknownNameError
        ``schedule`` is not a schedule, or a spec of none.
    """
    cls, own = _subject(schedule, DepthSchedule)
    return run_checks(own.spec() if own else cls.name, "schedule", _schedule_finders(cls, own, max_examples))


def check_order(order: type[LayerOrder] | LayerOrder | str, *, max_examples: int = EXAMPLES) -> CheckReport:
    """Check that a layer order keeps every rule, without pytest; as :func:`check_schedule` otherwise.

    Distinct layers in range are checked for every model of 1 to 128 layers; a ``rank`` that raises a
    SettingsError says that the settings do not fit the model, and that model is passed over.
    """
    cls, own = _subject(order, LayerOrder)
    return run_checks(own.spec() if own else cls.name, "order", _order_finders(cls, own, max_examples))


def _subject(subject: Any, base: type[Any]) -> tuple[Any, Any]:
    """The class, and the object when one was given."""
    if isinstance(subject, str):
        known = plugins.registry().schedules if base is DepthSchedule else plugins.registry().orders
        name, settings = split_spec(subject)
        if name in known and not settings:
            return known[name].value, None
        subject = plugins.parse_schedule(subject) if base is DepthSchedule else plugins.parse_order(subject)
    if isinstance(subject, type) and issubclass(subject, base):
        return subject, None
    if isinstance(subject, base):
        return type(subject), subject
    raise SettingsError(
        f"{subject!r} is not a {base.kind}; give a {base.__name__} class, an object of one, "
        "or a spec such as name:key=value"
    )


def _schedule_finders(cls: type[DepthSchedule], own: DepthSchedule | None, examples: int) -> Finders:
    finders = _settings_finders(cls, own, examples)
    for name, rule in schedule_checks.CASE_CHECKS.items():
        finders[name] = _both(rule, cases, cls, own, name, examples)
    if issubclass(cls, AdaptiveSchedule):
        finders["adaptive"] = _both(schedule_checks.adaptive, decisions, cls, own, "adaptive", examples)
    return finders


def _order_finders(cls: type[LayerOrder], own: LayerOrder | None, examples: int) -> Finders:
    finders = _settings_finders(cls, own, examples)
    for name, rule in order_checks.CASE_CHECKS.items():
        finders[name] = _both(rule, order_checks.order_cases, cls, own, name, examples)
    drawn_layers = finders["valid_layers"]

    def every_layer_count() -> Finding | None:
        found = drawn_layers()
        exact = own if own is not None else _default(cls)
        if found is None and exact is not None:
            found = smallest_finding(order_checks.every_depth, st.just(exact), name="valid_layers", max_examples=1)
        return found

    return finders | {"valid_layers": every_layer_count}


def _settings_finders(cls: type[Settings], own: Settings | None, examples: int) -> Finders:
    return {
        SETTINGS: lambda: smallest_finding(lambda _: None, instances(cls), name=SETTINGS, max_examples=examples),
        "docstring": lambda: smallest_finding(
            lambda _: check_docstring(cls), st.none(), name="docstring", max_examples=1
        ),
        "spec_round_trip": _both(check_spec_round_trip, lambda drawn: drawn, cls, own, "spec_round_trip", examples),
    }


def _both(
    rule: Callable[[T], None],
    to_cases: Callable[[Any], st.SearchStrategy[T]],
    cls: type[Any],
    own: Any,
    name: str,
    examples: int,
) -> Callable[[], Finding | None]:
    """First exactly the settings that were given, then the whole space of them."""

    def find() -> Finding | None:
        found = None
        if own is not None:
            found = smallest_finding(rule, to_cases(st.just(own)), name=name, max_examples=examples)
        if found is None:
            found = smallest_finding(rule, to_cases(instances(cls)), name=name, max_examples=examples)
        return found

    return find


def _default(cls: type[Settings]) -> Any:
    try:
        return cls()
    except (TypeError, SettingsError):  # a required setting
        return None


class _Conformance:
    max_examples: int = EXAMPLES

    # What a subclass checks, and how: set by ScheduleConformance and OrderConformance.
    _subject: Callable[[], tuple[Any, Any]]
    _finders: Callable[[Any, Any], Finders]

    def _run(self, name: str) -> None:
        __tracebackhide__ = True
        finding = self._finders(*self._subject())[name]()
        if finding is not None:
            raise AssertionError(str(finding)) from None

    def test_settings(self) -> None:
        """Objects can be made over the whole range of the declared settings."""
        self._run(SETTINGS)

    def test_docstring(self) -> None:
        """The class has a docstring of its own."""
        self._run("docstring")

    def test_frozen(self) -> None:
        """Settings cannot change; objects with equal settings are equal and hash equal."""
        self._run("frozen")

    def test_spec_round_trip(self) -> None:
        """What the spec string prints, parsing reads back."""
        self._run("spec_round_trip")

    def test_deterministic(self) -> None:
        """The same question twice has the same answer."""
        self._run("deterministic")


class ScheduleConformance(_Conformance):
    """Every rule for a depth schedule, as tests: subclass it in a test file and name the schedule.

    Attributes
    ----------
    schedule : type, DepthSchedule or str
        The class, an object of it, or a spec. Required.
    max_examples : int
        Settings, models and outputs to try for each test.

    Examples
    --------
    >>> class TestHalfLife(ScheduleConformance):
    ...     schedule = "d3"
    """

    schedule: type[DepthSchedule] | DepthSchedule | str

    def _subject(self) -> tuple[Any, Any]:
        if not hasattr(self, "schedule"):
            raise SettingsError(f"{type(self).__name__} names no schedule; add the line schedule = MySchedule to it")
        return _subject(self.schedule, DepthSchedule)

    def _finders(self, cls: Any, own: Any) -> Finders:
        return _schedule_finders(cls, own, self.max_examples)

    def test_one_value_per_step(self) -> None:
        """An array of n steps gives n depths, or one for all."""
        self._run("one_value_per_step")

    def test_finite(self) -> None:
        """Every depth is a finite number, up to step 10**6."""
        self._run("finite")

    def test_scalar_equals_vectorised(self) -> None:
        """One step at a time gives the depths of all steps at once."""
        self._run("scalar_equals_vectorised")

    def test_input_unchanged(self) -> None:
        """The array of steps stays as it was."""
        self._run("input_unchanged")

    def test_bounded(self) -> None:
        """Depths lie in [min_depth, L]."""
        self._run("bounded")

    def test_monotone(self) -> None:
        """Where monotone is declared, the depth never rises."""
        self._run("monotone")

    def test_starts_full(self) -> None:
        """Where starts_full is declared, every layer runs at step 0."""
        self._run("starts_full")

    def test_adaptive(self) -> None:
        """decide() of an adaptive schedule returns one finite depth whatever the signals are."""
        if issubclass(self._subject()[0], AdaptiveSchedule):
            self._run("adaptive")


class OrderConformance(_Conformance):
    """Every rule for a layer order, as tests: subclass it in a test file and name the order.

    Attributes
    ----------
    order : type, LayerOrder or str
        The class, an object of it, or a spec. Required.
    max_examples : int
        Settings and models to try for each test.
    """

    order: type[LayerOrder] | LayerOrder | str

    def _subject(self) -> tuple[Any, Any]:
        if not hasattr(self, "order"):
            raise SettingsError(f"{type(self).__name__} names no order; add the line order = MyOrder to it")
        return _subject(self.order, LayerOrder)

    def _finders(self, cls: Any, own: Any) -> Finders:
        return _order_finders(cls, own, self.max_examples)

    def test_valid_layers(self) -> None:
        """Distinct layers of the model, for every model of 1 to 128 layers."""
        self._run("valid_layers")

    def test_nested(self) -> None:
        """The layers of a depth are among those of the next depth."""
        self._run("nested")
