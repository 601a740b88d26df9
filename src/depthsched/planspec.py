"""What a plan is made of: ``schedule[@order][+profile=DIR]``. Knows no torch and no model."""

from __future__ import annotations

from pathlib import Path

from .errors import PlanError, SettingsError
from .order import LayerOrder, Ranked
from .plugins import parse_order, parse_schedule
from .profile import Profile
from .schedule import DepthSchedule
from .settings import split_spec

DEFAULT_ORDER = "middle-out"


def parse_plan(
    schedule: str | DepthSchedule,
    order: str | LayerOrder | None = None,
    profile: Profile | str | Path | None = None,
) -> tuple[DepthSchedule, LayerOrder, Profile | None]:
    """The schedule, order and profile of ``schedule[@order][+profile=DIR]``; the arguments are its defaults."""
    own_order = ""
    if isinstance(schedule, str):
        schedule, _, own_profile = schedule.partition("+profile=")
        schedule, at, own_order = schedule.partition("@")
        if at and not own_order.strip():
            raise SettingsError("the order is empty; give a name such as middle-out (see depthsched list)")
        if own_order and own_order.partition(":")[0].strip() != Ranked.name and not own_profile:
            profile = None  # the plan's own order wins over the default profile's
        profile = own_profile or profile
        order = own_order or order
        schedule = parse_schedule(schedule)
    if not isinstance(schedule, DepthSchedule):
        raise PlanError(
            f"{schedule!r} is not a schedule; give a spec such as 'd3:alpha=0.995' or a DepthSchedule object"
        )
    loaded = Profile.load(profile) if isinstance(profile, str | Path) else profile
    return schedule, *_parse_order(order, loaded)


def _parse_order(order: str | LayerOrder | None, profile: Profile | None) -> tuple[LayerOrder, Profile | None]:
    """The order, and the profile if its bridges apply."""
    if order is None:
        order = DEFAULT_ORDER if profile is None else Ranked.name
    if isinstance(order, str):
        name, settings = split_spec(order)
        if name == Ranked.name and "layers=" not in settings:
            if profile is None:
                raise PlanError("order 'ranked' comes from a profile; give one (depthsched calibrate writes it)")
            settings = ",".join(filter(None, ["layers=" + "+".join(map(str, profile.drop_order)), settings]))
            order = Ranked.from_settings(settings)
        else:
            order = parse_order(order)
    if profile is not None and not isinstance(order, Ranked):
        raise PlanError(f"the bridges of profile {profile.folder} fit its own order; use order ranked, not {order}")
    return order, profile if isinstance(order, Ranked) and order.bridges else None
