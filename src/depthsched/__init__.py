"""Depth schedules for Llama-family models: how many and which decoder layers run for each generated token.

Importing this package imports neither torch nor transformers and patches nothing.
"""

from typing import TYPE_CHECKING, Any

from . import errors
from .budget import schedule_for_budget
from .cost import ModelShape
from .hookspecs import hookimpl
from .order import LayerOrder
from .plans import DepthPlan, plan
from .planspec import PlanSpec
from .plugins import parse_order, parse_ranker, parse_schedule, registry
from .profile import Profile
from .profiles import find_profile
from .ranker import LayerRanker
from .schedule import AdaptiveSchedule, DepthSchedule
from .settings import setting
from .signals import Signals

if TYPE_CHECKING:
    from .models import load_model
    from .runtime.attach import attach
    from .runtime.generate import generate
    from .runtime.run import Run

_LAZY = {
    "attach": ".runtime.attach",
    "load_model": ".models",
    "Run": ".runtime.run",
    "generate": ".runtime.generate",
}

__all__ = [
    "AdaptiveSchedule",
    "DepthPlan",
    "DepthSchedule",
    "LayerOrder",
    "LayerRanker",
    "ModelShape",
    "PlanSpec",
    "Profile",
    "Run",
    "Signals",
    "attach",
    "errors",
    "find_profile",
    "generate",
    "hookimpl",
    "load_model",
    "parse_order",
    "parse_ranker",
    "parse_schedule",
    "plan",
    "registry",
    "schedule_for_budget",
    "setting",
]


def __getattr__(name: str) -> Any:
    """The parts that need torch, imported on first use."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
