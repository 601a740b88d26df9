"""From a target to a schedule: the cheapest schedule of a family that meets it, and the whole frontier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..budget import schedule_for_budget
from ..cost import ModelShape
from ..errors import SettingsError
from ..files import write_figure
from ..order import LayerOrder, Listed
from ..plans import DepthPlan, plan
from ..profile import Profile
from ..settings import Settings, setting
from .judge import Quality

FAMILIES = ("constant", "d3", "linear", "step")
_STEP_SHARES = (0.25, 0.5)
_POINTS = 6


@dataclass(frozen=True)
class Target(Settings):
    """What a schedule must meet: exactly one of three.

    Attributes
    ----------
    max_kl : float or None
        Most KL(full || scheduled) per token, in nats.
    min_agreement : float or None
        Least share of tokens with the same most likely token.
    speedup : float or None
        Least speed-up in bytes.
    """

    kind: ClassVar[str] = "calibration"

    max_kl: float | None = setting(None, low=0, low_open=True)
    min_agreement: float | None = setting(None, low=0, high=1, low_open=True, high_open=True)
    speedup: float | None = setting(None, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(value is not None for value in (self.max_kl, self.min_agreement, self.speedup)) != 1:
            raise SettingsError("give exactly one target: max KL, min agreement or a speed-up")

    def margin(self, quality: Quality, speedup: float) -> float:
        """Not negative where the target is met."""
        if self.max_kl is not None:
            return self.max_kl - quality.kl
        if self.min_agreement is not None:
            return quality.agreement - self.min_agreement
        assert self.speedup is not None
        return speedup - self.speedup


@dataclass(frozen=True)
class Point:
    """One schedule of the frontier."""

    schedule: str
    mean_depth: float
    bytes_speedup: float
    kl: float
    agreement: float


Measure = Callable[[DepthPlan], Quality]


def check_family(family: str, num_layers: int, drops: int, horizon: int) -> None:
    """Refuse a family that cannot be solved for a profile with this many droppable layers, before any work is done.

    Raises
    ------
    SettingsError
        Unknown, without a setting to solve for, or without a schedule that drops one layer.
    """
    if family != "step":
        _solved(family, num_layers - 1, num_layers, horizon, Listed(tuple(range(1, drops + 1))))


def _solved(family: str, mean_depth: float, num_layers: int, horizon: int, order: LayerOrder) -> str:
    """The schedule of a family with this mean depth."""
    if family.partition(":")[0] not in FAMILIES:
        raise SettingsError(f"unknown schedule family {family!r}; use one of {', '.join(FAMILIES)}")
    return schedule_for_budget(family, mean_depth, num_layers=num_layers, horizon=horizon, order=order).spec()


class Frontier:
    """Schedules of one family on one profile, measured on demand.

    Parameters
    ----------
    family : str
        ``constant``, ``d3``, ``linear`` or ``step``, with any settings that stay fixed.
    profile : Profile
    shape : ModelShape
    horizon, prompt_tokens : int
        Tokens of an answer and of a prompt, which the cost in bytes counts.
    measure : callable
        The quality of a plan.
    """

    def __init__(
        self, family: str, profile: Profile, shape: ModelShape, horizon: int, prompt_tokens: int, measure: Measure
    ) -> None:
        self.family, self.profile, self.shape = family, profile, shape
        self.horizon, self.prompt_tokens, self.measure = horizon, prompt_tokens, measure
        self.points: dict[str, Point] = {}

    def resolve(self, mean_depth: float) -> DepthPlan:
        """The plan of the family whose mean depth is closest."""
        layers = self.shape.num_layers
        if self.family == "step":
            spec = self._step(mean_depth)
        else:
            spec = _solved(self.family, mean_depth, layers, self.horizon, Listed(self.profile.drop_order))
        return plan(spec, num_layers=layers, horizon=self.horizon, profile=self.profile)

    def _step(self, mean_depth: float) -> str:
        """Full for the first quarter, then one level, and a twice as low one from the half on."""
        first, second = (max(int(share * self.horizon), 1) for share in _STEP_SHARES)
        rest = self.horizon - second
        drop = (self.shape.num_layers - mean_depth) * (self.horizon - 1) / (second - first + 2 * rest)
        low = min(round(drop), len(self.profile.drop_order))
        return f"step:at={first}+{second},drop={low}+{min(round(2 * drop), len(self.profile.drop_order))}"

    def point(self, mean_depth: float) -> Point:
        """Measure the plan closest to a mean depth, once."""
        resolved = self.resolve(mean_depth)
        if resolved.schedule not in self.points:
            quality = self.measure(resolved)
            speedup = resolved.bytes_speedup(self.shape, self.prompt_tokens)
            self.points[resolved.schedule] = Point(resolved.schedule, resolved.mean_depth, speedup, *quality)
        return self.points[resolved.schedule]

    def sweep(self, points: int = _POINTS) -> list[Point]:
        """Evenly spread mean depths from full to the lowest this profile reaches; deepest first."""
        lowest = self.lowest()
        for mean_depth in np.linspace(self.shape.num_layers - 1, lowest, points):
            self.point(float(mean_depth))
        return self.sorted()

    def lowest(self) -> float:
        """The smallest mean depth that the family reaches on this profile."""
        layers, core = self.shape.num_layers, self.shape.num_layers - len(self.profile.drop_order)
        return float(core) if self.family == "constant" else (layers + core) / 2 + 0.5

    def sorted(self) -> list[Point]:
        """The measured points, deepest first."""
        return sorted(self.points.values(), key=lambda p: (-p.mean_depth, p.schedule))

    def solve(self, target: Target) -> Point:
        """The fastest measured schedule that meets the target.

        The root of the interpolated frontier is measured, then one step up if it falls short.

        Raises
        ------
        SettingsError
            No schedule of the family meets the target.
        """
        from scipy.interpolate import PchipInterpolator
        from scipy.optimize import brentq

        points = self.sweep()
        depths = np.array([p.mean_depth for p in points])[::-1]
        margins = np.array([target.margin(Quality(p.kl, p.agreement), p.bytes_speedup) for p in points])[::-1]
        changes = np.flatnonzero(np.diff(np.sign(margins)) != 0)
        if len(changes):
            at = int(changes[-1])
            line = PchipInterpolator(depths, margins)
            root = float(brentq(line, depths[at], depths[at + 1])) if margins[at] * margins[at + 1] < 0 else depths[at]
            for nudge in (0.0, 0.3, -0.3, 0.6):
                self.point(float(np.clip(root + nudge, depths[0], depths[-1])))
        return self._best(target)

    def _best(self, target: Target) -> Point:
        meets = [p for p in self.sorted() if target.margin(Quality(p.kl, p.agreement), p.bytes_speedup) >= 0]
        if not meets:
            raise SettingsError(f"no {self.family} schedule on this profile meets {target}; relax it")
        if target.speedup is not None:
            return min(meets, key=lambda p: (p.kl, p.schedule))
        return max(meets, key=lambda p: (p.bytes_speedup, p.schedule))


def save_frontier(points: Sequence[Point], chosen: Point | None, path: Path) -> None:
    """Quality against speed-up in bytes, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    rows = sorted(points, key=lambda p: p.bytes_speedup)
    speed = [p.bytes_speedup for p in rows]
    for axes, name, label in zip(
        figure.subplots(1, 2),
        ("kl", "agreement"),
        ("KL(full || scheduled), nats per token", "top-1 agreement"),
        strict=True,
    ):
        axes.plot(speed, [getattr(p, name) for p in rows], marker="o")
        if chosen:
            axes.plot([chosen.bytes_speedup], [getattr(chosen, name)], marker="*", markersize=14, color="tab:red")
        axes.set(xlabel="speed-up in bytes", ylabel=label)
        axes.grid(alpha=0.3)
    write_figure(path, figure)
