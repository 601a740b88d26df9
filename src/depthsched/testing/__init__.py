"""The conformance kit: point it at a schedule, a layer order or a ranker, and Hypothesis does the rest.

Importing it needs no torch; :func:`check_adapter`, which takes a model, and the checks of rankers, which make one, do.

In a test file of your own::

    from depthsched.testing import ScheduleConformance
    from my_package import HalfLife

    class TestHalfLife(ScheduleConformance):
        schedule = HalfLife

The same without pytest is :func:`check_schedule`, and ``depthsched check NAME`` from the shell.
"""

from .adapter_checks import check_adapter
from .conformance import (
    OrderConformance,
    RankerConformance,
    ScheduleConformance,
    check_order,
    check_ranker,
    check_schedule,
)
from .ranker_checks import tiny_study
from .report import CheckReport, CheckResult
from .strategies import schedules, settings_strategy

__all__ = [
    "CheckReport",
    "CheckResult",
    "OrderConformance",
    "RankerConformance",
    "ScheduleConformance",
    "check_adapter",
    "check_order",
    "check_ranker",
    "check_schedule",
    "schedules",
    "settings_strategy",
    "tiny_study",
]
