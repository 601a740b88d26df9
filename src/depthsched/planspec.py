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
    own_order = own_profile = ""
    if isinstance(schedule, str):
        schedule, own_order, own_profile = split_plan(schedule)
        schedule = parse_schedule(schedule)
    if not isinstance(schedule, DepthSchedule):
        raise PlanError(
            f"{schedule!r} is not a schedule; give a spec such as 'd3:alpha=0.995' or a DepthSchedule object"
        )
    profile = own_profile or profile
    loaded = Profile.load(profile) if isinstance(profile, str | Path) else profile
    if own_order and own_order.partition(":")[0].strip() != Ranked.name and not own_profile:
        loaded = None  # the plan's own order wins over the default profile's; a bad profile is refused all the same
    return schedule, *_parse_order(own_order or order, loaded)


def split_plan(text: str) -> tuple[str, str, str]:
    """The schedule, the order and the profile that ``schedule[@order][+profile=DIR]`` names; empty where it does not.

    Raises
    ------
    SettingsError
        Nothing follows the ``@`` or the ``+profile=``.
    """
    rest, plus, profile = text.partition("+profile=")
    if plus and not profile.strip():
        raise SettingsError("the profile is empty; give the folder that depthsched calibrate wrote")
    schedule, at, order = rest.partition("@")
    if at and not order.strip():
        raise SettingsError("the order is empty; give a name such as middle-out (see depthsched list)")
    return schedule, order.strip(), profile.strip()


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
    ours = isinstance(order, Ranked) and (not order.bridges or profile is None or order.layers == profile.drop_order)
    if profile is not None and not ours:
        raise PlanError(f"the bridges of profile {profile.folder} fit its own order; use order ranked, not {order}")
    return order, profile if isinstance(order, Ranked) and order.bridges else None
