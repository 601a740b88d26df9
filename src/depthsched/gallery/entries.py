"""From a schedule and a budget to a plan that moves these bytes over known answers. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..budget import budget_field, solve_number
from ..cost import Cost, ModelShape
from ..errors import DepthschedError, SettingsError
from ..planspec import PlanSpec, PlanText
from ..plugins import registry
from ..profiles import from_folder
from ..settings import field_types, spec_key, split_spec

_CLOSE = 0.003
_TRIES = 12


@dataclass(frozen=True)
class Group:
    """Which layers go first, and whether bridges stand in for them: rows that differ in the schedule only.

    Attributes
    ----------
    order, profile : str
        As in a plan's text; empty where it names none.
    """

    order: str = ""
    profile: str = ""

    def plan(self, schedule: str) -> str:
        """The text of a plan."""
        return str(PlanText(schedule, self.order, self.profile))

    @property
    def label(self) -> str:
        """For people: the profile by the name of its folder."""
        if not self.profile:
            return self.order or "middle-out"
        return f"{Path(self.profile).name}, {'no bridges' if 'bridges=false' in self.order else 'bridges'}"


@dataclass(frozen=True)
class Entry:
    """One schedule in one group at one budget.

    Attributes
    ----------
    spec : str
        The schedule as it was given.
    group : Group
    budget : float or None
        Saving in bytes that was asked for; None where the schedule is taken as it is.
    plan : str or None
        The plan that was found; None where there is none, for the ``reason``.
    reason : str
    added : bool
        By hand, not from the gallery's file; two entries that differ in nothing else are equal.
    """

    spec: str
    group: Group
    budget: float | None
    plan: str | None
    reason: str = ""
    added: bool = field(default=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Entry:
        """Read an entry back."""
        return cls(**{**data, "group": Group(**data["group"])})


def joined(*several: Iterable[Entry]) -> tuple[Entry, ...]:
    """All entries, each once, in order; one that was added by hand anywhere is so in the result."""
    found: dict[Entry, Entry] = {}
    for entry in chain(*several):
        found[entry] = replace(entry, added=entry.added or (entry in found and found[entry].added))
    return tuple(found.values())


@dataclass(frozen=True)
class Answers:
    """What the bytes of a plan are counted over.

    Attributes
    ----------
    shape : ModelShape
    lengths : tuple of (int, int)
        Tokens of each prompt, and decode steps of its answer.
    horizon : int
    """

    shape: ModelShape
    lengths: tuple[tuple[int, int], ...]
    horizon: int

    def saved(self, plan: str) -> float:
        """Bytes at full depth over those of a plan, over all answers."""
        made = PlanSpec.parse(plan).resolve(self.shape.num_layers, self.horizon)
        costs = (made.cost(self.shape, [made.depth(i + 1) for i in range(n)], prompt) for prompt, n in self.lengths)
        return sum(costs, Cost()).ratio

    def constants(self, group: Group) -> dict[int, float]:
        """What each constant depth of a group saves; full depth is not among them."""
        layers = self.shape.num_layers
        lowest = PlanSpec.parse(group.plan("constant:depth=1")).resolve(layers, 2).depths[-1]
        return {depth: self.saved(group.plan(f"constant:depth={depth}")) for depth in range(lowest, layers)}


def entries_of(spec: str, groups: Sequence[Group], budgets: Sequence[float], answers: Answers) -> Iterator[Entry]:
    """A schedule in every group at every budget. One whose settings are all given is taken once in each group.

    Raises
    ------
    DepthschedError
        The schedule cannot be read at all.
    """
    text = PlanText.of(spec)
    if text.profile:
        place = from_folder(text.profile, Path.cwd())
        own: Sequence[Group] = [Group(text.order or "ranked", place)]
    else:
        own = [Group(text.order)] if text.order else groups
    free = free_setting(text.schedule)
    for group in own:
        if free is None:
            PlanSpec.parse(group.plan(text.schedule))
            yield Entry(text.schedule, group, None, group.plan(text.schedule))
            continue
        for budget in budgets:
            try:
                schedule = _solved(text.schedule, *free, group, budget, answers)
                yield Entry(text.schedule, group, budget, group.plan(schedule))
            except DepthschedError as error:
                yield Entry(text.schedule, group, budget, None, str(error))


def free_setting(schedule: str) -> tuple[str, Any] | None:
    """The setting that a budget is solved for, if the schedule leaves it free, and its type.

    Raises
    ------
    UnknownNameError
    """
    name, settings = split_spec(schedule)
    if ".py" in schedule:
        return None  # the class is known only with its settings
    cls = registry().schedule(name)
    given = {pair.partition("=")[0].strip() for pair in settings.split(",")}
    if cls.from_profile:
        keys = {spec_key(field) for field, _ in field_types(cls)}
        return ("budget", None) if "budget" in keys and not given & {"budget", "mean_depth"} else None
    try:
        field, hint = budget_field(cls)
    except SettingsError:
        return None
    return None if spec_key(field) in given else (spec_key(field), hint)


def _solved(schedule: str, key: str, hint: Any, group: Group, budget: float, answers: Answers) -> str:
    def build(value: Any) -> str:
        return f"{schedule}{',' if ':' in schedule else ':'}{key}={value}"

    def saved(value: Any) -> float:
        return answers.saved(group.plan(build(value)))

    if hint is None:
        return build(_from_profile(saved, budget))
    whole, layers = hint is int, answers.shape.num_layers
    low, high = (1, layers) if whole else (1e-9, 1 - 1e-12)
    most, least = saved(low), saved(high)
    if not least <= budget <= most:
        raise SettingsError(f"saves {least:.2f}x to {most:.2f}x in bytes, so not {budget:g}x")
    if whole:
        return build(min(range(1, layers + 1), key=lambda value: (abs(saved(value) - budget), value)))
    return build(solve_number(lambda value: budget - saved(value), low, high))


def _from_profile(saved: Any, budget: float) -> float:
    """What to ask for, so that answers that end before the horizon save what is wanted."""
    asked = budget
    for _ in range(_TRIES):
        found = saved(round(asked, 4))
        if abs(found / budget - 1) <= _CLOSE:
            break
        asked = max(1.0, asked * budget / found)
    return round(asked, 4)
