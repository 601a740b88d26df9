"""Linear decay: SkipDecode's line (arXiv 2307.02628)."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ..schedule import DepthSchedule
from ..settings import setting


@dataclass(frozen=True)
class Linear(DepthSchedule):
    """From L layers down to ``end`` over ``over`` steps, in a straight line, then ``end``.

    ``n(t) = round(L - (L - end) * min(t, over - 1) / (over - 1))``, halves rounded up: the line of
    SkipDecode (https://arxiv.org/abs/2307.02628). ``over`` left out means the rest of the horizon.
    """

    starts_full: ClassVar[bool] = True

    end: int = setting(low=1, high=10**6, budget=True, help="depth at the end of the line")
    over: int | None = setting(None, low=2, high=10**9, help="steps the line takes; none: the rest of the horizon")

    def for_horizon(self, horizon: int) -> Self:
        resolved = super().for_horizon(horizon)
        if resolved.over is None:
            resolved = dataclasses.replace(resolved, over=max(horizon - int(resolved.start), 2))
        return resolved

    def depth(self, step: Any, num_layers: int) -> Any:
        last = (self.over or 2) - 1
        end = min(self.end, num_layers)
        # In integers: floor(x + 1/2) of the line, with no rounding error at the halves.
        twice = 2 * num_layers * last - 2 * (num_layers - end) * np.minimum(step, last) + last
        return twice // (2 * last)
