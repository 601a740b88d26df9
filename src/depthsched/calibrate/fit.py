"""Fit the bridges of keep sets on decode positions of known completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from ..bridge import Bridge, skipped_runs
from .corpus import Batch, Corpus
from .moments import BridgeFitter, Fit


class FitSet:
    """Fits bridges on a corpus; memory does not grow with its tokens.

    Parameters
    ----------
    corpus : Corpus
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.adapter = corpus.adapter

    @property
    def tokens(self) -> int:
        """Decode steps that the fits see."""
        return self.corpus.tokens

    def fit_run(self, first: int, end: int) -> Fit:
        """The bridge of one run ``[first, end)``, fitted on full-depth states.

        Exact for the lowest skipped run of any keep set, because the state that enters it is a full-depth one.
        """
        return _fit((row, batch, batch.get(first), batch.get(end)) for row, batch in self.corpus.rows())

    def fit_keep_set(self, keep: Sequence[int], corrections: Iterable[int] = ()) -> tuple[dict[int, Bridge], list[Fit]]:
        """Bridges of a keep set, bottom first, and how well each fits.

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
        at = lowest
        for site in sorted(sites):
            moved = self._advance(keep, at, site, bridges.get(at))
            fits.append(_fit((row, batch, states, batch.get(sites[site])) for row, batch, states in moved))
            bridges[site] = fits[-1].bridge
            at = site
        return bridges, fits

    def _advance(
        self, keep: Sequence[int], at: int, site: int, bridge: Bridge | None
    ) -> Iterator[tuple[int, Batch, torch.Tensor]]:
        """States that enter ``site``, from those that the last call left at ``at`` and their bridge."""
        for row, batch in self.corpus.rows():
            if bridge is None:
                states = batch.get(site)
            else:
                before = batch.get("now")
                states = batch.advance(bridge.to(before)(before), at, site, keep)
            batch.put("now", states)
            yield row, batch, states


def _fit(pairs: Iterable[tuple[int, Batch, torch.Tensor, torch.Tensor]]) -> Fit:
    fitter = BridgeFitter()
    for first, batch, before, behind in pairs:
        split = zip(before.split(batch.counts), behind.split(batch.counts), strict=True)  # type: ignore[no-untyped-call]
        for row, (x, y) in enumerate(split, start=first):
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
