"""Does position matter? ``python -m depthsched.calibrate.study --prompts FILE --profile DIR``.

Constant depth against schedules that fall with the position, each solved so that over the scored answers it
moves as many bytes as the constant one, with and without the bridges of a profile.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..adapters import Adapter, adapter_for
from ..cost import Cost
from ..errors import DepthschedError, SettingsError
from ..plans import DepthPlan, plan
from ..profile import Profile
from ..score import Sample, ScoreResult, load_samples, score
from ..score.result import interval
from .solve import Frontier

FAMILIES = ("d3", "d3:start=32", "linear", "step")


def study(
    model: Any,
    profile: Profile,
    samples: Sequence[Sample],
    depths: Sequence[int],
    horizon: int,
    tolerance: float = 0.005,
) -> dict[str, Any]:
    """Score every family at the bytes of every constant depth.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    profile : Profile
    samples : sequence of Sample
        That nothing was fitted on.
    depths : sequence of int
        Constant depths to compare with.
    horizon : int
        Tokens to resolve.
    tolerance : float
        How far from equal the bytes may be; a family that comes no closer is left out.

    Returns
    -------
    dict
        ``rows``: one for each plan, with KL and agreement, their differences from the constant plan of the same
        bytes (95% bootstrap intervals over prompts), and KL in the first and last quarter of the steps.
    """
    usable = [sample for sample in samples if len(sample.completion) > 1]
    adapter = adapter_for(model)
    arms = [
        (depth, bridged, family, resolved)
        for depth in depths
        for bridged in (True, False)
        for family, resolved in _arms(adapter, profile, usable, depth, horizon, bridged, tolerance)
    ]
    results = score(model, [resolved for *_, resolved in arms], usable)
    rows = []
    for (depth, bridged, family, _), result in zip(arms, results, strict=True):
        if family == "constant":
            reference = result
        rows.append({"depth": depth, "bridges": bridged, "family": family, **_row(result, reference)})
    return {"prompts": len(usable), "tokens": results[0].tokens, "profile": profile.digest, "rows": rows}


def _arms(
    adapter: Adapter,
    profile: Profile,
    samples: Sequence[Sample],
    depth: int,
    horizon: int,
    bridged: bool,
    tolerance: float,
) -> Iterator[tuple[str, DepthPlan]]:
    """The constant plan and the plan of each family that moves as many bytes; families that cannot are left out."""
    layers = adapter.num_layers
    order = "ranked" if bridged else "ranked:bridges=false"
    constant = plan(f"constant:depth={depth}", order, num_layers=layers, horizon=horizon, profile=profile)
    yield "constant", constant
    goal = _bytes(adapter, constant, samples)
    for family in FAMILIES:
        frontier = Frontier(family, profile, adapter.shape(), horizon, 0, lambda _: NotImplemented)
        found: dict[float, DepthPlan] = {}
        low, high = float(layers - len(profile.drop_order)), layers - 1.0
        for _ in range(3):
            for mean_depth in np.linspace(low, high, 17):
                with suppress(SettingsError):  # the family does not reach this mean depth
                    spec = frontier.resolve(float(mean_depth)).schedule
                    resolved = plan(spec, order, num_layers=layers, horizon=horizon, profile=profile)
                    found[_bytes(adapter, resolved, samples)] = resolved
            closest = min(found, key=lambda speedup: abs(speedup - goal), default=0.0)
            if abs(closest / goal - 1) <= tolerance:
                yield family, found[closest]
                break
            if not found:
                break
            low, high = found[closest].mean_depth - (high - low) / 16, found[closest].mean_depth + (high - low) / 16


def _bytes(adapter: Adapter, resolved: DepthPlan, samples: Sequence[Sample]) -> float:
    runs = [(len(s.prompt), [resolved.depth(i) for i in range(1, len(s.completion))]) for s in samples]
    return sum((resolved.cost(adapter.shape(), depths, n) for n, depths in runs), Cost()).ratio


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the study as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m depthsched.calibrate.study", description=__doc__)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--depths", default="24,20")
    parser.add_argument("--limit", type=int, default=48)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    given = parser.parse_args(arguments)
    try:
        depths = [int(depth) for depth in given.depths.split(",") if depth.strip().isdigit()]
        if not depths:
            raise SettingsError(f"--depths {given.depths!r} names no depth; give whole numbers such as 24,20")
        profile = Profile.load(given.profile)
        model, samples = load_samples(given.model, given.prompts, given.limit, given.max_new_tokens)
        print(json.dumps(study(model, profile, samples, depths, given.max_new_tokens)))
    except DepthschedError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
