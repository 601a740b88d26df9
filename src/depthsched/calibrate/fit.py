"""Fit bridges on decode positions of known completions: ridge regression from moments, which are sums over rows.

Memory does not grow with the number of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..bridge import Bridge, skipped_runs
from .corpus import Batch, Corpus

RIDGES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
_HOLD_OUT = 4
_SUMS = ("count", "x", "y", "xx", "xy", "yy")


class Moments:
    """First and second moments of states ``x`` and of the change ``y`` that a skipped run makes to them.

    Everything is counted from fixed means, so that large ones cost no precision, and summed in float64. Moments
    of different rows add up.

    Parameters
    ----------
    shift_x, shift_y : torch.Tensor
        What to count from, ``[hidden]``, float32.
    """

    def __init__(self, shift_x: torch.Tensor, shift_y: torch.Tensor) -> None:
        self.shift_x, self.shift_y = shift_x, shift_y
        zeros = partial(torch.zeros, dtype=torch.float64, device=shift_x.device)
        size, width = len(shift_x), len(shift_y)
        self.count = 0
        self.x, self.y, self.xx, self.xy, self.yy = (
            zeros(size),
            zeros(width),
            zeros(size, size),
            zeros(size, width),
            zeros(()),
        )

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take in rows ``[n, hidden]`` of both."""
        x, y = x.float() - self.shift_x, y.float() - self.shift_y
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += y.pow(2).sum()

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of rows.

        Raises
        ------
        ValueError
            They are counted from different means.
        """
        if not (torch.equal(self.shift_x, other.shift_x) and torch.equal(self.shift_y, other.shift_y)):
            raise ValueError("these moments are counted from different means; give all of them the same shift")
        both = Moments(self.shift_x, self.shift_y)
        for name in _SUMS:
            setattr(both, name, getattr(self, name) + getattr(other, name))
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
        shift = self.shift_y.double() - self.shift_x.double() @ weight
        return Bridge(weight.float(), (bias + shift).float())


@dataclass(frozen=True)
class Fit:
    """A fitted bridge, its ridge, and its squared error on held-out prompts over the variance of the change."""

    bridge: Bridge
    ridge: float
    unexplained: float


Rows = Iterable[tuple[int, torch.Tensor, torch.Tensor]]
"""The number of a prompt, and the states ``[n, hidden]`` of its decode steps before and after a run of layers."""


def moments(rows: Rows) -> tuple[Moments, Moments]:
    """Moments of the prompts to fit on, and of every fourth one, which chooses the ridge."""
    parts: tuple[Moments, Moments] | None = None
    for number, before, after in rows:
        change = after - before
        if parts is None:
            shift = before.float().mean(0), change.float().mean(0)
            parts = Moments(*shift), Moments(*shift)
        parts[number % _HOLD_OUT == _HOLD_OUT - 1].add(before, change)
    assert parts is not None, "no rows"
    return parts


def best_fit(seen: Moments, held: Moments, ridges: Sequence[float] = RIDGES) -> Fit:
    """The bridge of all rows, with the ridge for which that of ``seen`` predicts ``held`` best."""
    both = seen + held
    solver, judge = (seen, held) if seen.count and held.count else (both, both)
    errors = {ridge: judge.unexplained(*solver.solve(ridge)) for ridge in ridges}
    best = min(errors, key=lambda ridge: (errors[ridge], ridge))
    return Fit(both.unshifted(*both.solve(best)), best, errors[best])


def fit_run(corpus: Corpus, first: int, end: int) -> Fit:
    """The bridge of one run ``[first, end)``, fitted on full-depth states.

    Exact for the lowest skipped run of any keep set, because the state that enters it is a full-depth one.
    """
    return _fit((number, batch, batch.get(first), batch.get(end)) for number, batch in corpus.numbered())


def fit_keep_set(corpus: Corpus, keep: Sequence[int], corrections: Iterable[int] = ()) -> dict[int, Fit]:
    """Bridges of a keep set by the layer whose input they change, bottom first.

    Each is fitted on states that already went through the ones below it, towards the full-depth state.

    Parameters
    ----------
    corpus : Corpus
    keep : sequence of int
    corrections : iterable of int
        Kept layers in front of which the state is also mapped back towards its full-depth value. Those below
        the lowest skipped run are left out: nothing has changed there.
    """
    layers = corpus.adapter.num_layers
    ends = dict(skipped_runs(keep, layers))
    at = lowest = min(ends, default=layers)
    ends |= {layer: layer for layer in corrections if layer > lowest and layer in set(keep)}
    fits: dict[int, Fit] = {}
    for site in sorted(ends):
        moved = _advance(corpus, keep, at, site, fits[at].bridge if at in fits else None)
        fits[site] = _fit((number, batch, states, batch.get(ends[site])) for number, batch, states in moved)
        at = site
    return fits


def _advance(
    corpus: Corpus, keep: Sequence[int], at: int, site: int, bridge: Bridge | None
) -> Iterator[tuple[int, Batch, torch.Tensor]]:
    """States that enter ``site``, from those that the last call left at ``at`` and their bridge."""
    for number, batch in corpus.numbered():
        if bridge is None:
            states = batch.get(site)
        else:
            before = batch.get("now")
            states = batch.advance(bridge.to(before)(before), at, site, keep)
        batch.put("now", states)
        yield number, batch, states


def _fit(pairs: Iterable[tuple[int, Batch, torch.Tensor, torch.Tensor]]) -> Fit:
    def rows() -> Rows:
        for first, batch, before, after in pairs:
            split = zip(before.split(batch.counts), after.split(batch.counts), strict=True)  # type: ignore[no-untyped-call]
            yield from ((number, x, y) for number, (x, y) in enumerate(split, start=first))

    return best_fit(*moments(rows()))


def correction_sites(keep: Sequence[int], num_layers: int, spacing: int) -> list[int]:
    """Every ``spacing``-th kept layer above the lowest skipped run; none for a spacing of 0."""
    runs = skipped_runs(keep, num_layers)
    if not runs or not spacing:
        return []
    above = [layer for layer in keep if layer > runs[0][1]]
    starts = {first for first, _ in runs}
    return [layer for layer in above[spacing - 1 :: spacing] if layer not in starts]
