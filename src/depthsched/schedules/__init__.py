"""The built-in schedules. They register through the same hook as those of every plug-in."""

from collections.abc import Callable

from ..hookspecs import hookimpl
from ..schedule import DepthSchedule
from .confidence import Confidence
from .constant import Constant
from .d3 import D3
from .full import Full
from .linear import Linear
from .optimal import Optimal
from .step import Step

__all__ = ["D3", "Confidence", "Constant", "Full", "Linear", "Optimal", "Step"]


@hookimpl
def register_schedules(register: Callable[[type[DepthSchedule]], None]) -> None:
    """Offer the built-in schedules."""
    for schedule in (Full, D3, Constant, Linear, Step, Optimal, Confidence):
        register(schedule)
