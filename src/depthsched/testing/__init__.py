"""The conformance kit: point it at a schedule or a layer order, and Hypothesis does the rest. Needs no torch.

:func:`check_adapter` takes a model instead, and imports torch when it is called.

In a test file of your own::

    from depthsched.testing import ScheduleConformance
    from my_package import HalfLife

    class TestHalfLife(ScheduleConformance):
        schedule = HalfLife

The same without pytest is :func:`check_schedule`, and ``depthsched check NAME`` from the shell.
"""

from .adapter_checks import check_adapter
from .conformance import OrderConformance, ScheduleConformance, check_order, check_schedule
from .report import CheckReport, CheckResult
from .strategies import schedules, settings_strategy

__all__ = [
    "CheckReport",
    "CheckResult",
    "OrderConformance",
    "ScheduleConformance",
    "check_adapter",
    "check_order",
    "check_schedule",
    "schedules",
    "settings_strategy",
]
