"""SkipDecode (arXiv 2307.02628) for depthsched: its depth line and its choice of layers."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

import depthsched as ds
from depthsched.errors import SettingsError

API = 1


@dataclass(frozen=True)
class SkipDecode(ds.DepthSchedule):
    """A straight line from ``n_max`` layers down to ``n_min`` over the output.

    ``n(t) = round(n_max - (n_max - n_min) * min(t, over - 1) / (over - 1))``, the line of SkipDecode
    (https://arxiv.org/abs/2307.02628). What the paper leaves open, and what is chosen here:

    - Rounding: to the nearest whole number of layers, halves up, computed in integers.
    - Counting: ``t`` counts generated tokens only. The token of the prefill is ``t = 0`` and runs at full depth.
    - A setting above the model's depth L counts as L, so that one spec serves models of any depth.

    In the paper one depth serves the whole batch at each position; so it does in depthsched.
    """

    name: ClassVar[str] = "skipdecode"

    n_min: int = ds.setting(low=1, high=10**6, budget=True, help="layers at the end of the line")
    n_max: int | None = ds.setting(None, low=1, high=10**6, help="layers at its start; none: all of them")
    over: int | None = ds.setting(None, low=2, high=10**9, help="tokens the line takes; none: the rest of the output")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_max is not None and self.n_max < self.n_min:
            raise SettingsError(f"schedule 'skipdecode': n_max={self.n_max} must be at least n_min={self.n_min}")

    def for_horizon(self, horizon: int) -> Self:
        resolved = super().for_horizon(horizon)
        if resolved.over is None:
            resolved = dataclasses.replace(resolved, over=max(horizon - int(resolved.start), 2))
        return resolved

    def depth(self, step: Any, num_layers: int) -> Any:
        last = (self.over or 2) - 1
        top = num_layers if self.n_max is None else min(self.n_max, num_layers)
        fall = top - min(self.n_min, num_layers)
        # floor(x + 1/2) of the line in integers: no rounding error at the halves.
        return (2 * top * last - 2 * fall * np.minimum(step, last) + last) // (2 * last)


@dataclass(frozen=True)
class WarmUpAndTop(ds.LayerOrder):
    """Keep ``warmup`` layers at the bottom and the topmost ones: drop from just above the warm-up upwards.

    At depth n the layers ``{0..w-1} + {L-(n-w)..L-1}`` run, as in SkipDecode
    (https://arxiv.org/abs/2307.02628). The paper leaves the number of warm-up layers to the user; the default
    here is 1. Below ``warmup`` layers the depth is clipped: the warm-up layers always run.
    """

    name: ClassVar[str] = "skipdecode"

    warmup: int = ds.setting(1, low=0, high=10**6, help="layers at the bottom that always run")

    def rank(self, num_layers: int) -> Sequence[int]:
        return range(self.warmup, num_layers)


@ds.hookimpl
def register_schedules(register: Callable[[type[ds.DepthSchedule]], None]) -> None:
    """Offer the schedule ``skipdecode``."""
    register(SkipDecode)


@ds.hookimpl
def register_orders(register: Callable[[type[ds.LayerOrder]], None]) -> None:
    """Offer the order ``skipdecode``."""
    register(WarmUpAndTop)
