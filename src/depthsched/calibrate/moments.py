"""Ridge regression from streamed moments: memory does not grow with the number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..bridge import Bridge

RIDGES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
_HOLD_OUT = 4


class Moments:
    """First and second moments of states ``x`` and of the change ``y`` that a skipped run makes to them.

    Everything is counted from the first batch's means, so that large means cost no precision, and summed in
    float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift: tuple[torch.Tensor, torch.Tensor] | None = None
        self.x = self.y = self.xx = self.xy = self.yy = torch.zeros(0)

    def add(self, x: torch.Tensor, y: torch.Tensor, shift: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Take in rows ``[n, hidden]`` of both; ``shift`` is what to count from, the same every time."""
        if self._shift is None:
            self._shift, size, width = shift, x.shape[1], y.shape[1]
            zeros = partial(torch.zeros, dtype=torch.float64, device=x.device)
            self.x, self.y, self.xx, self.xy = zeros(size), zeros(width), zeros(size, size), zeros(size, width)
            self.yy = zeros(())
        x, y = x.float() - shift[0], y.float() - shift[1]
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += y.pow(2).sum()

    def plus(self, other: Moments) -> Moments:
        """The moments of both sets of rows."""
        both = Moments()
        both.count, both._shift = self.count + other.count, self._shift or other._shift
        for name in ("x", "y", "xx", "xy", "yy"):
            a, b = getattr(self, name), getattr(other, name)
            setattr(both, name, a + b if self.count and other.count else a if self.count else b)
        return both

    def solve(self, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias in shifted coordinates; ``ridge`` is a share of the mean variance."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx = self.xx - self.count * torch.outer(mean_x, mean_x)
        xy = self.xy - self.count * torch.outer(mean_x, mean_y)
        xx.diagonal().add_(ridge * xx.diagonal().mean() + 1e-12)
        weight = torch.linalg.solve(xx, xy)
        return weight, mean_y - mean_x @ weight

    def unexplained(self, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """Squared error of a map on these rows over the variance of the change."""
        error = (
            self.yy
            - 2 * (weight * self.xy).sum()
            + (weight * (self.xx @ weight)).sum()
            + self.count * bias.pow(2).sum()
            - 2 * bias @ self.y
            + 2 * (self.x @ weight) @ bias
        )
        variance = self.yy - self.y.pow(2).sum() / self.count
        return float(error / variance.clamp_min(1e-30))

    def unshifted(self, weight: torch.Tensor, bias: torch.Tensor) -> Bridge:
        """The map in the coordinates of the states."""
        assert self._shift is not None
        shift_x, shift_y = (part.double() for part in self._shift)
        return Bridge(weight.float(), (bias + shift_y - shift_x @ weight).float())


@dataclass(frozen=True)
class Fit:
    """A fitted bridge, its ridge, and its squared error on held-out prompts over the variance of the change."""

    bridge: Bridge
    ridge: float
    unexplained: float
    tokens: int


class BridgeFitter:
    """Collects states before and behind one run, then fits its bridge.

    Every fourth batch of rows is held out to choose the ridge strength; the bridge is then fitted on all.
    """

    def __init__(self) -> None:
        self._parts = (Moments(), Moments())
        self._shift: tuple[torch.Tensor, torch.Tensor] | None = None

    def add(self, before: torch.Tensor, behind: torch.Tensor, row: int) -> None:
        """Rows ``[n, hidden]`` of one prompt, the ``row``-th."""
        change = behind - before
        if self._shift is None:
            self._shift = before.float().mean(0), change.float().mean(0)
        self._parts[row % _HOLD_OUT == _HOLD_OUT - 1].add(before, change, self._shift)

    def fit(self, ridges: Sequence[float] = RIDGES) -> Fit:
        """The bridge with the ridge that predicts held-out prompts best."""
        seen, held = self._parts
        both = seen.plus(held)
        scored = held if seen.count and held.count else both
        solver = seen if seen.count and held.count else both
        errors = {ridge: scored.unexplained(*solver.solve(ridge)) for ridge in ridges}
        best = min(errors, key=lambda ridge: (errors[ridge], ridge))
        return Fit(both.unshifted(*both.solve(best)), best, errors[best], both.count)
