"""What a keep set with its bridges costs in quality, on prompts that no bridge was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from ..adapters import Adapter
from ..bridge import Bridge, Bridges
from ..score.answers import Sample
from ..score.metrics import compare_states
from ..score.scorer import batches
from ..score.staircase import Staircase

BATCH_TOKENS = 4096


class Quality(NamedTuple):
    """Means per decode step."""

    kl: float
    agreement: float


class Judge:
    """Scores keep sets on the same samples; their prompts and full-depth states are computed once.

    Parameters
    ----------
    adapter : Adapter
    samples : sequence of Sample
    """

    def __init__(self, adapter: Adapter, samples: Sequence[Sample]) -> None:
        self.adapter = adapter
        self._batches = [Staircase(adapter, chunk) for chunk in batches(samples, BATCH_TOKENS)]
        self.redundancy = [0.0] * adapter.num_layers
        self._full = [self._observe(batch) for batch in self._batches]

    def _observe(self, batch: Staircase) -> torch.Tensor:
        """Full-depth final states; on the way, how little each layer turns the state that enters it."""
        before: dict[int, torch.Tensor] = {}

        def tap(layer: int, hidden: torch.Tensor) -> None:
            if layer:
                cosine = torch.cosine_similarity(before.pop(layer - 1), hidden[batch.valid].float(), dim=-1)
                self.redundancy[layer - 1] += float(cosine.mean()) / len(self._batches)
            before[layer] = hidden[batch.valid].float()

        return batch.full(tap)

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

    def _judge(self, run: Callable[[Staircase], torch.Tensor]) -> Quality:
        kl = agree = 0.0
        tokens = 0
        for batch, full in zip(self._batches, self._full, strict=True):
            valid = batch.valid
            found = compare_states(self.adapter, full[valid], run(batch)[valid], batch.targets[valid])
            kl, agree, tokens = kl + float(found.kl.sum()), agree + float(found.agree.sum()), tokens + len(found.kl)
        return Quality(kl / tokens, agree / tokens)
