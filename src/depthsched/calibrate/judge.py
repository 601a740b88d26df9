"""What a keep set with its bridges costs in quality, on samples that no bridge was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from ..bridge import Bridge
from ..plans import DepthPlan
from ..score.metrics import compare_states
from ..score.staircase import Staircase
from .corpus import Corpus


class Quality(NamedTuple):
    """Means per decode step."""

    kl: float
    agreement: float


class ByStep(NamedTuple):
    """Sums over the answers that reach a decode step; place ``i`` is step ``i + 1``."""

    kl: list[float]
    agreement: list[float]


def judge_steps(corpus: Corpus, keep: Sequence[int], bridges: Mapping[int, Bridge] | None = None) -> ByStep:
    """Every decode step with these layers, step by step."""
    return _judge(corpus, lambda batch: batch.run([1] * batch.steps, {1: keep}, {1: bridges or {}}))


def judge_constant(corpus: Corpus, keep: Sequence[int], bridges: Mapping[int, Bridge] | None = None) -> Quality:
    """Every decode step with these layers."""
    return mean(corpus, judge_steps(corpus, keep, bridges))


def judge_plan(corpus: Corpus, plan: DepthPlan) -> Quality:
    """The depths of a plan; after its horizon the last one holds."""

    def run(batch: Staircase) -> torch.Tensor:
        last = len(plan.depths) - 1
        depths = [plan.depths[min(step, last)] for step in range(1, batch.steps + 1)]
        return batch.run(depths, plan.keep_sets, bridges)

    bridges = plan.bridges
    return mean(corpus, _judge(corpus, run))


def mean(corpus: Corpus, sums: ByStep) -> Quality:
    """Over all decode steps."""
    return Quality(*(sum(values) / corpus.tokens for values in sums))


@torch.no_grad()
def _judge(corpus: Corpus, run: Callable[[Staircase], torch.Tensor]) -> ByStep:
    adapter = corpus.adapter
    norm = adapter.final_norm
    sums = torch.zeros(2, max(max(batch.counts) for batch in corpus.batches), dtype=torch.float64)
    for batch in corpus.batches:
        staircase = batch.staircase()
        states = run(staircase)[staircase.valid]
        full = norm(batch.get(adapter.num_layers).to(states))
        found = compare_states(adapter, full, states, staircase.targets[staircase.valid])
        steps = staircase.valid.nonzero()[:, 1].cpu()
        for total, values in zip(sums, (found.kl, found.agree), strict=True):
            total.index_add_(0, steps, values)
    return ByStep(*sums.tolist())


def block_influence(corpus: Corpus) -> list[float]:
    """How far each layer turns the state that enters it: 1 - mean cosine over the decode steps.

    The block influence of ShortGPT (https://arxiv.org/abs/2403.03853).
    """
    totals = [0.0] * corpus.adapter.num_layers
    for batch in corpus.batches:
        for layer in range(len(totals)):
            totals[layer] += float(torch.cosine_similarity(batch.get(layer), batch.get(layer + 1), dim=-1).sum())
    return [1 - total / corpus.tokens for total in totals]
