"""CALM (arXiv 2207.07061) for depthsched: its softmax confidence and its decaying threshold, on whole steps."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import depthsched as ds

API = 1

SHARE = 0.9
"""Of the threshold that stays; the rest decays."""


@dataclass(frozen=True)
class Calm(ds.AdaptiveSchedule):
    """``depth`` layers after a token that was sure enough, all of them after any other; early tokens must be surer.

    CALM (https://arxiv.org/abs/2207.07061) leaves the stack at the first layer whose confidence reaches the threshold
    of token t of N, ``0.9 * threshold + 0.1 * exp(-tau * t / N)``: an early mistake spreads to all later tokens, so the
    threshold starts high and falls. The confidence here is the paper's softmax measure, the lead ``p1 - p2`` of the
    most likely token.

    What differs here: CALM asks after every layer of the token at hand. In depthsched the depth of a step is chosen
    before it, so the token before decides, and there are two depths, ``depth`` and all. That costs one look at the
    logits that are there anyway, where CALM pays the LM head once for every layer that it asks. The layers that run are
    the order's; with ``@early-exit`` they are the lowest, as in CALM. K and V of skipped layers are those of the state
    that passes through, as in the paper.

    What the paper leaves open, and what is chosen here: t counts from ``start`` and its first decode step is 1 without
    one; N is the number of tokens asked for (``over`` left out), not the length that the answer turns out to have. The
    paper sets the threshold by a test that bounds the risk (Learn then Test); here it is a setting.

    Not here: the paper's two other measures, the cosine of the states of two layers and a trained classifier.
    """

    layers: int = ds.setting(low=1, high=10**6, budget=True, key="depth", help="layers to run after a sure token")
    threshold: float = ds.setting(0.5, low=0, high=1, help="lead of the most likely token that is sure in the end")
    tau: float = ds.setting(4.0, low=0, high=1000, help="how fast the extra demand on early tokens decays")
    over: int | None = ds.setting(
        None, low=1, high=10**9, help="tokens N of the output; left out: as many as asked for"
    )

    def for_horizon(self, horizon: int) -> Self:
        resolved = super().for_horizon(horizon)
        if resolved.over is None:
            resolved = dataclasses.replace(resolved, over=max(horizon - int(resolved.start), 1))
        return resolved

    def demand(self, step: int) -> float:
        """The confidence that counts as sure at a step, in [0, 1]."""
        return SHARE * self.threshold + (1 - SHARE) * math.exp(-self.tau * step / (self.over or 1))

    def depth(self, step: Any, num_layers: int) -> Any:
        return self.layers

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        return self.layers if signals.margin >= self.demand(step) else num_layers


@ds.hookimpl
def register_schedules(register: Callable[[type[ds.DepthSchedule]], None]) -> None:
    """Offer the schedule ``calm``."""
    register(Calm)
