"""Whether an adaptive rule beats constant depth at equal bytes, teacher-forced, with the oracle as the bound.

Every constant depth of an order makes a frontier. Beside a rule stands what constant depth reaches at the bytes that
the rule moved, by interpolation between neighbouring depths, prompt by prompt, so that the difference is paired; and
what the best choice of depths in hindsight would save at the rule's agreement.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.environment import machine, versions
from depthsched.errors import SettingsError
from depthsched.oracle import oracle_depths
from depthsched.oracle.depths import all_depths
from depthsched.oracle.headroom import best, step_bytes
from depthsched.oracle.result import OracleResult
from depthsched.runtime.renewal import Renewal
from depthsched.score import ScoreResult, load_samples, score

from .common import Count, Tokens, beside, row_of

RULES = Path(__file__).with_name("rules.py")
HERE = "rules:"
"""What stands for the file of rules in the names of arms, which must not hold the path of a checkout."""


class Arm(NamedTuple):
    """A rule, and how its run renews the cache."""

    schedule: str
    renew: int = 0

    @property
    def name(self) -> str:
        renewed = f", recompute, renewed every {self.renew}" if self.renew else ""
        return self.schedule.replace(f"{RULES}:", HERE) + renewed


def adaptive(
    prompts: Annotated[Path, typer.Option(help="Nothing may be fitted on them.")],
    profile: Annotated[str, typer.Option(help="A folder, a name or a hub id.")],
    model: str = "smollm2",
    depth: Annotated[int, typer.Option(help="Of the steps that a rule lets be shallow.")] = 20,
    lowest: Annotated[int, typer.Option(help="Of the constant depths and of the oracle.")] = 16,
    renew: Annotated[int, typer.Option(min=1, help="Steps between two checks, for rules that hear of them.")] = 8,
    rules: Annotated[str, typer.Option(help="More schedules, separated by ';'.")] = "",
    limit: Count = 16,
    max_new_tokens: Tokens = 96,
) -> dict[str, Any]:
    """Score adaptive rules beside every constant depth and the oracle."""
    fitted = ds.find_profile(profile)
    arms = [*_arms(depth, renew), *(Arm(text.strip()) for text in rules.split(";") if text.strip())]
    for arm in arms:
        ds.parse_schedule(arm.schedule)  # before the model, so that a typo costs no loading
    loaded, tokenizer, samples = load_samples(model, prompts, limit, max_new_tokens)
    usable = [sample for sample in samples if len(sample.completion) > 1]
    layers = adapter_for(loaded).num_layers
    if not 1 <= lowest < layers:
        raise SettingsError(f"--lowest {lowest} must be from 1 to {layers - 1}, below the model's {layers} layers")

    def plan(schedule: str) -> ds.DepthPlan:
        return ds.plan(schedule, "ranked", num_layers=layers, horizon=max_new_tokens, profile=fitted)

    typer.echo("scores every constant depth, and asks the oracle", err=True)
    constants = score(loaded, [plan(f"constant:depth={d}") for d in range(lowest, layers + 1)], usable)
    spec = ds.PlanSpec.parse("full", "ranked", fitted)
    oracle = oracle_depths(loaded, [spec], usable, min_depth=lowest)[0]
    bound = _Bound(loaded, spec, oracle, max_new_tokens, lowest)
    rows = []
    for arm in arms:
        typer.echo(f"scores {arm.name}", err=True)
        renewal = Renewal(every=arm.renew) if arm.renew else None
        made = plan(arm.schedule)
        backend = "auto" if made.adaptive or renewal else "eager"  # of what is scored step by step
        found = score(loaded, [made], usable, renewal=renewal, tokenizer=tokenizer, backend=backend)[0]
        rows.append({**row_of(found), "schedule": arm.name, **beside(constants, found), "oracle": bound.at(found)})
    return {
        "kind": "adaptive",
        "model": Path(model).name,
        "prompts": len(usable),
        "tokens": constants[0].tokens,
        "profile": fitted.digest,
        "order": oracle.order,
        "lowest": lowest,
        "machine": machine(loaded.device),
        "versions": versions(),
        "rows": rows,
        "constants": [{"depth": int(c.mean_depth), **row_of(c), "oracle": bound.at(c)} for c in constants],
        "headroom": {kind.kind: [found.to_json() for found in kind.headroom] for kind in oracle.kinds},
    }


def _arms(depth: int, renew: int) -> list[Arm]:
    mine = f"{RULES}:{{}}:depth={depth},{{}}"
    texts = [
        *(f"confidence:depth={depth},margin={m}" for m in ("0.05", "0.2", "0.5")),
        *(mine.format("LessSure", f"share={s}") for s in ("0.1", "0.3")),
        *(mine.format("Unsteady", f"above={a}") for a in ("0.5", "1")),
        *(mine.format("ByClass", f"after={c}") for c in ("digit", "newline", "punctuation+newline", "word")),
        *(mine.format("Turned", f"below={b}") for b in ("0.9",)),
    ]
    checked = [f"confidence:depth={depth},margin=0.1", mine.format("Feedback", "least=0.8")]
    return [*map(Arm, texts), *(Arm(text, renew) for text in checked), Arm(f"constant:depth={depth}", renew)]


class _Bound:
    """What the best choice of depths would save at an agreement, by kind of oracle."""

    def __init__(self, model: Any, spec: ds.PlanSpec, found: OracleResult, horizon: int, lowest: int) -> None:
        adapter = adapter_for(model)
        plan = all_depths(spec, adapter.num_layers, horizon, lowest)
        self.depths = found.depths
        self.costs = np.concatenate([step_bytes(plan, adapter.shape(), answer) for answer in found.answers], axis=1)
        self.agree = {
            kind.kind: np.concatenate([answer.agree[kind.kind] for answer in found.answers], axis=1)
            for kind in found.kinds
        }

    def at(self, found: ScoreResult) -> dict[str, float]:
        level = found.agreement.mean
        return {kind: best(self.depths, agree, self.costs, level).bytes_speedup for kind, agree in self.agree.items()}
