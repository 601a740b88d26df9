"""What a keep set with its bridges costs in quality, on samples that no bridge was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..bridge import Bridge, Bridges
from ..plans import DepthPlan
from ..score.metrics import compare_states
from ..work.pieces import Loaded
from .corpus import Corpus
from .pieces import batch_of, bridges_of, rows_of


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
    return _judge(corpus, [1], {1: keep}, {1: bridges or {}})


def judge_constant(corpus: Corpus, keep: Sequence[int], bridges: Mapping[int, Bridge] | None = None) -> Quality:
    """Every decode step with these layers."""
    return mean(corpus, judge_steps(corpus, keep, bridges))


def judge_plan(corpus: Corpus, plan: DepthPlan) -> Quality:
    """The depths of a plan; after its horizon the last one holds."""
    return mean(corpus, _judge(corpus, plan.depths[1:] or plan.depths, plan.keep_sets, plan.bridges))


def mean(corpus: Corpus, sums: ByStep) -> Quality:
    """Over all decode steps."""
    return Quality(*(sum(values) / corpus.tokens for values in sums))


def _judge(corpus: Corpus, depths: Sequence[int], keep_sets: Mapping[int, Sequence[int]], bridges: Bridges) -> ByStep:
    """Sums of decode steps at these depths; the last one holds."""
    sets = [[depth, list(keep_sets[depth]), rows_of(bridges.get(depth))] for depth in dict.fromkeys(depths)]
    sums = torch.zeros(2, max(max(batch.counts) for batch in corpus.batches), dtype=torch.float64)
    for found in corpus.map(judge_piece, {"depths": list(depths), "sets": sets}):
        sums[:, : found.shape[1]] += found
    return ByStep(*sums.tolist())


@torch.no_grad()
def judge_piece(loaded: Loaded, asked: Any, piece: Any) -> torch.Tensor:
    """Sums of KL and agreement over the answers of a batch at each decode step, ``[2, S]``, float64."""
    batch = batch_of(loaded, piece)
    adapter, staircase = batch.adapter, batch.staircase()
    depths, last = asked["depths"], len(asked["depths"]) - 1
    keep_sets = {depth: keep for depth, keep, _ in asked["sets"]}
    bridges = {depth: bridges_of(rows) for depth, _, rows in asked["sets"]}
    states = staircase.run([depths[min(step, last)] for step in range(staircase.steps)], keep_sets, bridges)
    states, targets = states[staircase.valid], staircase.targets[staircase.valid]
    full = adapter.final_norm(batch.get(adapter.num_layers).to(states))
    found = compare_states(adapter, full, states, targets)
    sums = torch.zeros(2, staircase.steps, dtype=torch.float64)
    steps = staircase.valid.nonzero()[:, 1].cpu()
    for total, values in zip(sums, (found.kl, found.agree), strict=True):
        total.index_add_(0, steps, values)
    return sums


def block_influence(corpus: Corpus) -> list[float]:
    """How far each layer turns the state that enters it: 1 - mean cosine over the decode steps.

    The block influence of ShortGPT (https://arxiv.org/abs/2403.03853).
    """
    totals = [0.0] * corpus.adapter.num_layers
    for found in corpus.map(influence_piece):
        totals = [total + value for total, value in zip(totals, found, strict=True)]
    return [1 - total / corpus.tokens for total in totals]


def influence_piece(loaded: Loaded, shared: Any, piece: Any) -> list[float]:
    """Sum of the cosines at each layer over the decode steps of a batch."""
    batch = batch_of(loaded, piece)
    layers = range(batch.adapter.num_layers)
    return [float(torch.cosine_similarity(batch.get(i), batch.get(i + 1), dim=-1).sum()) for i in layers]
