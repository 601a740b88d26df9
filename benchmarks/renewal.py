"""What renewing the cache is worth: quality at equal bytes, and on the clock.

Schedules that only depend on the position make a frontier each; what a run with renewal reaches stands beside what they
reach, by interpolation, at the bytes that the run moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.calibrate.solve import Frontier
from depthsched.encoding import model_inputs
from depthsched.environment import machine, versions
from depthsched.errors import SettingsError
from depthsched.runtime.renewal import renewal_of
from depthsched.score import Sample, load_samples, score
from depthsched.stats import Interval

from .common import Count, Tokens, beside, numbers, row_of

FAMILIES = ("constant", "d3", "linear")


class Arm(NamedTuple):
    """A plan and how its run renews."""

    name: str
    plan: ds.DepthPlan
    options: dict[str, Any]


def renewal(
    prompts: Annotated[Path, typer.Option(help="Nothing may be fitted on them.")],
    profile: Annotated[Path, typer.Option()],
    model: str = "smollm2",
    depth: Annotated[int, typer.Option(help="Of the steps that do not renew.")] = 20,
    frontier: Annotated[str, typer.Option(help="Mean depths of the schedules beside them.")] = "18,20,22,24,26,28",
    margins: Annotated[str, typer.Option(help="Of the gates: a lead in probability.")] = "0.05,0.1,0.2",
    every: Annotated[str, typer.Option(help="Steps from one renewal to the next.")] = "8,32",
    limit: Count = 24,
    max_new_tokens: Tokens = 128,
    clock_prompts: Annotated[int, typer.Option(min=0, help="Prompts whose decoding is timed; 0 for none.")] = 6,
    repeats: Count = 1,
) -> dict[str, Any]:
    """Score runs with renewal beside schedules at equal bytes, and time some of them against full depth."""
    depths, gates, distances = numbers("--frontier", frontier), _margins(margins), numbers("--every", every)
    fitted = ds.find_profile(profile)
    loaded, tokenizer, samples = load_samples(model, prompts, limit, max_new_tokens)
    usable = [sample for sample in samples if len(sample.completion) > 1]
    layers = adapter_for(loaded).num_layers

    def plan(schedule: str) -> ds.DepthPlan:
        return ds.plan(schedule, "ranked", num_layers=layers, horizon=max_new_tokens, profile=fitted)

    lines = [
        (family, plan(spec))
        for family in FAMILIES
        for spec in _schedules(family, fitted, loaded, depths, max_new_tokens)
    ]
    scored = score(loaded, [one for _, one in lines], usable)
    frontiers = {family: [r for (f, _), r in zip(lines, scored, strict=True) if f == family] for family in FAMILIES}
    arms = _arms(plan, depth, gates, distances, tokenizer)
    rows = []
    for arm in arms:
        rules = renewal_of(
            arm.options.get("skipped_kv", "auto"), arm.options.get("verify_below"), arm.options.get("renew"), tokenizer
        )
        typer.echo(f"scores {arm.name}", err=True)
        found = score(loaded, [arm.plan], usable, renewal=rules)[0]
        rows.append(
            {"arm": arm.name, **row_of(found), "beside": {f: beside(frontiers[f], found)["there"] for f in FAMILIES}}
        )
    chosen = [Arm(one.schedule, one, {}) for _, one in lines] + arms
    clocks = _clock(loaded, chosen, usable[:clock_prompts], max_new_tokens, repeats)
    return {
        "kind": "renewal",
        "model": model,
        "prompts": len(usable),
        "tokens": scored[0].tokens,
        "profile": fitted.digest,
        "machine": machine(loaded.device),
        "versions": versions(),
        "clock_prompts": clock_prompts,
        "repeats": repeats,
        "frontier": [
            {"family": f, **row_of(r), "clock": clocks.get(r.schedule)} for f in FAMILIES for r in frontiers[f]
        ],
        "rows": [{**row, "clock": clocks.get(row["arm"])} for row in rows],
    }


def _margins(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < value <= 1 and math.isfinite(value) for value in found):
        raise SettingsError(f"--margins {text!r} must be numbers above 0 and at most 1, separated by commas")
    return found


def _schedules(family: str, profile: ds.Profile, model: Any, depths: Sequence[int], horizon: int) -> list[str]:
    frontier = Frontier(family, profile, adapter_for(model).shape(), horizon, 0, lambda _: NotImplemented)
    found = []
    for depth in depths:
        with suppress(SettingsError):  # the family does not reach this mean depth
            found.append(frontier.resolve(float(depth)).schedule)
    return list(dict.fromkeys(found))


def _arms(plan: Any, depth: int, margins: Sequence[float], every: Sequence[int], tokenizer: Any) -> list[Arm]:
    constant = plan(f"constant:depth={depth}")
    gated = {margin: plan(f"confidence:depth={depth},margin={margin}") for margin in margins}
    recompute = {"skipped_kv": "recompute"}
    return [
        *(Arm(f"confidence, margin {m:g}", gated[m], {}) for m in margins),
        *(Arm(f"confidence, margin {m:g}, recompute", gated[m], recompute) for m in margins),
        *(Arm(f"constant, verify below {m:g}", constant, {"verify_below": m}) for m in margins),
        *(Arm(f"constant, renew every {n}", constant, {"renew": n}) for n in every),
        Arm("constant, renew at sentence ends", constant, {"renew": "sentence", "tokenizer": tokenizer}),
    ]


def _clock(
    model: Any, arms: Sequence[Arm], samples: Sequence[Sample], tokens: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Speed-up while decoding over full depth on the same prompt, by turns, with no end token."""
    if not samples:
        return {}
    full = Arm("full", ds.plan("full", num_layers=arms[0].plan.num_layers, horizon=tokens), {})
    seconds: dict[str, list[float]] = {arm.name: [] for arm in (full, *arms)}
    end, model.generation_config.eos_token_id = model.generation_config.eos_token_id, None
    try:
        for turn in range(repeats + 1):  # the first round warms up
            for index, sample in enumerate(samples if turn else samples[:1]):
                typer.echo(f"times prompt {index + 1}, round {turn}", err=True)
                for arm in (full, *arms) if (turn + index) % 2 else (*arms[::-1], full):
                    took = _seconds(model, arm, sample, tokens)
                    seconds[arm.name] += [took] if turn else []
    finally:
        model.generation_config.eos_token_id = end
    plain = seconds.pop("full")
    return {
        name: Interval.of([a / b for a, b in zip(plain, mine, strict=True)]).to_json() for name, mine in seconds.items()
    }


def _seconds(model: Any, arm: Arm, sample: Sample, tokens: int) -> float:
    inputs = model_inputs([sample.prompt], model.device)
    options = {**arm.options, "max_new_tokens": tokens, "do_sample": False, "backend": "compiled"}
    return ds.generate(model, inputs, arm.plan, **options).decode_seconds
