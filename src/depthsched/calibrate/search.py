"""A whole calibration: which layers to drop, what stands in for them, and which schedule meets a target."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..adapters import adapter_for
from ..cost import ModelShape
from ..damage import DamageTable, step_ranges
from ..errors import PlanError, SettingsError
from ..files import digest
from ..fingerprint import ModelIdentity
from ..plugins import parse_ranker
from ..profile import Profile
from ..ranker import LayerRanker
from ..score.answers import Sample
from ..work.cluster import Cluster, working
from .acceptance import CheckCost
from .candidates import Say, Search
from .drafting import search_drafts
from .solve import Frontier, Target, check_family, save_frontier
from .study import Study
from .units import Units

ORDERS = ("block", "ranked")
MOST_HELD_OUT = 24  # enough to tell orders apart; every further prompt serves the fits better


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
        A correction in front of every so many kept layers above the skipped ones, where they lower KL on the held-out
        prompts (the evidence says); 0: none.
    held_out : float
        Share of the prompts that judge, and that no bridge is fitted on; at most 24 prompts.
    seed : int
        Draws which prompts judge, and whatever a ranker draws.
    refine : int
        Passes of gradient descent on KL that bridges go through after the fit; 0: none. Minutes a pass and depth.
    """

    min_depth: int | None = None
    orders: tuple[str, ...] = ORDERS
    corrections: int = 4
    held_out: float = 0.2
    seed: int = 0
    refine: int = 0

    def __post_init__(self) -> None:
        if len(self.rankers) != len(self.orders) or not self.orders:
            given = ", ".join(self.orders) or "none"
            raise SettingsError(f"orders {given}: give one or more rankers, each once, such as {', '.join(ORDERS)}")
        if self.corrections < 0:
            raise SettingsError(f"corrections={self.corrections} must be at least 0")
        if self.refine < 0:
            raise SettingsError(f"refine={self.refine} must be at least 0")
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
    check: CheckCost | None = None,
    options: Options | None = None,
    versions: dict[str, str] | None = None,
    say: Say = lambda text: None,
    cluster: Cluster | None = None,
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
    check : CheckCost, optional
        What checking drafts costs. Given, order, bridges and depth are chosen for lossless runs: see
        :func:`~depthsched.calibrate.drafting.search_drafts`. Left out, for skipping.
    options : Options, optional
    versions : mapping, optional
        Recorded in the profile.
    say : callable, optional
        Gets a line of text as each part begins.
    cluster : Cluster, optional
        Spread fits and judgements over its workers, a batch of the samples a piece: see :meth:`Study.spread`.

    Raises
    ------
    PlanError, SettingsError
        Too few samples, options that do not fit the model, a family without a target, no schedule meets the target, or
        a target for drafts.
    """
    options = options or Options()
    adapter = adapter_for(model)
    usable = [sample for sample in samples if len(sample.completion) > 1]
    if len(usable) < 4:
        raise PlanError(f"calibration needs at least 4 prompts with answers of two tokens or more, not {len(usable)}")
    drops = options.drops(adapter.num_layers)
    if target is None and family != "constant":
        raise SettingsError(f"schedule family {family!r} serves a target; give max KL, min agreement or a speed-up too")
    if target is not None and check is not None:
        raise SettingsError("drafts lose no quality, so that a target says nothing about them; leave it out")
    if options.refine and check is not None:
        raise SettingsError("refining lowers KL along a skipping run, and drafts start from full depth; leave it out")
    horizon = max(len(sample.completion) for sample in usable)
    check_family(family, adapter.num_layers, drops, horizon)

    identity = ModelIdentity.of(model, name)
    data = digest(json.dumps([dataclasses.astuple(sample) for sample in usable]), 64)
    given = dataclasses.asdict(options)
    folder = Path(out).expanduser()
    units = Units(folder / ".work", {"model": dataclasses.asdict(identity), "data": data, "options": given})

    held, fitted = split(usable, options)
    with working(adapter.model, None, cluster) as work:
        say(f"full depth on {len(held)} held-out prompts and {len(fitted)} to fit on")
        study = Study.of(adapter, fitted, held, units, drops, options.seed, work if cluster else None)
        if cluster:
            say(study.spread(refines=bool(options.refine)))
        search = Search(study, say, options.refine)
        profile = Profile(
            model=identity,
            drop_order=(),
            data={"sha256": data, "prompts": len(usable), "fit_tokens": study.fitted.tokens},
            seed=options.seed,
            options=given,
            versions=versions or {},
        )
        if check is not None:
            found = search_drafts(search, options.rankers, options.corrections, adapter.shape(), check)
            profile = profile.replace(**found.fields()).save(folder, found.bridges)
        else:
            drop_order, evidence = search.order(options.rankers)
            corrections, judged = search.worth(drop_order, options.corrections)
            bridges, curve, by_step = search.bridges(drop_order, corrections)
            evidence = {**evidence, **judged, "constant": curve}
            damage = damage_table(held, {depth: sums.kl for depth, sums in by_step.items()}, adapter.shape())
            profile = profile.replace(drop_order=tuple(drop_order), evidence=evidence, damage=damage)
            profile = profile.save(folder, bridges)
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


def damage_table(held: Sequence[Sample], sums: Mapping[int, Sequence[float]], shape: ModelShape) -> DamageTable:
    """Mean KL of each depth in ranges of steps, from its sums over the held-out answers at every step."""
    counts = [len(sample.completion) - 1 for sample in held]
    steps = step_ranges(counts)
    places = list(pairwise(steps))
    tokens = tuple(sum(max(min(count, end - 1) - first + 1, 0) for count in counts) for first, end in places)
    kl = {
        depth: tuple(sum(row[first - 1 : end - 1]) / n for (first, end), n in zip(places, tokens, strict=True))
        for depth, row in sums.items()
    }
    prompt = round(sum(len(sample.prompt) for sample in held) / len(held))
    return DamageTable(steps, tokens, kl, len(held), prompt, shape)


def split(samples: Sequence[Sample], options: Options) -> tuple[list[Sample], list[Sample]]:
    """Held-out samples and samples to fit on, each in an order of its own."""
    shuffled = sorted(samples, key=lambda s: (s.prompt, s.completion))
    random.Random(options.seed).shuffle(shuffled)
    count = min(max(round(options.held_out * len(shuffled)), 2), len(shuffled) - 2, MOST_HELD_OUT)
    return sorted(shuffled[:count], key=lambda s: (len(s.prompt), s.prompt)), shuffled[count:]
