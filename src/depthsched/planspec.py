"""What a plan is made of, as a value: schedule, layer order and profile. Knows no torch and no model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from .depthplan import DepthPlan
from .errors import PlanError, SettingsError
from .files import digest
from .order import LayerOrder, Ranked
from .plugins import parse_order, parse_schedule
from .profile import Profile
from .profiles import find_profile
from .schedule import AdaptiveSchedule, DepthSchedule, ask_depths, check_min_depth
from .schedules import Full
from .settings import split_spec

SYNTAX = "schedule[@order][+profile=PROFILE]"
DEFAULT_ORDER = "middle-out"
_PROFILE = "+profile="


class PlanText(NamedTuple):
    """The parts of a plan's text, :data:`SYNTAX`; empty where the text does not name one."""

    schedule: str
    order: str = ""
    profile: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """The parts of a text.

        Raises
        ------
        SettingsError
            Nothing follows the ``@`` or the equals sign of the profile.
        """
        rest, plus, profile = text.partition(_PROFILE)
        if plus and not profile.strip():
            raise SettingsError(
                "the profile is empty; give a folder that depthsched calibrate wrote, a name or a hub id"
            )
        schedule, at, order = rest.partition("@")
        if at and not order.strip():
            raise SettingsError("the order is empty; give a name such as middle-out (see depthsched list)")
        return cls(schedule.strip(), order.strip(), profile.strip())

    def __str__(self) -> str:
        order = f"@{self.order}" if self.order else ""
        return f"{self.schedule}{order}{_PROFILE if self.profile else ''}{self.profile}"


@dataclass(frozen=True, eq=False)
class PlanSpec:
    """A plan before it knows its model: equal for equal schedules, orders and profiles, wherever their files lie.

    Its text, ``str(spec)``, has every setting written out and parses back to an equal spec.

    Attributes
    ----------
    schedule : DepthSchedule
    order : LayerOrder
    profile : Profile or None
        Where bridges come from; None where none apply.
    label : str
        The plan as its author wrote it.
    """

    schedule: DepthSchedule
    order: LayerOrder
    profile: Profile | None = None
    label: str = field(default="")

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", str(self))

    @classmethod
    def parse(
        cls,
        plan: str | DepthSchedule | PlanSpec,
        order: str | LayerOrder | None = None,
        profile: Profile | str | Path | None = None,
        *,
        load: Callable[[str | Path], Profile] = find_profile,
    ) -> PlanSpec:
        """Read a plan.

        Parameters
        ----------
        plan : str, DepthSchedule or PlanSpec
            A text such as ``"d3:alpha=0.995@early-exit"``, a schedule, or a spec, which is complete.
        order, profile : optional
            Defaults for a text that names none of its own; a text with an order of its own does without the
            default profile. Where both are left out the order is ``middle-out``, and ``ranked`` with a profile.
        load : callable
            Finds and reads a profile.

        Raises
        ------
        PlanError, ProfileError, ScheduleError, SettingsError, UnknownNameError
        """
        if isinstance(plan, PlanSpec):
            if order is not None or profile is not None:
                raise PlanError("this plan has its order and profile already; give them when you parse it")
            return plan
        if not isinstance(plan, str | DepthSchedule):
            raise PlanError(
                f"{plan!r} is not a schedule; give a spec such as 'd3:alpha=0.995' or a DepthSchedule object"
            )
        text = PlanText.of(plan) if isinstance(plan, str) else PlanText("")
        schedule = parse_schedule(text.schedule) if isinstance(plan, str) else plan
        place = text.profile or profile
        loaded = load(place) if isinstance(place, str | Path) else place
        if text.order and text.order.partition(":")[0].strip() != Ranked.name and not text.profile:
            loaded = None  # the plan's own order wins over the default profile's; a bad profile is refused all the same
        return cls(schedule, *_parse_order(text.order or order, loaded), plan.strip() if isinstance(plan, str) else "")

    @classmethod
    def parse_all(
        cls,
        plans: str,
        order: str | LayerOrder | None = None,
        profile: Profile | str | Path | None = None,
    ) -> list[PlanSpec]:
        """Read plans separated by ``;``, with the defaults of :meth:`parse`. Each profile is read once."""
        load = functools.cache(find_profile)
        default = load(profile) if isinstance(profile, str | Path) else profile
        found = [cls.parse(text, order, default, load=load) for text in plans.split(";") if text.strip()]
        if not found:
            raise SettingsError("no plan is given; give one such as d3:alpha=0.995, or full")
        return found

    @property
    def is_full(self) -> bool:
        """Whether every layer runs at every step."""
        return isinstance(self.schedule, Full)

    @property
    def key(self) -> str:
        """The text with the profile's content in place of its folder."""
        return f"{self.schedule.spec()}@{self.order.spec()}" + (f"+{self.profile.digest}" if self.profile else "")

    @property
    def digest(self) -> str:
        """A stable hash, equal for equal specs in every process."""
        return digest(self.key)

    def __str__(self) -> str:
        place = self.profile.place if self.profile else ""
        return str(PlanText(self.schedule.spec(), self.order.spec(), place))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanSpec) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def resolve(self, num_layers: int, horizon: int) -> DepthPlan:
        """The plan for a model of so many layers and so many tokens, the one from the prefill included.

        Raises
        ------
        PlanError, ScheduleError, SettingsError
        """
        if num_layers < 1:
            raise PlanError(f"num_layers={num_layers} must be at least 1")
        if not 1 <= horizon <= 10**7:
            raise PlanError(f"horizon={horizon} must be between 1 and 10 million tokens")
        if self.profile is not None and self.profile.num_layers != num_layers:
            raise PlanError(
                f"the profile in {self.profile.place} is for {self.profile.num_layers} layers, "
                f"and the model has {num_layers}"
            )
        check_min_depth(self.schedule, num_layers)
        schedule = self.schedule.for_horizon(horizon)
        ranked = self.order.resolve(num_layers)
        solved = schedule.for_profile(self.profile, num_layers, horizon)
        depths, asked = ask_depths(solved, num_layers, horizon)
        lowest, core = min(depths), num_layers - len(ranked)
        notes = []
        if asked > num_layers:
            notes.append(f"depth clipped from {asked} to {num_layers}: the model has {num_layers} layers")
        if lowest < core:
            notes.append(f"depth clipped from {lowest} to {core}: order {self.order} keeps {core} core layers")
        return DepthPlan(
            schedule=schedule.spec(),
            order=self.order.spec(),
            num_layers=num_layers,
            horizon=horizon,
            depths=tuple(max(depth, core) for depth in depths.tolist()),
            drop_order=ranked,
            notes=tuple(notes),
            decider=solved if isinstance(solved, AdaptiveSchedule) else None,
            profile=self.profile,
        )


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
        raise PlanError(f"the bridges of profile {profile.place} fit its own order; use order ranked, not {order}")
    return order, profile if isinstance(order, Ranked) and order.bridges else None
