"""What a keep set with its bridges costs in quality, on samples that no bridge was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


def judge_constant(corpus: Corpus, keep: Sequence[int], bridges: Mapping[int, Bridge] | None = None) -> Quality:
    """Every decode step with these layers."""
    return _judge(corpus, lambda batch: batch.run([1] * batch.steps, {1: keep}, {1: bridges or {}}))


def judge_plan(corpus: Corpus, plan: DepthPlan) -> Quality:
    """The depths of a plan; after its horizon the last one holds."""

    def run(batch: Staircase) -> torch.Tensor:
        last = len(plan.depths) - 1
        depths = [plan.depths[min(step, last)] for step in range(1, batch.steps + 1)]
        return batch.run(depths, plan.keep_sets, bridges)

    bridges = plan.bridges
    return _judge(corpus, run)


@torch.no_grad()
def _judge(corpus: Corpus, run: Callable[[Staircase], torch.Tensor]) -> Quality:
    kl = agree = 0.0
    adapter = corpus.adapter
    norm: Any = adapter.decoder.norm
    for batch in corpus.batches:
        staircase = batch.staircase()
        states = run(staircase)[staircase.valid]
        full = norm(batch.get(adapter.num_layers).to(states))
        found = compare_states(adapter, full, states, staircase.targets[staircase.valid])
        kl, agree = kl + float(found.kl.sum()), agree + float(found.agree.sum())
    return Quality(kl / corpus.tokens, agree / corpus.tokens)


def block_influence(corpus: Corpus) -> list[float]:
    """How far each layer turns the state that enters it: 1 - mean cosine over the decode steps.

    The block influence of ShortGPT (https://arxiv.org/abs/2403.03853).
    """
    totals = [0.0] * corpus.adapter.num_layers
    for batch in corpus.batches:
        for layer in range(len(totals)):
            totals[layer] += float(torch.cosine_similarity(batch.get(layer), batch.get(layer + 1), dim=-1).sum())
    return [1 - total / corpus.tokens for total in totals]
