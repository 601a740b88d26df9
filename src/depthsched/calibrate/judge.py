"""What a keep set with its bridges costs in quality, on prompts that no bridge was fitted on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..bridge import Bridge, Bridges
from ..score.metrics import compare_states
from ..score.staircase import Staircase
from .corpus import Corpus


class Quality(NamedTuple):
    """Means per decode step."""

    kl: float
    agreement: float


class Judge:
    """Scores keep sets on the same samples.

    Parameters
    ----------
    corpus : Corpus
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.adapter = corpus.adapter

    @functools.cached_property
    def redundancy(self) -> list[float]:
        """How little each layer turns the state that enters it: mean cosine over the decode steps."""
        totals = [0.0] * self.adapter.num_layers
        for batch in self.corpus.batches:
            for layer in range(len(totals)):
                totals[layer] += float(torch.cosine_similarity(batch.get(layer), batch.get(layer + 1), dim=-1).sum())
        return [total / self.corpus.tokens for total in totals]

    def constant(self, keep: Sequence[int], bridges: Mapping[int, Bridge] | None = None) -> Quality:
        """Every decode step with these layers."""
        return self._judge(lambda batch: batch.run([1] * batch.steps, {1: keep}, {1: bridges or {}}))

    def scheduled(self, depths: Sequence[int], keep_sets: Mapping[int, Sequence[int]], bridges: Bridges) -> Quality:
        """Depths of steps 0, 1, ... ; the last one holds."""
        return self._judge(
            lambda batch: batch.run(
                [depths[min(step, len(depths) - 1)] for step in range(1, batch.steps + 1)], keep_sets, bridges
            )
        )

    @torch.no_grad()
    def _judge(self, run: Callable[[Staircase], torch.Tensor]) -> Quality:
        kl = agree = 0.0
        norm: Any = self.adapter.decoder.norm
        for batch in self.corpus.batches:
            staircase = batch.staircase()
            states = run(staircase)[staircase.valid]
            full = norm(batch.get(self.adapter.num_layers).to(states))
            found = compare_states(self.adapter, full, states, staircase.targets[staircase.valid])
            kl, agree = kl + float(found.kl.sum()), agree + float(found.agree.sum())
        return Quality(kl / self.corpus.tokens, agree / self.corpus.tokens)
