"""From a text or a schedule to a resolved plan, in one call. Knows no torch and no model."""

from __future__ import annotations

from pathlib import Path

from .depthplan import DepthPlan
from .order import LayerOrder
from .planspec import PlanSpec
from .profile import Profile
from .schedule import DepthSchedule

__all__ = ["DepthPlan", "plan"]


def plan(
    schedule: str | DepthSchedule | PlanSpec,
    order: str | LayerOrder | None = None,
    *,
    num_layers: int,
    horizon: int = 256,
    profile: Profile | str | Path | None = None,
) -> DepthPlan:
    """Resolve a schedule and a layer order for a model and a number of tokens.

    Parameters
    ----------
    schedule : str, DepthSchedule or PlanSpec
        A spec such as ``"d3:alpha=0.995,start=32"``, optionally with its order: ``"d3@early-exit"``, and its
        profile, as :meth:`PlanSpec.parse` reads it.
    order : str or LayerOrder, optional
        Which layers go first; what the schedule's own spec says after ``@`` wins. Default ``middle-out``.
    num_layers : int
        Decoder layers of the model.
    horizon : int
        Tokens to resolve, the one from the prefill included.
    profile : Profile, str or Path, optional
        A calibrated profile or its folder: its order is the default, and its bridges stand in for skipped
        layers. A spec may name its own.

    Raises
    ------
    SettingsError, UnknownNameError, ScheduleError, PlanError, ProfileError
    """
    return PlanSpec.parse(schedule, order, profile).resolve(num_layers, horizon)
