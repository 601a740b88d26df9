"""Fit the bridges of keep sets on decode positions of known completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from ..adapters import Adapter
from ..bridge import Bridge, skipped_runs
from ..score.answers import Sample
from ..score.staircase import Staircase
from .moments import BridgeFitter, Fit


class FitSet:
    """Completions with the full-depth states of all their decode steps, at every layer.

    Holds ``tokens * hidden * (layers + 1)`` values and the KV cache of the prompts; the regression itself works
    on moments, whose size does not depend on the number of tokens.

    Parameters
    ----------
    adapter : Adapter
    samples : sequence of Sample
    """

    def __init__(self, adapter: Adapter, samples: Sequence[Sample]) -> None:
        self.adapter = adapter
        self._batch = Staircase(adapter, samples)
        self._full: dict[int, torch.Tensor] = {}
        self._batch.full(tap=lambda layer, hidden: self._full.__setitem__(layer, hidden[self._batch.valid]))
        self._counts = self._batch.valid.sum(1).tolist()

    @property
    def tokens(self) -> int:
        """Decode steps that the fits see."""
        return sum(self._counts)

    def fit_run(self, first: int, end: int) -> Fit:
        """The bridge of one run ``[first, end)``, fitted on full-depth states.

        Exact for the lowest skipped run of any keep set, because the state that enters it is a full-depth one.
        """
        return self._fit(self._full[first], self._full[end])

    def fit_keep_set(self, keep: Sequence[int], corrections: Iterable[int] = ()) -> tuple[dict[int, Bridge], list[Fit]]:
        """Bridges of a keep set in one pass, bottom first, and how well each fits.

        Each is fitted on states that already went through the ones below it, towards the full-depth state.

        Parameters
        ----------
        keep : sequence of int
        corrections : iterable of int
            Kept layers in front of which the state is also mapped back towards its full-depth value. Those below
            the lowest skipped run are left out: nothing has changed there.
        """
        sites = dict(skipped_runs(keep, self.adapter.num_layers))
        lowest = min(sites, default=self.adapter.num_layers)
        sites |= {layer: layer for layer in corrections if layer > lowest and layer in set(keep)}
        bridges: dict[int, Bridge] = {}
        fits: list[Fit] = []
        valid = self._batch.valid

        def tap(layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
            if layer not in sites:
                return None
            rows = hidden[valid]
            fits.append(self._fit(rows, self._full[sites[layer]]))
            bridges[layer] = fits[-1].bridge
            changed = hidden.clone()
            changed[valid] = bridges[layer].to(rows)(rows)
            return changed

        if sites:
            self._batch.run([1] * self._batch.steps, {1: keep}, tap=tap)
        return bridges, fits

    def _fit(self, before: torch.Tensor, behind: torch.Tensor) -> Fit:
        fitter = BridgeFitter()
        pairs = zip(before.split(self._counts), behind.split(self._counts), strict=True)  # type: ignore[no-untyped-call]
        for row, (x, y) in enumerate(pairs):
            fitter.add(x, y, row)
        return fitter.fit()


def correction_sites(keep: Sequence[int], num_layers: int, spacing: int) -> list[int]:
    """Every ``spacing``-th kept layer above the lowest skipped run; none for a spacing of 0."""
    runs = skipped_runs(keep, num_layers)
    if not runs or not spacing:
        return []
    above = [layer for layer in keep if layer > runs[0][1]]
    starts = {first for first, _ in runs}
    return [layer for layer in above[spacing - 1 :: spacing] if layer not in starts]
