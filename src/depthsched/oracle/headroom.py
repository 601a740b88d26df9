"""What the best possible choice of depths would save, and how often it would still agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..cost import ModelShape
from ..plans import DepthPlan
from .depths import Answer, Bools, Floats

LEVELS = (1.0, 0.99, 0.95)


@dataclass(frozen=True)
class Best:
    """The cheapest choice of a depth for every step at an agreement.

    Attributes
    ----------
    level : float
        The agreement that was asked for.
    agreement : float
        The share of steps that agree.
    bytes_speedup, mean_depth : float
    """

    level: float
    agreement: float
    bytes_speedup: float
    mean_depth: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def step_bytes(plan: DepthPlan, shape: ModelShape, answer: Answer) -> Floats:
    """Bytes of every decode step at every depth, ``[d, n]``: layers, bridges, LM head, and K and V that are read.

    Nothing is charged for what would keep the cache whole: this counts a bound.
    """
    steps, prompt = len(answer.nll), len(answer.sample.prompt)
    return np.stack([plan.cost(shape, [depth] * steps, prompt, writes=False).scheduled for depth in answer.depths])


def best(depths: Sequence[int], agree: Bools, costs: Floats, level: float) -> Best:
    """The cheapest depth of every step such that at least a share ``level`` of the steps agrees.

    Every step may take its cheapest depth that agrees, or give up and take the cheapest of all. As each step that
    gives up costs one agreement, whichever it is, those give up that save most by it: the knapsack with equal
    weights, whose greedy solution is the best one.

    Parameters
    ----------
    depths : sequence of int, ``[d]``
    agree : array of bool, ``[d, n]``
        The last row, full depth, is all true.
    costs : array, ``[d, n]``
    level : float
        From 0 to 1.
    """
    steps = agree.shape[1]
    kept = np.where(agree, costs, np.inf).argmin(axis=0)
    lost = costs.argmin(axis=0)
    every = np.arange(steps)
    saves = costs[kept, every] - costs[lost, every]
    # 0.95 * 20 is 19.000000000000004 in floating point, and 19 of 20 is what is meant.
    spare = steps - int(np.ceil(level * steps - 1e-9))
    given_up = np.argsort(-saves, kind="stable")[:spare]
    given_up = given_up[saves[given_up] > 0]
    chosen = kept.copy()
    chosen[given_up] = lost[given_up]
    return Best(
        level=level,
        agreement=float(agree[chosen, every].mean()),
        bytes_speedup=float(costs[-1].sum() / costs[chosen, every].sum()),
        mean_depth=float(np.asarray(depths)[chosen].mean()),
    )
