"""Calibration: which layers to drop, what stands in for them, and which schedule meets a target."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..adapters import adapter_for
from ..errors import PlanError
from ..files import digest
from ..plans import DepthPlan
from ..profile import Profile, model_identity, save_profile
from ..score.answers import Sample
from .judge import Quality
from .options import Options
from .solve import Frontier, Target, save_frontier
from .units import Units
from .work import Say, Work


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
    key = {
        "model": model_identity(model, name),
        "data": digest(json.dumps([dataclasses.astuple(s) for s in usable]), 64),
        "options": dataclasses.asdict(options),
    }
    folder = Path(out).expanduser()
    units = Units(folder / ".work", key)
    work = Work.begin(adapter, usable, units, options, say)
    drop_order, evidence = work.order()
    bridges, curve = work.bridges(drop_order)
    content = {
        "model": key["model"],
        "drop_order": drop_order,
        "schedule": None,
        "data": {"sha256": key["data"], "prompts": len(usable), "fit_tokens": work.fits.tokens},
        "seed": options.seed,
        "options": key["options"],
        "versions": versions or {},
        "evidence": {**evidence, "constant": curve},
    }
    profile = save_profile(folder, content, bridges)
    if target is not None:
        profile = _solve(work, profile, target, family, usable)
    units.clear()
    return profile


def _solve(work: Work, profile: Profile, target: Target, family: str, samples: Sequence[Sample]) -> Profile:
    """The profile with the schedule that meets the target, the frontier in its evidence and as a picture."""
    horizon = max(len(sample.completion) for sample in samples)
    prompt = round(sum(len(sample.prompt) for sample in samples) / len(samples))

    def measure(plan: DepthPlan) -> Quality:
        work.say(f"measuring {plan.schedule}")
        name = "plan-" + plan.digest
        return work.quality(name, lambda: work.judge.scheduled(plan.depths, plan.keep_sets, plan.bridges))

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
