"""Score a plan: teacher-forced against full depth, in one pass where the plan is nested."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from ..adapters import Adapter, adapter_for
from ..cost import Cost, ModelShape
from ..errors import PlanError
from ..parallel.ranks import guarded, ranks_of
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..runtime.backends import make_backend
from ..runtime.eager import EagerBackend
from ..runtime.policy import agreed, check_plan, writes_kv
from ..runtime.renewal import Ran, Renewal, Steps
from ..runtime.renewing import renewing_backend
from ..runtime.sampler import RunningRows
from ..runtime.signals import SignalReader, refuse_signals
from ..work.cluster import Cluster, working
from ..work.pieces import Loaded
from .answers import Progress, Sample
from .asked import Asked
from .metrics import Metrics, compare_logits, compare_states
from .result import METRICS, PromptScore, ScoreResult, group, interval
from .staircase import Staircase

METHODS = ("auto", "staircase", "step-by-step")
_BUCKETS = 8


class _Row(NamedTuple):
    """One prompt's decode steps."""

    metrics: Metrics
    ran: list[Ran]
    prompt_tokens: int

    @property
    def layers(self) -> list[int]:
        """Layers that ran at each step, those of a pass that was thrown away included."""
        return [ran.depth + ran.tried for ran in self.ran]


class _Batch(NamedTuple):
    """Samples with their prompts run, and the final states of full depth ``[batch, steps, hidden]``."""

    staircase: Staircase
    full: torch.Tensor

    @classmethod
    def of(cls, adapter: Adapter, chunk: Sequence[Sample]) -> _Batch:
        staircase = Staircase(adapter, chunk)
        return cls(staircase, staircase.full())


