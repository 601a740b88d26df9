"""Every rule, run over the whole space of a class's settings."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st

from .. import plugins
from ..classes import refuse
from ..errors import SettingsError
from ..order import LayerOrder
from ..ranker import LayerRanker
from ..schedule import AdaptiveSchedule, DepthSchedule
from ..settings import Settings, split_spec
from . import order_checks, ranker_checks, schedule_checks
from .report import SETTINGS, CheckReport, Finding, Note, run_checks, smallest_finding
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
    return _report(schedule, DepthSchedule, max_examples)


def check_order(order: type[LayerOrder] | LayerOrder | str, *, max_examples: int = EXAMPLES) -> CheckReport:
    """Check that a layer order keeps every rule, without pytest; as :func:`check_schedule` otherwise.

    Distinct layers in range are checked for every model of 1 to 128 layers; a ``rank`` that raises a
    SettingsError says that the settings do not fit the model, and that model is passed over.
    """
    return _report(order, LayerOrder, max_examples)


def check_ranker(ranker: type[LayerRanker] | LayerRanker | str, *, max_examples: int = EXAMPLES) -> CheckReport:
    """Check that a ranker keeps every rule, without pytest; as :func:`check_schedule` otherwise.

    What it ranks is checked on a tiny Llama, with the settings that were given or the defaults; ``max_examples`` is for
    the checks of its settings. Imports torch.
    """
    return _report(ranker, LayerRanker, max_examples)


KINDS: dict[type[Any], tuple[str, Callable[[str], Any]]] = {
    DepthSchedule: ("schedules", plugins.parse_schedule),
    LayerOrder: ("orders", plugins.parse_order),
    LayerRanker: ("rankers", plugins.parse_ranker),
}
"""What can be checked: where the registry has its names, and what reads its specs."""


def _report(subject: Any, base: type[Any], examples: int) -> CheckReport:
    cls, own = _subject(subject, base)
    return run_checks(own.spec() if own else cls.name, base.kind, _finders(cls, own, examples))


def _subject(subject: Any, base: type[Any]) -> tuple[Any, Any]:
    """The class, and the object when one was given."""
    if isinstance(subject, str):
        names, parse = KINDS[base]
        known = getattr(plugins.registry(), names)
        name, settings = split_spec(subject)
        if name in known and not settings:
            return known[name].value, None
        subject = parse(subject)
    if isinstance(subject, type) and issubclass(subject, base):
        return subject, None
    if isinstance(subject, base):
        return type(subject), subject
    raise SettingsError(
        f"{subject!r} is not a {base.kind}; give a {base.__name__} class, an object of one, "
        "or a spec such as name:key=value"
    )


def _finders(cls: type[Any], own: Any, examples: int) -> Finders:
    """The checks of a class, by name; each finds the smallest example that breaks its rule."""

    def over(
        name: str, rule: Callable[[T], None], to_cases: Callable[[Any], st.SearchStrategy[T]] = lambda drawn: drawn
    ) -> Callable[[], Finding | None]:
        def find() -> Finding | None:
            """First exactly the settings that were given, then the whole space of them."""
            found = None
            for drawn in (st.just(own) if own is not None else None, instances(cls)):
                if found is None and drawn is not None:
                    found = smallest_finding(rule, to_cases(drawn), name=name, max_examples=examples)
            return found

        return find

    finders: Finders = {
        SETTINGS: lambda: _unmade(cls) or smallest_finding(_pass, instances(cls), name=SETTINGS, max_examples=examples),
        "docstring": lambda: smallest_finding(
            lambda _: check_docstring(cls), st.none(), name="docstring", max_examples=1
        ),
        "spec_round_trip": over("spec_round_trip", check_spec_round_trip),
    }
    if issubclass(cls, LayerOrder):
        for name, rule in order_checks.CASE_CHECKS.items():
            finders[name] = over(name, rule, order_checks.order_cases)
        drawn_layers = finders["valid_layers"]
        finders["valid_layers"] = lambda: drawn_layers() or _every_layer_count(cls, own)
        return finders
    if issubclass(cls, LayerRanker):
        drawn = instances(cls) if own is None and _needs_settings(cls) else st.just(own or cls())
        for name, ranks in ranker_checks.CHECKS.items():
            finders[name] = partial(smallest_finding, ranks, drawn, name=name, max_examples=1)
        return finders
    for name, check in schedule_checks.CASE_CHECKS.items():
        finders[name] = over(name, check, cases)
    if issubclass(cls, AdaptiveSchedule):
        finders["adaptive"] = over("adaptive", schedule_checks.adaptive, decisions)
    return finders


def _needs_settings(cls: type[Settings]) -> bool:
    try:
        cls()
    except (TypeError, SettingsError):
        return True
    return False


def _pass(_: Any) -> None:
    """Objects can be made over the whole range of the declared settings."""


def _unmade(cls: type[Settings]) -> Finding | None:
    """Why no object of a class is what its settings say."""
    try:
        refuse(cls)
    except SettingsError as error:
        return Finding(SETTINGS, str(error))
    return None


def _every_layer_count(cls: type[LayerOrder], own: LayerOrder | None) -> Finding | None:
    if own is None and _needs_settings(cls):
        return None
    return smallest_finding(order_checks.every_depth, st.just(own or cls()), name="valid_layers", max_examples=1)


class _Conformance:
    max_examples: int = EXAMPLES
    _base: ClassVar[type[Any]]

    def _run(self, name: str) -> None:
        __tracebackhide__ = True
        kind = self._base.kind
        if not hasattr(self, kind):
            raise SettingsError(
                f"{type(self).__name__} names no {kind}; add the line {kind} = My{kind.capitalize()} to it"
            )
        finders = _finders(*_subject(getattr(self, kind), self._base), self.max_examples)
        finding = finders[name]() if name in finders else None  # only adaptive schedules decide
        if isinstance(finding, Note):
            raise unittest.SkipTest(str(finding)) from None  # pytest shows it as the reason
        if finding is not None:
            raise AssertionError(str(finding)) from None


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
    _base = DepthSchedule


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
    _base = LayerOrder


class RankerConformance(_Conformance):
    """Every rule for a ranker, as tests: subclass it in a test file and name the ranker.

    Attributes
    ----------
    ranker : type, LayerRanker or str
        The class, an object of it, or a spec. Required. An object with settings that rank fast makes fast tests.
    max_examples : int
        Settings to try for the checks of settings.
    """

    ranker: type[LayerRanker] | LayerRanker | str
    _base = LayerRanker


def _add_tests(form: type[_Conformance], rules: dict[str, Callable[..., None]]) -> None:
    """Give a form one test method per rule."""
    shared = {SETTINGS: _pass, "docstring": check_docstring, "spec_round_trip": check_spec_round_trip}
    for name, rule in (shared | rules).items():

        def test(self: _Conformance, name: str = name) -> None:
            __tracebackhide__ = True
            self._run(name)

        test.__name__, test.__doc__ = f"test_{name}", rule.__doc__
        setattr(form, test.__name__, test)


_add_tests(ScheduleConformance, {**schedule_checks.CASE_CHECKS, "adaptive": schedule_checks.adaptive})
_add_tests(OrderConformance, dict(order_checks.CASE_CHECKS))
_add_tests(RankerConformance, dict(ranker_checks.CHECKS))
