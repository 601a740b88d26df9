"""A whole calibration: which layers to drop, what stands in for them, and which schedule meets a target."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..adapters import adapter_for
from ..bridge import Bridge
from ..errors import PlanError, SettingsError
from ..files import digest
from ..order import keep_layers
from ..plans import DepthPlan
from ..plugins import parse_ranker
from ..profile import ModelIdentity, Profile
from ..ranker import LayerRanker
from ..score.answers import Sample
from .fit import correction_sites, fit_keep_set
from .judge import Quality, judge_constant, judge_plan
from .solve import Frontier, Target, check_family, save_frontier
from .study import Study
from .units import Units

ORDERS = ("block", "ranked")
MOST_HELD_OUT = 24  # enough to tell orders apart; every further prompt serves the fits better

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """Settings of a calibration.

    Attributes
    ----------
    min_depth : int or None
        Lowest depth to make bridges for; ``None``: half of the layers.
    orders : tuple of str
        Rankers to try, each a spec such as ``block`` (one growing block), ``ranked`` (one layer after another) or one
        of a plug-in.
    corrections : int
        A correction in front of every so many kept layers above the skipped ones; 0: none.
    held_out : float
        Share of the prompts that judge, and that no bridge is fitted on; at most 24 prompts.
    seed : int
        Draws which prompts judge, and whatever a ranker draws.
    """

    min_depth: int | None = None
    orders: tuple[str, ...] = ORDERS
    corrections: int = 4
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.rankers) != len(self.orders) or not self.orders:
            given = ", ".join(self.orders) or "none"
            raise SettingsError(f"orders {given}: give one or more rankers, each once, such as {', '.join(ORDERS)}")
        if self.corrections < 0:
            raise SettingsError(f"corrections={self.corrections} must be at least 0")
        if not 0 < self.held_out < 1:
            raise SettingsError(f"held_out={self.held_out} must be in (0, 1)")

    @property
    def rankers(self) -> dict[str, LayerRanker]:
        """The rankers to try, by their specs."""
        return {ranker.spec(): ranker for ranker in map(parse_ranker, self.orders)}

    def drops(self, layers: int) -> int:
        """Layers to drop at the lowest depth; the first and the last layer always run."""
        lowest = self.min_depth if self.min_depth is not None else (layers + 1) // 2
        if not 1 <= lowest < layers:
            raise SettingsError(f"min depth {lowest} must be between 1 and {layers - 1}")
        return min(layers - lowest, layers - 2)


def calibrate(
    model: Any,
    name: str,
    samples: Sequence[Sample],
    out: str | Path,
    *,
    target: Target | None = None,
    family: str = "constant",
    options: Options | None = None,
    versions: dict[str, str] | None = None,
    say: Say = lambda text: None,
) -> Profile:
    """Find a layer order and bridges for a model, solve for a target, and write a profile.

    The same model, samples and options give the identical profile, also when an interrupted calibration is
    started again: finished units of work are kept in ``out/.work`` until the profile is written.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        In float32 for the best fit.
    name : str
        What the profile calls the model.
    samples : sequence of Sample
        As from :func:`depthsched.score.own_answers`; at least 4.
    out : str or Path
        Folder of the profile.
    target : Target, optional
        What the schedule must meet; left out, the profile has no schedule.
    family : str
        The schedules to search for a target: ``constant``, ``d3``, ``linear`` or ``step``.
    options : Options, optional
    versions : mapping, optional
        Recorded in the profile.
    say : callable, optional
        Gets a line of text as each part begins.

    Raises
    ------
    PlanError, SettingsError
        Too few samples, options that do not fit the model, a family without a target, or no schedule meets the target.
    """
    options = options or Options()
    adapter = adapter_for(model)
    usable = [sample for sample in samples if len(sample.completion) > 1]
    if len(usable) < 4:
        raise PlanError(f"calibration needs at least 4 prompts with answers of two tokens or more, not {len(usable)}")
    drops = options.drops(adapter.num_layers)
    if target is None and family != "constant":
        raise SettingsError(f"schedule family {family!r} serves a target; give max KL, min agreement or a speed-up too")
    horizon = max(len(sample.completion) for sample in usable)
    check_family(family, adapter.num_layers, drops, horizon)

    identity = ModelIdentity.of(model, name)
    data = digest(json.dumps([dataclasses.astuple(sample) for sample in usable]), 64)
    given = dataclasses.asdict(options)
    folder = Path(out).expanduser()
    units = Units(folder / ".work", {"model": dataclasses.asdict(identity), "data": data, "options": given})

    held, fitted = split(usable, options)
    say(f"full depth on {len(held)} held-out prompts and {len(fitted)} to fit on")
    search = _Search(Study.of(adapter, fitted, held, units, drops, options.seed), say)
    drop_order, evidence = search.order(options.rankers)
    bridges, curve = search.bridges(drop_order, options.corrections)
    profile = Profile(
        model=identity,
        drop_order=tuple(drop_order),
        data={"sha256": data, "prompts": len(usable), "fit_tokens": search.study.fitted.tokens},
        seed=options.seed,
        options=given,
        versions=versions or {},
        evidence={**evidence, "constant": curve},
    ).save(folder, bridges)
    if target is not None:
        prompt = round(sum(len(sample.prompt) for sample in usable) / len(usable))
        frontier = Frontier(family, profile, adapter.shape(), horizon, prompt, search.measure)
        profile = _with_schedule(profile, frontier, target)
    units.clear()
    return profile


def _with_schedule(profile: Profile, frontier: Frontier, target: Target) -> Profile:
    """The profile with the schedule that meets the target, the frontier in its evidence and as a picture."""
    chosen = frontier.solve(target)
    save_frontier(frontier.sorted(), chosen, profile.folder / "frontier.png")
    evidence = {
        **profile.evidence,
        "target": dataclasses.asdict(target),
        "chosen_point": dataclasses.asdict(chosen),
        "frontier": [dataclasses.asdict(point) for point in frontier.sorted()],
    }
    return profile.replace(schedule=chosen.schedule, evidence=evidence).save(profile.folder)


@dataclass(frozen=True)
class _Search:
    """The parts of one calibration, each made of units that are done once.

    Attributes
    ----------
    study : Study
        The samples, which judge and which bridges are fitted on.
    """

    study: Study
    say: Say

    @property
    def layers(self) -> int:
        return self.study.num_layers

    def order(self, rankers: Mapping[str, LayerRanker]) -> tuple[list[int], dict[str, Any]]:
        """The best order at a third of the layers dropped, all bridged, and what was found."""
        size = self.study.judged
        evidence: dict[str, Any] = {"judged_at_depth": self.layers - size, "orders": {}}
        candidates: dict[str, list[int]] = {}
        for spec, ranker in rankers.items():
            candidates[spec], found = self._rank(spec, ranker)
            evidence |= found
        for spec, order in candidates.items():
            keep, key = keep_layers(order, self.layers - size, self.layers), digest(spec, 8)
            plain = self._quality(f"plain-{key}", partial(judge_constant, self.study.held, keep))
            fits, _ = self._fit(f"fit-{key}", keep, corrections=0)
            bridged = self._quality(f"bridged-{key}", partial(judge_constant, self.study.held, keep, fits))
            evidence["orders"][spec] = {"drop_order": order, "plain": plain._asdict(), "bridged": bridged._asdict()}
        chosen = min(candidates, key=lambda spec: (evidence["orders"][spec]["bridged"]["kl"], spec))
        return candidates[chosen], {**evidence, "chosen": chosen}

    def _rank(self, spec: str, ranker: LayerRanker) -> tuple[list[int], dict[str, Any]]:
        self.say(f"ranking by {spec}")

        def compute() -> Any:
            study = self.study.named(digest(spec, 8))
            return [ranker.resolve(study), study.evidence]

        order, evidence = self.study.units.value(f"order-{digest(spec, 8)}", compute)
        return order, evidence

    def bridges(
        self, drop_order: Sequence[int], corrections: int
    ) -> tuple[dict[int, dict[int, Bridge]], list[dict[str, Any]]]:
        """Bridges of every depth that the order reaches, and what each depth costs on held-out prompts."""
        found: dict[int, dict[int, Bridge]] = {}
        curve = []
        for depth in range(self.layers - 1, self.layers - len(drop_order) - 1, -1):
            keep = keep_layers(drop_order, depth, self.layers)
            self.say(f"bridges of depth {depth}")
            found[depth], about = self._fit(f"depth-{depth}", keep, corrections)
            quality = self._quality(f"kl-{depth}", partial(judge_constant, self.study.held, keep, found[depth]))
            curve.append({"depth": depth, **quality._asdict(), "fits": about})
        return found, curve

    def measure(self, plan: DepthPlan) -> Quality:
        """What a plan costs on held-out prompts."""
        self.say(f"measuring {plan.schedule}")
        return self._quality(f"plan-{plan.digest}", partial(judge_plan, self.study.held, plan))

    def _quality(self, name: str, compute: Callable[[], Quality]) -> Quality:
        return Quality(*self.study.units.value(name, compute))

    def _fit(self, name: str, keep: Sequence[int], corrections: int) -> tuple[dict[int, Bridge], Any]:
        def compute() -> tuple[dict[int, Bridge], Any]:
            fits = fit_keep_set(self.study.fitted, keep, correction_sites(keep, self.layers, corrections))
            about = [{"layer": i, "ridge": fit.ridge, "unexplained": fit.unexplained} for i, fit in fits.items()]
            return {layer: fit.bridge for layer, fit in fits.items()}, about

        return self.study.units.bridges(name, compute)


def split(samples: Sequence[Sample], options: Options) -> tuple[list[Sample], list[Sample]]:
    """Held-out samples and samples to fit on, each in an order of its own."""
    shuffled = sorted(samples, key=lambda s: (s.prompt, s.completion))
    random.Random(options.seed).shuffle(shuffled)
    count = min(max(round(options.held_out * len(shuffled)), 2), len(shuffled) - 2, MOST_HELD_OUT)
    return sorted(shuffled[:count], key=lambda s: (len(s.prompt), s.prompt)), shuffled[count:]
