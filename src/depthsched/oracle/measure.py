"""From a model, orders and samples to what the oracle found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..adapters import adapter_for
from ..cost import ModelShape
from ..errors import PlanError
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..runtime.policy import check_plan
from ..score import Sample, ScoreResult, score
from ..score.answers import Progress
from .depths import KINDS, Answer, Bools, Floats, all_depths, answers_of
from .headroom import LEVELS, best, step_bytes
from .result import DepthShare, KindResult, OracleResult, PlanRow, mean, ranges, trend

CONSTANT = "constant"


def oracle_depths(
    model: Any,
    specs: Sequence[PlanSpec],
    samples: Sequence[Sample],
    *,
    kinds: Sequence[str] = tuple(KINDS),
    plans: Sequence[str] = (),
    min_depth: int = 1,
    batch_tokens: int = 6144,
    tokenizer: Any = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[OracleResult]:
    """The least depth of an order, for every decode step, whose most likely token is full depth's.

    The completions are teacher-forced. A ``one-step`` oracle runs the step alone at the depth, over the K and V of
    full depth; its headroom bounds every schedule of the order whose cache is renewed before each step. A ``held``
    oracle runs the whole answer up to the step at the depth, which is ``constant:depth=`` exactly. A step of a
    schedule that never rises reads K and V that are at least as deep as those of its own depth held and at most full
    depth's, so the two stand on either side of it; as a worse cache may agree by chance, this is no bound step by step.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    specs : sequence of PlanSpec
        Their orders and bridges count, their schedules do not.
    samples : sequence of Sample
        As from :func:`depthsched.score.own_answers`. A completion of a single token is left out.
    kinds : sequence of str
        ``one-step``, ``held`` or both.
    plans : sequence of str
        Schedules to score on the same samples with the same orders, for comparison. Every constant depth comes with
        ``held`` in any case.
    min_depth : int
        Try no depth below; every depth takes a pass.
    batch_tokens : int
        Most positions, padding included, that run at once.
    tokenizer : optional
        For schedules among ``plans`` that ask for ``token_class``.
    force : bool
        Drive a model family that is unknown or refused.
    progress : callable, optional
        Gets the number of passes done, counted by samples, and of all.

    Returns
    -------
    list of OracleResult
        In the order of the specs.

    Raises
    ------
    PlanError
        No sample has a decode step, an order reaches no depth but full, or an unknown kind.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise PlanError(f"unknown kind {(unknown or [''])[0]!r}; use {' or '.join(KINDS)}")
    adapter = adapter_for(model, force=force)
    usable = [sample for sample in samples if len(sample.completion) > 1]
    if not usable:
        raise PlanError("no completion has a second token, so no decode step to look at; allow longer answers")
    horizon = max(len(sample.completion) for sample in usable)
    tried = [all_depths(spec, adapter.num_layers, horizon, min_depth) for spec in specs]
    for plan in tried:
        check_plan(plan, adapter)
    compared = [[PlanSpec(PlanSpec.parse(text).schedule, spec.order, spec.profile, text) for text in plans]
                for spec in specs]  # fmt: skip
    began = time.perf_counter()
    found = list(answers_of(adapter, tried, usable, kinds, batch_tokens=batch_tokens, progress=progress))
    place = {id(row[0].sample): row for row in found}
    seconds = time.perf_counter() - began
    results = []
    for i, (plan, others) in enumerate(zip(tried, compared, strict=True)):
        scored = _scored(model, others, plan, horizon, usable, force, tokenizer)
        rows = [place[id(sample)][i] for sample in usable]
        results.append(_result(plan, adapter.shape(), rows, kinds, scored, seconds / len(tried)))
    return results


def _scored(
    model: Any,
    specs: Sequence[PlanSpec],
    plan: DepthPlan,
    horizon: int,
    samples: Sequence[Sample],
    force: bool,
    tokenizer: Any,
) -> list[tuple[str, ScoreResult]]:
    resolved = [spec.resolve(plan.num_layers, horizon) for spec in specs]
    results = score(model, resolved, samples, tokenizer=tokenizer, force=force) if specs else []
    return [(spec.label, result) for spec, result in zip(specs, results, strict=True)]


def _result(
    plan: DepthPlan,
    shape: ModelShape,
    rows: Sequence[Answer],
    kinds: Sequence[str],
    scored: Sequence[tuple[str, ScoreResult]],
    seconds: float,
) -> OracleResult:
    depths = rows[0].depths
    costs = np.concatenate([step_bytes(plan, shape, row) for row in rows], axis=1)
    agree = {kind: np.concatenate([row.agree[kind] for row in rows], axis=1) for kind in kinds}
    measured = {"nll": [row.nll for row in rows], "entropy": [row.entropy for row in rows]}

    def beside(agreement: float) -> dict[str, float]:
        return {kind: best(depths, some, costs, agreement).bytes_speedup for kind, some in agree.items()}

    others = [
        PlanRow(label, one.agreement, one.bytes_speedup, one.mean_depth, beside(one.agreement.mean))
        for label, one in scored
    ]
    if "held" in agree:
        for i, depth in enumerate(depths[:-1]):
            agreement = mean([row.agree["held"][i].astype(float) for row in rows])
            saved = float(costs[-1].sum() / costs[i].sum())
            label = f"{CONSTANT}:depth={depth}"
            others.append(PlanRow(label, agreement, saved, float(depth), beside(agreement.mean)))
    return OracleResult(
        order=plan.order,
        profile=plan.profile.place if plan.profile else None,
        num_layers=plan.num_layers,
        depths=depths,
        prompts=len(rows),
        tokens=costs.shape[1],
        nll=mean(measured["nll"]),
        entropy=mean(measured["entropy"]),
        trend={name: trend(values) for name, values in measured.items()},
        per_step=ranges(measured),
        kinds=tuple(_kind(kind, rows, agree[kind], costs) for kind in kinds),
        plans=tuple(others),
        seconds=seconds,
        answers=tuple(rows),
    )


def _kind(kind: str, rows: Sequence[Answer], agree: Bools, costs: Floats) -> KindResult:
    depths = rows[0].depths
    found = {
        "least": [row.least(kind).astype(float) for row in rows],
        "stable": [row.stable(kind).astype(float) for row in rows],
    }
    flat = {name: np.concatenate(values) for name, values in found.items()}
    deeper_too = np.logical_and.accumulate(agree[::-1], axis=0)[::-1]
    return KindResult(
        kind=kind,
        least=mean(found["least"]),
        stable=mean(found["stable"]),
        trend={name: trend(values) for name, values in found.items()},
        depths=tuple(
            DepthShare(
                depth,
                float(agree[i].mean()),
                float((flat["least"] == depth).mean()),
                float((flat["stable"] == depth).mean()),
                float(costs[-1].sum() / costs[i].sum()),
            )
            for i, depth in enumerate(depths)
        ),
        per_step=ranges(found),
        headroom=tuple(best(depths, agree, costs, level) for level in LEVELS),
        stable_headroom=tuple(best(depths, deeper_too, costs, level) for level in LEVELS),
    )
