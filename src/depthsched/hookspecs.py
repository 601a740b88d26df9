"""The hooks a plug-in may implement. Mark an implementation with ``@depthsched.hookimpl``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .order import LayerOrder
    from .ranker import LayerRanker
    from .schedule import DepthSchedule

PROJECT = "depthsched"
# Version of the hooks here and of the classes they take: a change that breaks plug-ins raises it.
API = 1
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_schedules(register: Callable[[type[DepthSchedule]], None]) -> None:
    """Offer depth schedules: call ``register(MySchedule)`` once for each class."""


@hookspec
def register_orders(register: Callable[[type[LayerOrder]], None]) -> None:
    """Offer layer orders: call ``register(MyOrder)`` once for each class."""


@hookspec
def register_rankers(register: Callable[[type[LayerRanker]], None]) -> None:
    """Offer layer rankers: call ``register(MyRanker)`` once for each class.

    Called by every command, so import torch inside :meth:`~depthsched.LayerRanker.rank`.
    """


@hookspec
def register_profiles(register: Callable[[str, str | Path], None]) -> None:
    """Offer calibrated profiles: call ``register("my-model", folder)`` once for each.

    Called by every command, so give the folder and read nothing of it.
    """


@hookspec
def register_adapters(register: Callable[[Any], None]) -> None:
    """Offer model families: call ``register(MyAdapter)`` once for each :class:`depthsched.adapters.Adapter` class.

    Called when a model is first used and by ``depthsched list``, so import torch inside the methods.
    """


@hookspec
def register_commands(app: Any) -> None:
    """Add commands to the ``depthsched`` command line: ``app`` is its ``typer.Typer``.

    Called at every start of the command line, so import heavy modules inside the command.
    """
