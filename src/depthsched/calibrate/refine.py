"""Refine fitted bridges by gradient descent on what they are for: KL(full || scheduled) of the next token.

A fit in closed form aims at the full-depth state, each kind of error alike. What of it changes the next token, and what
the kept layers above make of it, only the end of the network knows. The model's own weights stay as they are; only the
maps move. Distillation of a smaller network's outputs goes back to Hinton et al. (https://arxiv.org/abs/1503.02531).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from ..adapters import Adapter
from ..bridge import Bridge
from ..score.staircase import Staircase
from .corpus import Corpus

RATE = 3e-3
"""Of Adam, in coordinates where states and changes have unit variance; it falls to a twentieth along a cosine."""
STEP_POSITIONS = 2048
"""Most positions of one descent step, prompts and padding included."""
JUDGED = 0.5
"""Share of them whose logits are computed: the LM head is a good part of the work."""
_WARM_STEPS = 10
_FLOOR = 1e-3


class Refined(NamedTuple):
    """Bridges by the layer whose input they change, and the mean KL while they were refined, pass by pass."""

    bridges: dict[int, Bridge]
    seen: list[float]


def refine(corpus: Corpus, keep: Sequence[int], bridges: Mapping[int, Bridge], passes: int, seed: int = 0) -> Refined:
    """Better bridges of a keep set, by so many passes over a corpus at this constant depth.

    Parameters
    ----------
    corpus : Corpus
        Samples that no judgement will be made on.
    keep : sequence of int
    bridges : mapping of int to Bridge
        To begin with, as :func:`~depthsched.calibrate.fit.fit_keep_set` finds them.
    passes : int
        At least 1.
    seed : int
        Draws the order of the samples, and the steps whose logits are computed.
    """
    adapter, rng = corpus.adapter, random.Random(seed)
    draws = torch.Generator().manual_seed(seed)
    maps = {layer: _Map(bridge, corpus.batches[0].get(layer)) for layer, bridge in bridges.items()}
    parts = [part for map_ in maps.values() for part in map_.parts]
    optimizer = torch.optim.Adam(parts, lr=RATE, betas=(0.9, 0.98))
    groups = list(_groups(corpus))
    rates = _rates(passes * len(groups))
    seen = []
    with _frozen(adapter.model), torch.enable_grad():
        for _ in range(passes):
            rng.shuffle(groups)
            losses = []
            for group in groups:
                optimizer.param_groups[0]["lr"] = next(rates)
                loss = _loss(adapter, group, keep, {layer: map_.bridge() for layer, map_ in maps.items()}, draws)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(parts, 1.0)
                optimizer.step()
                losses.append(float(loss.detach()))
            seen.append(sum(losses) / len(losses))
    with torch.no_grad():
        return Refined({layer: map_.bridge() for layer, map_ in maps.items()}, seen)


class _Map:
    """A bridge in coordinates where the state and the change have unit variance, so that one rate serves all."""

    def __init__(self, bridge: Bridge, states: torch.Tensor) -> None:
        bridge = bridge.to(states)
        self.of_state = states.std(0).clamp_min(_FLOOR)
        self.of_change = (states @ bridge.weight).std(0).clamp_min(_FLOOR)
        weight = bridge.weight * self.of_state[:, None] / self.of_change
        self.parts = [nn.Parameter(weight), nn.Parameter(bridge.bias / self.of_change)]

    def bridge(self) -> Bridge:
        weight, bias = self.parts
        return Bridge(weight * self.of_change / self.of_state[:, None], bias * self.of_change)


class _Group(NamedTuple):
    """Some samples, and their full-depth states before the last norm, ``[tokens, hidden]``."""

    staircase: Staircase
    full: torch.Tensor


def _groups(corpus: Corpus) -> Iterator[_Group]:
    for batch in corpus.batches:
        full = batch.get(corpus.adapter.num_layers)
        begin = 0
        for staircase in batch.stairs(STEP_POSITIONS):
            count = int(staircase.valid.sum())
            yield _Group(staircase, full[begin : begin + count])
            begin += count


def _loss(
    adapter: Adapter, group: _Group, keep: Sequence[int], bridges: Mapping[int, Bridge], draws: torch.Generator
) -> torch.Tensor:
    """Mean KL(full || scheduled) of a drawn half of the decode steps."""
    staircase, full = group
    states = staircase.run([1] * staircase.steps, {1: keep}, {1: bridges}, gradient=True)[staircase.valid]
    drawn = (torch.rand(len(states), generator=draws) < JUDGED).to(states.device)
    drawn[0] = True
    norm = adapter.final_norm
    with torch.no_grad():
        wanted = torch.log_softmax(adapter.logits(norm(full[drawn].to(states))).float(), -1)
    found = torch.log_softmax(adapter.logits(states[drawn]).float(), -1)
    return nn.functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1).mean()


def _rates(steps: int) -> Iterator[float]:
    """Up within ten steps, then down along half a cosine."""
    for step in range(1, steps + 1):
        yield RATE * min(step / _WARM_STEPS, 1) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No gradient for the model's own weights, and whatever each asked for afterwards."""
    wanted = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in wanted:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in wanted:
            weight.requires_grad_(True)
