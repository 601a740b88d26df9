"""Calibration: which layers to drop, what stands in for them, and which schedule meets a target."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..adapters import Adapter, adapter_for
from ..bridge import Bridge
from ..errors import PlanError, SettingsError
from ..order import keep_layers
from ..plan import DepthPlan
from ..profile import Profile, model_identity, save_profile
from ..score.answers import Sample
from .fit import FitSet, correction_sites
from .judge import Judge, Quality
from .rank import choose_block, rank_greedily
from .solve import Frontier, Target, save_frontier
from .units import Units

Say = Callable[[str], None]
ORDERS = ("block", "ranked")
SCOUTS = 6


@dataclass(frozen=True)
class Options:
    """Settings of a calibration.

    Attributes
    ----------
    min_depth : int or None
        Lowest depth to make bridges for; ``None``: half of the layers.
    orders : tuple of str
        Kinds of order to try: ``block`` (one growing block), ``ranked`` (one layer after another).
    corrections : int
        A correction in front of every so many kept layers above the skipped ones; 0: none.
    held_out : float
        Share of the prompts that judge, and that no bridge is fitted on.
    seed : int
        Draws which prompts judge.
    """

    min_depth: int | None = None
    orders: tuple[str, ...] = ORDERS
    corrections: int = 4
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.orders or set(self.orders) - set(ORDERS):
            raise SettingsError(f"orders {', '.join(self.orders) or 'none'}: give one or both of {', '.join(ORDERS)}")
        if self.corrections < 0:
            raise SettingsError(f"corrections={self.corrections} must be at least 0")
        if not 0 < self.held_out < 1:
            raise SettingsError(f"held_out={self.held_out} must be in (0, 1)")


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
        The schedules to search: ``constant``, ``d3``, ``linear`` or ``step``.
    options : Options, optional
    versions : mapping, optional
        Recorded in the profile.
    say : callable, optional
        Gets a line of text as each part begins.

    Raises
    ------
    PlanError, SettingsError
        Too few samples, or no schedule meets the target.
    """
    options = options or Options()
    adapter = adapter_for(model)
    usable = [sample for sample in samples if len(sample.completion) > 1]
    if len(usable) < 4:
        raise PlanError(f"calibration needs at least 4 prompts with answers of two tokens or more, not {len(usable)}")
    identity = model_identity(model, name)
    data = hashlib.sha256(json.dumps([dataclasses.astuple(s) for s in usable]).encode()).hexdigest()
    folder = Path(out).expanduser()
    units = Units(folder / ".work", {"model": identity, "data": data, "options": dataclasses.asdict(options)})
    held, fitted = _split(usable, options)
    say(f"full depth on {len(held)} held-out prompts")
    judge = Judge(adapter, held)
    say(f"full depth on {len(fitted)} prompts to fit on")
    fits = FitSet(adapter, fitted)
    work = _Work(judge, _scout(adapter, held), fits, units, options, say)
    drop_order, evidence = work.order()
    bridges, curve = work.bridges(drop_order)
    profile = save_profile(
        folder,
        {
            "model": identity,
            "drop_order": drop_order,
            "schedule": None,
            "data": {"sha256": data, "prompts": len(usable), "fit_tokens": fits.tokens},
            "seed": options.seed,
            "options": dataclasses.asdict(options),
            "versions": versions or {},
            "evidence": {**evidence, "constant": curve},
        },
        bridges,
    )
    if target is not None:
        profile = _solve(work, profile, target, family, usable)
    units.clear()
    return profile


def _split(samples: Sequence[Sample], options: Options) -> tuple[list[Sample], list[Sample]]:
    """Held-out samples and samples to fit on, each in an order of its own."""
    shuffled = sorted(samples, key=lambda s: (s.prompt, s.completion))
    random.Random(options.seed).shuffle(shuffled)
    count = min(max(round(options.held_out * len(shuffled)), 2), len(shuffled) - 2)
    by_length: Callable[[Sample], Any] = lambda s: (len(s.prompt), s.prompt)  # noqa: E731
    return sorted(shuffled[:count], key=by_length), shuffled[count:]


