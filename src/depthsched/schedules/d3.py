"""D3: position-aware depth decay decoding (arXiv 2503.08524, Findings of ACL 2025)."""

from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, ClassVar

import numpy as np

from ..schedule import DepthSchedule
from ..settings import setting

_EXACT = Context(prec=60)


@dataclass(frozen=True)
class D3(DepthSchedule):
    """``floor(L * alpha**i)`` layers at step ``i``, counted from ``start``.

    The paper (https://arxiv.org/abs/2503.08524) calls this a power-law decay; as a function of the step it
    is geometric. ``alpha`` is taken as the decimal number it prints as, and the floor is exact.
    """

    starts_full: ClassVar[bool] = True

    alpha: float = setting(
        0.995,
        low=0,
        high=1,
        low_open=True,
        high_open=True,
        budget=True,
        help="share of the depth kept from step to step",
    )

    def depth(self, step: Any, num_layers: int) -> Any:
        steps = np.asarray(step)
        with np.errstate(under="ignore"):
            depth = np.atleast_1d(num_layers * np.power(self.alpha, steps.astype(np.float64)))
        nearest = np.rint(depth)
        # Floating point can land on the wrong side of an integer (100 * 0.7**2 gives 48.99...); only there
        # the exact value decides. The error of alpha**i grows with i: one rounding of alpha, raised to i.
        close = (nearest >= 1) & (np.abs(depth - nearest) <= nearest * (np.atleast_1d(steps) + 4) * 2.0**-50)
        for at in np.flatnonzero(close):
            exact = _EXACT.multiply(
                _EXACT.power(Decimal(repr(self.alpha)), int(np.atleast_1d(steps)[at])), Decimal(num_layers)
            )
            depth[at] = int(exact)
        return depth.reshape(steps.shape)