def score(
    model: Any,
    plans: Sequence[DepthPlan],
    samples: Sequence[Sample],
    *,
    method: str = "auto",
    batch_tokens: int = 6144,
    renewal: Renewal | None = None,
    tokenizer: Any = None,
    backend: str = "eager",
    force: bool = False,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> list[ScoreResult]:
    """Score plans on the same samples; full depth is computed once for all of them.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    plans : sequence of DepthPlan
    samples : sequence of Sample
        As from :func:`own_answers`. A completion of a single token has no decode step and is left out.
    method : str
        ``auto``: one pass for nested plans, step by step for the others, full depth always in one pass.
        ``step-by-step``: everything one token at a time.
    batch_tokens : int
        Most positions, padding included, that run at once: the bound on memory. A longer sample runs alone.
    renewal : Renewal, optional
        Score runs with ``skipped_kv="recompute"`` and these rules; full depth stays as it is.
    tokenizer : optional
        For plans whose schedules ask for ``token_class``.
    backend : str
        What decodes step by step, as of :func:`depthsched.generate`; refused for a plan that is scored in one pass.
        With ``method="auto"`` it is compared with full depth in one pass, eager.
    force : bool
        Drive a model family that is unknown or refused.
    progress : callable, optional
        Gets the number of (sample, plan) pairs done and the number of all.
    cluster : Cluster, optional
        Spread pieces of ``batch_tokens`` over its workers; seconds are then those of all workers together.

    Returns
    -------
    list of ScoreResult
        In the order of the plans.

    Raises
    ------
    PlanError
        No sample has a decode step, ``method="staircase"`` for a plan that is not nested, or a backend for one pass.
    """
    adapter = adapter_for(model, force=force)
    for plan in plans:
        check_plan(plan, adapter)
        _check_method(plan, method, renewal, backend)
        refuse_signals(plan, tokenizer=tokenizer, checks=renewal is not None)
    usable = [sample for sample in samples if len(sample.completion) > 1]
    if not usable:
        raise PlanError("no completion has a second token, so no decode step to score; allow longer answers")
    ranks = ranks_of(adapter.model)
    if ranks is not None:
        what = [plan.digest for plan in plans], [(*s.prompt, -1, *s.completion) for s in usable]
        ranks.begin("score", what, method, batch_tokens, str(renewal))
    rows: list[list[_Row]] = [[] for _ in plans]
    seconds = [0.0] * len(plans)
    done = 0
    pieces = list(batches(usable, batch_tokens))
    asked = Asked(tuple(plans), method, renewal, backend, force, tokenizer)
    with working(adapter.model, tokenizer, cluster) as work:
        shared = asked if cluster is None else asked.to_json()
        given: list[Any] = [[list(sample) for sample in map(astuple, piece)] for piece in pieces]
        for piece, found in zip(pieces, work.map(score_piece, shared, given), strict=True):
            for i, (some, took) in enumerate(found):
                rows[i] += [_Row(Metrics(*m), [Ran(*ran) for ran in passes], n) for m, passes, n in some]
                seconds[i] += took
            done += len(piece) * len(plans)
            if progress:
                progress(done, len(usable) * len(plans))
    return [_result(adapter, *both, method, renewal) for both in zip(plans, rows, seconds, strict=True)]


def score_piece(loaded: Loaded, shared: Any, piece: Any) -> list[tuple[list[_Row], float]]:
    """Rows of some samples under every plan, and the seconds that each took, its share of full depth included."""
    asked = shared if isinstance(shared, Asked) else Asked.from_json(shared, loaded.tokenizer)
    chunk = [Sample(tuple(prompt), tuple(completion)) for prompt, completion in piece]
    adapter = adapter_for(loaded.model, force=asked.force)
    ranks, began = ranks_of(adapter.model), time.perf_counter()
    with guarded(ranks):
        batch = None if asked.method == "step-by-step" else _Batch.of(adapter, chunk)
    full = time.perf_counter() - began
    found = []
    for plan in asked.plans:
        began = time.perf_counter()
        with guarded(ranks):
            if batch and _in_one_pass(plan, asked.renewal):
                rows = _one_pass(adapter, plan, batch, chunk)
            else:
                rows = _step_by_step(adapter, plan, chunk, batch, asked.renewal, asked.tokenizer, asked.backend)
        found.append((rows, full + time.perf_counter() - began))
    return found


def _in_one_pass(plan: DepthPlan, renewal: Renewal | None) -> bool:
    """Whether no step of a plan runs a layer that was skipped, so that a staircase is what a run computes."""
    return plan.nested and not (renewal is not None and renewal.acts)


def _check_method(plan: DepthPlan, method: str, renewal: Renewal | None, backend: str) -> None:
    if method not in METHODS:
        raise PlanError(f"unknown method {method!r}; use one of {', '.join(METHODS)}")
    if method == "staircase" and not plan.nested:
        raise PlanError(f"plan {plan.schedule!r} is not nested, so it has no staircase; use method='auto'")
    if backend != "eager" and method != "step-by-step" and _in_one_pass(plan, renewal):
        raise PlanError(
            f"plan {plan.schedule!r} is scored in one pass, which backend={backend!r} has no part in; "
            "use method='step-by-step', or leave the backend out"
        )
    if method == "staircase" and not _in_one_pass(plan, renewal):
        raise PlanError("a run that checks tokens or renews its cache has no staircase; use method='auto'")


def batches(samples: Sequence[Sample], tokens: int) -> Iterator[list[Sample]]:
    """Samples of like length together, each batch at most so many positions with padding."""
    chunk: list[Sample] = []
    for sample in sorted(samples, key=lambda s: (len(s.prompt) + len(s.completion), s.prompt)):
        longest = max(len(s.prompt) for s in [*chunk, sample]) + max(len(s.completion) for s in [*chunk, sample])
        if chunk and longest * (len(chunk) + 1) > tokens:
            yield chunk
            chunk = []
        chunk.append(sample)
    if chunk:
        yield chunk


def _one_pass(adapter: Adapter, plan: DepthPlan, batch: _Batch, chunk: Sequence[Sample]) -> list[_Row]:
    depths = batch.staircase.depths(plan)
    states = batch.staircase.run(depths, plan.keep_sets, plan.bridges)
    valid = batch.staircase.valid
    found = compare_states(adapter, batch.full[valid], states[valid], batch.staircase.targets[valid])
    counts = valid.sum(1).tolist()
    split = zip(*(torch.split(values, counts) for values in found), strict=True)
    return [
        _Row(Metrics(*m), [Ran(d) for d in depths[:n]], len(s.prompt))
        for m, n, s in zip(split, counts, chunk, strict=True)
    ]


@torch.no_grad()
def _step_by_step(
    adapter: Adapter, plan: DepthPlan, chunk: Sequence[Sample], batch: _Batch | None, renewal: Renewal | None,
    tokenizer: Any, backend: str,
) -> list[_Row]:  # fmt: skip
    """One forward a token, as a run would do it; for plans whose depth can rise, and to check the staircase.

    Without a batch full depth is decoded in the same way.
    """
    rows = []
    for i, sample in enumerate(chunk):
        logits, ran = _decode(adapter, plan, sample, renewal, tokenizer, backend)
        if batch:
            reference = adapter.logits(batch.full[i, : len(ran)])
        else:
            reference, _ = _decode(adapter, _full_plan(plan), sample, None, None, backend)
        targets = torch.tensor(sample.completion[1:], device=logits.device)
        rows.append(_Row(compare_logits(reference, logits, targets), ran, len(sample.prompt)))
    return rows


def _decode(
    adapter: Adapter, plan: DepthPlan, sample: Sample, renewal: Renewal | None, tokenizer: Any, backend: str
) -> tuple[torch.Tensor, list[Ran]]:
    """Logits ``[steps, vocabulary]`` of the decode steps of one sample, one after the other, and what ran."""
    ranks = ranks_of(adapter.model)
    text = torch.tensor([[*sample.prompt, *sample.completion]], device=adapter.device)
    prompt, logits, passes = len(sample.prompt), [], []
    write = writes_kv(plan, "auto") and renewal is None
    chosen, reason = make_backend(backend, adapter, plan, write_kv=write, max_tokens=text.shape[1])
    if renewal is not None:
        chosen, _ = renewing_backend(chosen, reason, backend, lambda: EagerBackend(adapter, plan))
    with chosen as engine:
        ids = text[:, :prompt]
        mask = torch.ones_like(ids)
        last, decoder = engine.prefill(ids, mask, DynamicCache())
        reader = SignalReader(plan, tokenizer)
        reader.begin(ids, mask)
        checked = reader.checked if reader.hears_checks else None
        rows = RunningRows(decoder, drop=False)
        steps = Steps(rows, plan, prompt, renewal, checked)
        for step in range(1, len(sample.completion)):
            asked, _ = reader.decide(step, last, text[:, prompt + step - 1], cosine=lambda: rows.cosine(1))
            depth = agreed(plan, asked, ranks)
            last, ran = steps(text[:, : prompt + step], depth)
            logits.append(last[0].clone())  # a backend's may be one buffer, written at every step
            passes.append(ran)
    return torch.stack(logits), passes


def _full_plan(plan: DepthPlan) -> DepthPlan:
    return PlanSpec.parse("full").resolve(plan.num_layers, plan.horizon)


def _result(
    adapter: Adapter, plan: DepthPlan, rows: list[_Row], seconds: float, method: str, renewal: Renewal | None
) -> ScoreResult:
    shape, counts = adapter.shape(), [len(row.ran) for row in rows]
    values = {name: np.concatenate([row.metrics[i].numpy() for row in rows]) for i, name in enumerate(METRICS)}
    depths = np.concatenate([[ran.depth for ran in row.ran] for row in rows])
    steps = np.concatenate([np.arange(1, n + 1) for n in counts])
    sums = {name: [float(row.metrics[i].sum()) for row in rows] for i, name in enumerate(METRICS)}
    edges = np.unique(np.linspace(1, max(counts) + 1, min(_BUCKETS, max(counts)) + 1).astype(int))
    return ScoreResult(
        schedule=plan.schedule,
        order=plan.order,
        profile=plan.profile.place if plan.profile else None,
        method="staircase" if method != "step-by-step" and _in_one_pass(plan, renewal) else "step-by-step",
        prompts=len(rows),
        tokens=sum(counts),
        **{name: interval(sums[name], counts) for name in METRICS},
        mean_depth=float(np.concatenate([row.layers for row in rows]).mean()),
        bytes_speedup=sum((_cost(plan, shape, row, renewal) for row in rows), Cost()).ratio,
        per_depth=tuple(group(d, d, values, depths == d) for d in sorted(set(depths.tolist()), reverse=True)),
        per_step=tuple(group(int(a), int(b) - 1, values, (steps >= a) & (steps < b)) for a, b in pairwise(edges)),
        per_prompt=tuple(
            PromptScore(n, **{name: sums[name][i] for name in METRICS}, depth=float(sum(rows[i].layers)))
            for i, n in enumerate(counts)
        ),
        seconds=seconds,
        notes=plan.notes,
        renewal="" if renewal is None or _in_one_pass(plan, renewal) else str(renewal),
    )


def _cost(plan: DepthPlan, shape: ModelShape, row: _Row, renewal: Renewal | None) -> Cost:
    depths, renewed, tried = zip(*row.ran, strict=True)
    writes = None if renewal is None else False
    return plan.cost(shape, depths, row.prompt_tokens, writes=writes, renewed=renewed, tried=tried)
