"""Which layers to drop first: one growing block, or one layer after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..bridge import Bridge
from ..errors import PlanError
from ..score.answers import Progress
from .fit import FitSet
from .judge import Judge
from .units import Units

FINALISTS = 3


def rank_greedily(judge: Judge, drops: int, units: Units, progress: Progress | None = None) -> list[int]:
    """Droppable layers, each the one whose loss adds least to KL, given what is already dropped.

    Layers that turn their state most are left out beforehand. Damage rarely shrinks when more layers
    are gone, so a layer is measured again only while its last figure is the smallest (lazy greedy).
    """
    layers = judge.adapter.num_layers
    pool = sorted(range(layers), key=lambda layer: (-judge.redundancy[layer], layer))[: min(drops + 4, layers)]
    dropped: list[int] = []

    def measure(layer: int) -> float:
        gone = {*dropped, layer}
        name = "rank-" + "-".join(map(str, sorted(dropped))) + f"+{layer}"
        kl: float = units.value(name, lambda: judge.constant([i for i in range(layers) if i not in gone]).kl)
        return kl

    found = {layer: measure(layer) for layer in pool}
    while len(dropped) < drops and found:
        fresh: set[int] = set()
        while (best := min(found, key=lambda layer: (found[layer], layer))) not in fresh and dropped:
            found[best] = measure(best)
            fresh.add(best)
        del found[best]
        dropped.append(best)
        if progress:
            progress(len(dropped), drops)
    return dropped


def choose_block(
    fits: FitSet, judge: Judge, size: int, units: Units, progress: Progress | None = None
) -> tuple[int, list[dict[str, float]]]:
    """The start of the best block of ``size`` layers, and the evidence.

    The screen is the fit itself: the share of the block's change that its bridge cannot explain on held-out
    prompts. The best of the screen are then judged by KL.
    """
    layers = fits.adapter.num_layers
    starts = range(1, layers - size)  # the first and the last layer always run
    if not starts:
        raise PlanError(f"a block of {size} layers does not fit between the first and the last of {layers}")

    def screen() -> tuple[dict[str, Bridge], dict[str, float]]:
        found = {}
        for start in starts:
            found[start] = fits.fit_run(start, start + size)
            if progress:
                progress(len(found), len(starts))
        best = sorted(found, key=lambda start: (found[start].unexplained, start))[:FINALISTS]
        return {str(s): found[s].bridge for s in best}, {str(s): fit.unexplained for s, fit in found.items()}

    finalists, unexplained = units.bridges("block-screen", screen)
    evidence = []
    for name, bridge in finalists.items():
        start = int(name)
        keep = [i for i in range(layers) if not start <= i < start + size]
        kl, agreement = units.value(f"block-{start}", _constant(judge, keep, {start: bridge}))
        evidence.append({"start": start, "unexplained": unexplained[name], "kl": kl, "agreement": agreement})
    evidence.sort(key=lambda row: (row["kl"], row["start"]))
    return int(evidence[0]["start"]), evidence


def _constant(judge: Judge, keep: Sequence[int], bridges: dict[int, Bridge]) -> Callable[[], list[float]]:
    return lambda: list(judge.constant(keep, bridges))
