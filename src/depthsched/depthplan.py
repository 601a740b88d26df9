"""The resolved plan: which layers run at which step, and what that costs. Knows no torch and no model."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .cost import Cost, ModelShape, step_costs
from .errors import PlanError, ProfileError
from .files import digest
from .order import keep_layers
from .plugins import parse_schedule
from .profile import Profile
from .profiles import find_profile
from .schedule import AdaptiveSchedule, decide_depth
from .signals import Signals
from .text import sparkline

if TYPE_CHECKING:
    from .bridge import Bridges


@dataclass(frozen=True)
class DepthPlan:
    """Which layers run at which step, resolved and checked. Build it with :func:`depthsched.plan`.

    Attributes
    ----------
    schedule, order : str
        Spec strings of the schedule (its ``start`` in tokens) and the order.
    num_layers, horizon : int
        Decoder layers of the model, and the steps that were resolved. Later steps keep the last depth.
    depths : tuple of int
        Depth of every step; ``depths[0]`` is the prefill and always ``num_layers``.
    drop_order : tuple of int
        Droppable layers, first dropped first.
    notes : tuple of str
        What the plan had to change, such as a depth clipped to the layers that the model has.
    decider : AdaptiveSchedule or None
        Set when the depth of a step is decided while decoding; ``depths`` is then the curve of a sure model.
    profile : Profile or None
        Where the bridges that stand in for skipped layers come from.
    spare : tuple of int
        Further depths that a run may take, of the same order: what a lossless run drafts with where deeper pays.
    """

    schedule: str
    order: str
    num_layers: int
    horizon: int
    depths: tuple[int, ...]
    drop_order: tuple[int, ...]
    notes: tuple[str, ...] = ()
    decider: AdaptiveSchedule | None = field(default=None, compare=False, repr=False)
    profile: Profile | None = field(default=None, compare=False, repr=False)
    spare: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        _validate(self)

    @property
    def adaptive(self) -> bool:
        """Whether depths are decided while decoding."""
        return self.decider is not None

    @property
    def needs(self) -> tuple[str, ...]:
        """The signals that an adaptive plan's schedule asks for; none otherwise."""
        return self.decider.needs if self.decider is not None else ()

    @property
    def monotone(self) -> bool:
        """Whether the depth never rises. An adaptive plan may rise."""
        return not self.adaptive and all(a >= b for a, b in zip(self.depths, self.depths[1:], strict=False))

    @property
    def nested(self) -> bool:
        """Whether each step's layers are a subset of the step's before: then no KV entry that is read is missing."""
        return self.monotone

    @property
    def core_size(self) -> int:
        """Layers that always run, because the order does not rank them."""
        return self.num_layers - len(self.drop_order)

    @functools.cached_property
    def keep_sets(self) -> dict[int, tuple[int, ...]]:
        """Every depth that a run can reach, deepest first, with the layers that run at it."""
        reachable = {*self.depths, *self.spare}
        if self.adaptive:
            reachable = set(range(self.clip(1), self.num_layers + 1))
        return {d: keep_layers(self.drop_order, d, self.num_layers) for d in sorted(reachable, reverse=True)}

    def depth(self, step: int) -> int:
        """Depth of a step; past the horizon the last depth holds."""
        if step < 0:
            raise PlanError(f"step {step} is negative; steps count from 0, the prefill")
        return self.depths[min(step, self.horizon - 1)]

    def keep(self, step: int) -> tuple[int, ...]:
        """The layers that run at a step, rising."""
        return self.keep_sets[self.depth(step)]

    def decide(self, step: int, signals: Signals | None) -> int:
        """Depth of a step of one row during a run: from its signals if the plan is adaptive, else :meth:`depth`."""
        if self.decider is None or signals is None:
            return self.depth(step)
        return self.clip(decide_depth(self.decider, step, self.num_layers, signals))

    def clip(self, depth: int) -> int:
        """The smallest depth at least ``depth`` that the core layers allow."""
        return max(depth, self.core_size)

    def with_deeper(self) -> DepthPlan:
        """This plan with two spare depths between its lowest and full depth, where it has fewer of its own.

        With a profile they are depths that have bridges, as far as there are any.
        """
        low = min(self.keep_sets)
        between = [d for d in self.keep_sets if low < d < self.num_layers]
        fitted = self.profile.bridged if self.profile else ()
        room = [d for d in fitted if low < d < self.num_layers] or [*range(low + 1, self.num_layers)]
        if len(between) > 1 or not room:
            return self
        nearest = set()
        for part in (1, 2):
            third = low + (self.num_layers - low) * part // 3
            nearest.add(sorted(room, key=lambda d: (abs(d - third), d))[0])
        return dataclasses.replace(self, spare=tuple(sorted(nearest)))

    @property
    def mean_depth(self) -> float:
        """Mean depth of the decode steps (step 0 is full by definition and not counted)."""
        return float(np.mean(self.depths[1:] or self.depths))

    @property
    def layer_speedup(self) -> float:
        """``L * n / sum(depth)`` over the decode steps."""
        return self.num_layers / self.mean_depth

    def flops_speedup(self, shape: ModelShape, prompt_tokens: int = 0) -> float:
        """Floating-point operations of the decode steps at full depth over those of this plan."""
        return self.cost(shape, prompt_tokens=prompt_tokens, flops=True).ratio

    def bytes_speedup(self, shape: ModelShape, prompt_tokens: int = 0, batch: int = 1) -> float:
        """Bytes that the decode steps move at full depth over those of this plan: what a clock can reach."""
        return self.cost(shape, prompt_tokens=prompt_tokens, batch=batch).ratio

    def cost(
        self,
        shape: ModelShape,
        depths: Sequence[int] | None = None,
        prompt_tokens: int = 0,
        *,
        batch: int = 1,
        writes: bool | None = None,
        flops: bool = False,
        renewed: Sequence[int] = (),
        tried: Sequence[int] = (),
    ) -> Cost:
        """What decode steps cost under this plan and at full depth, in bytes moved or operations.

        Parameters
        ----------
        shape : ModelShape
        depths : sequence of int, optional
            Depths that the decode steps of a run had; left out, those of the plan.
        prompt_tokens, batch : int
        writes : bool, optional
            Whether skipped layers wrote K and V; left out, where the plan is not nested.
        flops : bool
        renewed, tried : sequence of int, optional
            Of a run that renews its cache, as :func:`depthsched.cost.step_costs` takes them.
        """
        return step_costs(
            shape,
            self.depths[1:] if depths is None else depths,
            prompt_tokens,
            keep_sets=self.keep_sets,
            batch=batch,
            writes=not self.nested if writes is None else writes,
            bridge_params=self.bridge_params,
            flops=flops,
            renewed=renewed,
            tried=tried,
        )

    @functools.cached_property
    def bridges(self) -> Bridges:
        """Bridges of the depths that a run can reach, by depth and layer; empty without a profile."""
        return self.profile.bridges(self.keep_sets) if self.profile else {}

    def bridge_params(self, depth: int) -> int:
        """Weights that bridges add to a step at this depth."""
        return self.profile.bridge_params(depth) if self.profile else 0

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {
            "schedule": self.schedule,
            "order": self.order,
            "num_layers": self.num_layers,
            "horizon": self.horizon,
            "depths": list(self.depths),
            "drop_order": list(self.drop_order),
            "notes": list(self.notes),
            "adaptive": self.adaptive,
            "needs": list(self.needs),
            "profile": self.profile.place if self.profile else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> DepthPlan:
        """Read a plan back. Only an adaptive one needs its schedule to be installed.

        Raises
        ------
        PlanError
            The text is not JSON, or not a consistent plan.
        ProfileError
            Its profile is gone, damaged or edited.
        UnknownNameError
            The schedule of an adaptive plan is not installed.
        """
        try:
            values = dict(json.loads(data) if isinstance(data, str) else data)
            return cls(
                schedule=str(values["schedule"]),
                order=str(values["order"]),
                num_layers=operator.index(values["num_layers"]),
                horizon=operator.index(values["horizon"]),
                depths=tuple(operator.index(d) for d in values["depths"]),
                drop_order=tuple(operator.index(d) for d in values["drop_order"]),
                notes=tuple(str(n) for n in values.get("notes", ())),
                decider=_decider(str(values["schedule"])) if values.get("adaptive") else None,
                profile=find_profile(values["profile"]) if values.get("profile") else None,
            )
        except (PlanError, ProfileError):
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise PlanError(f"not a depth plan: {type(error).__name__}: {error}") from error

    @property
    def digest(self) -> str:
        """A stable hash of what runs: equal plans have it equal in every process and version."""
        content = [self.num_layers, self.horizon, self.depths, self.drop_order, self.adaptive and self.schedule]
        content += [self.profile.digest] if self.profile else []
        return digest(json.dumps(content))

    def __hash__(self) -> int:
        return int(self.digest, 16)

    def to_text(self, width: int = 64) -> str:
        """The depth curve as one line of block characters, each the mean of its share of the steps."""
        return sparkline(self.depths, self.num_layers, width)

    def _repr_html_(self) -> str:
        from .display.views import plan_html

        return plan_html(self)


def _decider(spec: str) -> AdaptiveSchedule:
    schedule = parse_schedule(spec)
    if not isinstance(schedule, AdaptiveSchedule):
        raise PlanError(f"the plan says that it is adaptive, but schedule {spec!r} is not; read it again")
    return schedule


def _validate(plan: DepthPlan) -> None:
    layers = range(plan.num_layers)
    if plan.horizon < 1 or len(plan.depths) != plan.horizon:
        raise PlanError(f"a plan for {plan.horizon} steps has {len(plan.depths)} depths")
    if len(set(plan.drop_order)) != len(plan.drop_order) or not all(i in layers for i in plan.drop_order):
        raise PlanError("drop_order must hold distinct layers of the model")
    if plan.depths[0] != plan.num_layers:
        raise PlanError("depths[0] is the prefill and must be full depth")
    if min(plan.depths) < max(plan.core_size, 1) or max(plan.depths) > plan.num_layers:
        raise PlanError(f"depths must lie between {max(plan.core_size, 1)} and {plan.num_layers}")