def _scout(adapter: Adapter, held: Sequence[Sample]) -> Judge:
    """A small judge for the many trials of the greedy ranking: a few prompts, the first half of their answers."""
    some = held[:: max(len(held) // SCOUTS, 1)][:SCOUTS]
    return Judge(adapter, [Sample(s.prompt, s.completion[: max(len(s.completion) // 2, 2)]) for s in some])


@dataclass(frozen=True)
class _Work:
    """The parts of one calibration, each a unit that is done once."""

    judge: Judge
    scout: Judge
    fits: FitSet
    units: Units
    options: Options
    say: Say

    @property
    def layers(self) -> int:
        return self.judge.adapter.num_layers

    @property
    def drops(self) -> int:
        """Layers to drop at the lowest depth; the first and the last layer always run."""
        lowest = self.options.min_depth if self.options.min_depth is not None else (self.layers + 1) // 2
        if not 1 <= lowest < self.layers:
            raise SettingsError(f"min depth {lowest} must be between 1 and {self.layers - 1}")
        return min(self.layers - lowest, self.layers - 2)

    def order(self) -> tuple[list[int], dict[str, Any]]:
        """The better order at a third of the layers dropped, both bridged, and what was found."""
        size = max(min(self.layers // 3, self.drops), 1)
        candidates: dict[str, list[int]] = {}
        evidence: dict[str, Any] = {"judged_at_depth": self.layers - size}
        if "block" in self.options.orders:
            self.say("choosing a block")
            start, _, evidence["blocks"] = choose_block(self.fits, self.judge, size, self.units)
            above = list(range(start, self.layers - 1))[: self.drops]
            below = list(range(start - 1, 0, -1))[: self.drops - len(above)]
            candidates["block"] = above + below
        if "ranked" in self.options.orders:
            self.say("ranking layer by layer")
            candidates["ranked"] = rank_greedily(self.scout, self.drops, self.units)
        evidence["orders"] = {}
        for name, order in candidates.items():
            keep = keep_layers(order, self.layers - size, self.layers)
            plain = self._quality(f"plain-{name}", partial(self.judge.constant, keep))
            found, _ = self._fit(f"fit-{name}", keep, corrections=0)
            bridged = self._quality(f"bridged-{name}", partial(self.judge.constant, keep, found))
            evidence["orders"][name] = {"drop_order": order, "plain": plain._asdict(), "bridged": bridged._asdict()}
        chosen = min(candidates, key=lambda name: (evidence["orders"][name]["bridged"]["kl"], name))
        return candidates[chosen], {**evidence, "chosen": chosen}

    def bridges(self, drop_order: Sequence[int]) -> tuple[dict[int, dict[int, Bridge]], list[dict[str, Any]]]:
        """Bridges of every depth that the order reaches, and what each depth costs on held-out prompts."""
        found: dict[int, dict[int, Bridge]] = {}
        curve = []
        for depth in range(self.layers - 1, self.layers - len(drop_order) - 1, -1):
            keep = keep_layers(drop_order, depth, self.layers)
            self.say(f"bridges of depth {depth}")
            found[depth], about = self._fit(f"depth-{depth}", keep, self.options.corrections)
            quality = self._quality(f"kl-{depth}", partial(self.judge.constant, keep, found[depth]))
            curve.append({"depth": depth, **quality._asdict(), "fits": about})
        return found, curve

    def _quality(self, name: str, compute: Callable[[], Quality]) -> Quality:
        return Quality(*self.units.value(name, lambda: list(compute())))

    def _fit(self, name: str, keep: Sequence[int], corrections: int) -> tuple[dict[int, Bridge], Any]:
        def compute() -> tuple[dict[str, Bridge], Any]:
            sites = correction_sites(keep, self.layers, corrections)
            bridges, fits = self.fits.fit_keep_set(keep, sites)
            about = [
                {"layer": layer, "ridge": fit.ridge, "unexplained": fit.unexplained}
                for layer, fit in zip(bridges, fits, strict=True)
            ]
            return {str(layer): bridge for layer, bridge in bridges.items()}, about

        found, about = self.units.bridges(name, compute)
        return {int(layer): bridge for layer, bridge in sorted(found.items(), key=lambda item: int(item[0]))}, about


def _solve(work: _Work, profile: Profile, target: Target, family: str, samples: Sequence[Sample]) -> Profile:
    """The profile with the schedule that meets the target, the frontier in its evidence and as a picture."""
    horizon = max(len(sample.completion) for sample in samples)
    prompt = round(sum(len(sample.prompt) for sample in samples) / len(samples))

    def measure(plan: DepthPlan) -> Quality:
        work.say(f"measuring {plan.schedule}")
        name = "plan-" + plan.digest
        return work._quality(name, lambda: work.judge.scheduled(plan.depths, plan.keep_sets, plan.bridges))

    frontier = Frontier(family, profile, work.judge.adapter.shape(), horizon, prompt, measure)
    chosen = frontier.solve(target)
    save_frontier(frontier.sorted(), chosen, profile.folder / "frontier.png")
    content = {k: v for k, v in profile.content.items() if not k.startswith(("tensors_", "bridges", "format"))}
    content["schedule"] = chosen.schedule
    content["evidence"] = {
        **content["evidence"],
        "target": dataclasses.asdict(target),
        "chosen_point": dataclasses.asdict(chosen),
        "frontier": [dataclasses.asdict(point) for point in frontier.sorted()],
    }
    return save_profile(profile.folder, content, profile.bridges(profile.depths))


def timed(say: Say) -> Say:
    """``say`` with the seconds since the start in front."""
    began = time.perf_counter()
    return lambda text: say(f"{time.perf_counter() - began:6.0f} s  {text}")
