"""Does position matter?

Constant depth against schedules that fall with the position, each solved so that over the scored answers it
moves as many bytes as the constant one, with and without the bridges of a profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import depthsched as ds
from depthsched.adapters import Adapter, adapter_for
from depthsched.calibrate.solve import Frontier
from depthsched.cost import Cost
from depthsched.errors import SettingsError
from depthsched.score import Sample, ScoreResult, load_samples, score
from depthsched.score.result import interval

from .common import Count, Tokens, numbers

FAMILIES = ("d3", "d3:start=32", "linear", "step")


def study(
    prompts: Annotated[Path, typer.Option(help="Nothing may be fitted on them.")],
    profile: Annotated[Path, typer.Option()],
    model: str = "smollm2",
    depths: Annotated[str, typer.Option(help="Constant depths to compare with.")] = "24,20",
    limit: Count = 48,
    max_new_tokens: Tokens = 128,
    tolerance: Annotated[float, typer.Option(help="How far from equal the bytes may be.")] = 0.005,
) -> dict[str, Any]:
    """Score schedules that fall with the position at the bytes of every constant depth, with and without bridges.

    A row for each plan, with its difference from the constant plan of the same bytes (95% bootstrap intervals over
    prompts). A family that comes no closer to equal bytes than the tolerance is left out.
    """
    constants, fitted = numbers("--depths", depths), ds.find_profile(profile)
    loaded, _, samples = load_samples(model, prompts, limit, max_new_tokens)
    usable = [sample for sample in samples if len(sample.completion) > 1]
    adapter = adapter_for(loaded)
    arms = [
        (depth, bridged, family, resolved)
        for depth in constants
        for bridged in (True, False)
        for family, resolved in _arms(adapter, fitted, usable, depth, max_new_tokens, bridged, tolerance)
    ]
    results = score(loaded, [resolved for *_, resolved in arms], usable)
    rows = []
    for (depth, bridged, family, _), result in zip(arms, results, strict=True):
        if family == "constant":
            reference = result
        rows.append({"depth": depth, "bridges": bridged, "family": family, **_row(result, reference)})
    return {"prompts": len(usable), "tokens": results[0].tokens, "profile": fitted.digest, "rows": rows}


def _arms(
    adapter: Adapter,
    profile: ds.Profile,
    samples: Sequence[Sample],
    depth: int,
    horizon: int,
    bridged: bool,
    tolerance: float,
) -> Iterator[tuple[str, ds.DepthPlan]]:
    """The constant plan and the plan of each family that moves as many bytes; families that cannot are left out."""
    layers = adapter.num_layers
    order = "ranked" if bridged else "ranked:bridges=false"
    constant = ds.plan(f"constant:depth={depth}", order, num_layers=layers, horizon=horizon, profile=profile)
    yield "constant", constant
    goal = _bytes(adapter, constant, samples)
    for family in FAMILIES:
        frontier = Frontier(family, profile, adapter.shape(), horizon, 0, lambda _: NotImplemented)
        found: dict[float, ds.DepthPlan] = {}
        low, high = float(layers - len(profile.drop_order)), layers - 1.0
        for _ in range(3):
            for mean_depth in np.linspace(low, high, 17):
                with suppress(SettingsError):  # the family does not reach this mean depth
                    spec = frontier.resolve(float(mean_depth)).schedule
                    resolved = ds.plan(spec, order, num_layers=layers, horizon=horizon, profile=profile)
                    found[_bytes(adapter, resolved, samples)] = resolved
            closest = min(found, key=lambda speedup: abs(speedup - goal), default=0.0)
            if abs(closest / goal - 1) <= tolerance:
                yield family, found[closest]
                break
            if not found:
                break
            low, high = found[closest].mean_depth - (high - low) / 16, found[closest].mean_depth + (high - low) / 16


def _bytes(adapter: Adapter, resolved: ds.DepthPlan, samples: Sequence[Sample]) -> float:
    runs = [(len(s.prompt), [resolved.depth(i) for i in range(1, len(s.completion))]) for s in samples]
    shape = adapter.shape()
    return sum((resolved.cost(shape, depths, prompt) for prompt, depths in runs), Cost()).ratio


def _row(result: ScoreResult, constant: ScoreResult) -> dict[str, Any]:
    counts = [prompt.tokens for prompt in result.per_prompt]

    def less(name: str) -> dict[str, Any]:
        pairs = zip(result.per_prompt, constant.per_prompt, strict=True)
        return interval([getattr(a, name) - getattr(b, name) for a, b in pairs], counts).to_json()

    quarter = max(len(result.per_step) // 4, 1)
    return {
        "schedule": result.schedule,
        "mean_depth": result.mean_depth,
        "bytes_speedup": result.bytes_speedup,
        "kl": result.kl.to_json(),
        "agreement": result.agreement.to_json(),
        "kl_less_constant": less("kl"),
        "agreement_less_constant": less("agreement"),
        "kl_first_quarter": _mean(result.per_step[:quarter]),
        "kl_last_quarter": _mean(result.per_step[-quarter:]),
    }


def _mean(groups: Sequence[Any]) -> float:
    tokens = sum(group.tokens for group in groups)
    return float(sum(group.tokens * group.kl for group in groups) / tokens)
