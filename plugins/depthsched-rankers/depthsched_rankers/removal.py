"""A ranker that tries: SLEB (arXiv 2402.09025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import depthsched as ds

if TYPE_CHECKING:
    from depthsched.calibrate import Study

_ROWS = 256


@dataclass(frozen=True)
class Sleb(ds.LayerRanker):
    """One layer after another, each the one without which the text stays likeliest, given those already gone.

    SLEB (https://arxiv.org/abs/2402.09025) removes layers greedily: in every round each remaining one is left out on
    trial, and that goes whose absence gives the least ``-mean_t log p(x_t | x_<t)`` on a calibration text. So layers
    that stand in for each other do not both go, which a score of single layers cannot see. The first and the last
    layer are protected.

    What differs here: SLEB removes layers for good, from the prompt as well; here the prompt is at full depth, and what
    is judged are the decode steps. The text is the answers of the calibration's scout samples, by default the model's
    own, not WikiText-2; nobody wrote them but the model, so full depth finds them likelier than a foreign text.

    What the paper leaves open, and what is chosen here: of equal likelihoods the lower layer goes first. Ranking n of L
    layers takes about ``n * (L - 2 - n / 2)`` passes over the samples; an interrupted calibration goes on between them.
    """

    name: ClassVar[str] = "sleb"

    def rank(self, study: Study) -> Sequence[int]:
        gone: list[int] = []
        losses: list[dict[str, float]] = []
        while len(gone) < study.drops:
            trials = {layer: nll(study, [*gone, layer]) for layer in study.droppable if layer not in gone}
            best = min(trials, key=lambda layer: (trials[layer], layer))
            gone.append(best)
            losses.append({"layer": best, "nll": trials[best]})
        study.evidence[self.spec()] = losses
        return gone


def nll(study: Study, dropped: Sequence[int]) -> float:
    """Mean negative log-likelihood of the scout samples' decode steps without some layers, in nats a token."""
    key = sorted(dropped)
    value: float = study.remember("nll-" + "-".join(map(str, key)), lambda: _nll(study, key))
    return value


def _nll(study: Study, dropped: Sequence[int]) -> float:
    import torch

    keep = [layer for layer in range(study.num_layers) if layer not in dropped]
    total = 0.0
    for batch in study.scout.batches:
        stairs: Any = batch.staircase()
        states = stairs.run([1] * stairs.steps, {1: keep})[stairs.valid]
        targets = stairs.targets[stairs.valid]
        with torch.no_grad():
            for rows, right in zip(states.split(_ROWS), targets.split(_ROWS), strict=True):
                log_p = torch.log_softmax(study.adapter.logits(rows).float(), dim=-1)
                total -= float(log_p.gather(-1, right[:, None]).double().sum())
    return total / study.scout.tokens
