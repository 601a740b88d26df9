"""Fit bridges on decode positions of known completions: ridge regression from moments, which are sums over rows.

Memory does not grow with the number of tokens. A piece of a fit is one batch: its sums are made on their own and added
in the order of the batches, wherever they were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..bridge import Bridge, skipped_runs
from ..work.pieces import Loaded
from .corpus import Batch, Corpus
from .pieces import batch_of, bridges_of, rows_of

RIDGES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
_HOLD_OUT = 4
_SUMS = ("count", "x", "y", "xx", "xy", "yy")
_MOVED = "now"


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

    @property
    def sums(self) -> list[Any]:
        """What :meth:`of` reads back: the count, and five tensors."""
        return [getattr(self, name) for name in _SUMS]

    @classmethod
    def of(cls, shift_x: torch.Tensor, shift_y: torch.Tensor, sums: Sequence[Any]) -> Moments:
        """Moments from their :attr:`sums`, on the device of the shift."""
        made = cls(shift_x, shift_y)
        for name, value in zip(_SUMS, sums, strict=True):
            setattr(made, name, value.to(shift_x.device) if isinstance(value, torch.Tensor) else value)
        return made

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


def moments(rows: Rows, shift_x: torch.Tensor, shift_y: torch.Tensor) -> tuple[Moments, Moments]:
    """Moments of the prompts to fit on, and of every fourth one, which chooses the ridge."""
    parts = Moments(shift_x, shift_y), Moments(shift_x, shift_y)
    for number, before, after in rows:
        parts[number % _HOLD_OUT == _HOLD_OUT - 1].add(before, after - before)
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
    return _fit(corpus, {"site": first, "end": end, "bridge": [], "goes_on": False})


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
    lowest = min(ends, default=layers)
    ends |= {layer: layer for layer in corrections if layer > lowest and layer in set(keep)}
    fits: dict[int, Fit] = {}
    for site in sorted(ends):
        bridge = {at: fit.bridge for at, fit in list(fits.items())[-1:]}
        asked = {"site": site, "end": ends[site], "bridge": rows_of(bridge), "goes_on": site != max(ends)}
        fits[site] = _fit(corpus, {**asked, "keep": list(keep)})
    return fits


def _fit(corpus: Corpus, asked: dict[str, Any]) -> Fit:
    """The bridge of one site; where a fit goes on, the states that entered it are kept for the next."""
    means = centre(corpus)
    shift = means[asked["site"]], means[asked["end"]] - means[asked["site"]]
    total = Moments(*shift), Moments(*shift)
    kept = _MOVED if asked["bridge"] else None
    found = corpus.map(fit_piece, {**asked, "shift": list(shift)}, kept=kept)
    for batch, (parts, states) in zip(corpus.batches, found, strict=True):
        seen, held = (whole + Moments.of(*shift, sums) for whole, sums in zip(total, parts, strict=True))
        total = seen, held
        if states is not None:
            batch.put(_MOVED, states)
    return best_fit(*total)


def fit_piece(loaded: Loaded, asked: Any, piece: Any) -> tuple[list[Any], torch.Tensor | None]:
    """Sums of a batch for the bridge of one site: those to fit on and those that choose the ridge, and its states.

    The states are those that enter the site, where a fit goes on.
    """
    batch = batch_of(loaded, piece)
    before, after = _entering(batch, asked), batch.get(asked["end"])
    split = zip(before.split(batch.counts), after.split(batch.counts), strict=True)  # type: ignore[no-untyped-call]
    rows = ((number, x, y) for number, (x, y) in enumerate(split, start=batch.first))
    parts = moments(rows, *(shift.to(before.device) for shift in asked["shift"]))
    return [part.sums for part in parts], before if asked["goes_on"] else None


def _entering(batch: Batch, asked: Any) -> torch.Tensor:
    """States that enter a site: full-depth ones, or those at the last bridge, after it and the layers up to here."""
    for at, bridge in bridges_of(asked["bridge"]).items():
        before = batch.kept(_MOVED)
        return batch.advance(bridge.to(before)(before), at, asked["site"], asked["keep"])
    return batch.get(asked["site"])


def centre(corpus: Corpus) -> list[torch.Tensor]:
    """Mean full-depth state of the first batch at every layer: what all pieces count from."""
    if corpus.centre is None:
        (found,) = corpus.map(mean_piece, most=1)
        corpus.centre = [mean.to(corpus.adapter.device) for mean in found]
    return corpus.centre


def mean_piece(loaded: Loaded, shared: Any, piece: Any) -> list[torch.Tensor]:
    """Mean full-depth state of a batch at every layer, ``[hidden]`` each."""
    batch = batch_of(loaded, piece)
    return [batch.get(layer).mean(0) for layer in range(batch.adapter.num_layers + 1)]


def correction_sites(keep: Sequence[int], num_layers: int, spacing: int) -> list[int]:
    """Every ``spacing``-th kept layer above the lowest skipped run; none for a spacing of 0."""
    runs = skipped_runs(keep, num_layers)
    if not runs or not spacing:
        return []
    above = [layer for layer in keep if layer > runs[0][1]]
    starts = {first for first, _ in runs}
    return [layer for layer in above[spacing - 1 :: spacing] if layer not in starts]
