"""Which layers to drop first: one growing block, or one layer after another."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..bridge import Bridge
from ..errors import PlanError
from .corpus import Corpus
from .fit import fit_run
from .judge import block_influence, judge_constant
from .units import Units

FINALISTS = 3


def rank_greedily(corpus: Corpus, drops: int, units: Units) -> list[int]:
    """Droppable layers, each the one whose loss adds least to KL, given what is already dropped.

    Layers of the most block influence are left out beforehand. Damage rarely shrinks when more layers are gone,
    so a layer is measured again only while its last figure is the smallest (lazy greedy).
    """
    layers = corpus.adapter.num_layers
    influence = block_influence(corpus)
    pool = sorted(range(layers), key=lambda layer: (influence[layer], layer))[: min(drops + 4, layers)]
    dropped: list[int] = []

    def measure(layer: int) -> float:
        gone = {*dropped, layer}
        name = "rank-" + "-".join(map(str, sorted(dropped))) + f"+{layer}"
        kl: float = units.value(name, lambda: judge_constant(corpus, [i for i in range(layers) if i not in gone]).kl)
        return kl

    found = {layer: measure(layer) for layer in pool}
    while len(dropped) < drops and found:
        fresh: set[int] = set()
        while (best := min(found, key=lambda layer: (found[layer], layer))) not in fresh and dropped:
            found[best] = measure(best)
            fresh.add(best)
        del found[best]
        dropped.append(best)
    return dropped


def choose_block(fitted: Corpus, held: Corpus, size: int, units: Units) -> tuple[int, list[dict[str, Any]]]:
    """The start of the best block of ``size`` layers, and the evidence.

    The screen is the fit itself: the share of the block's change that its bridge cannot explain on held-out
    prompts. The best of the screen are then judged by KL.
    """
    layers = fitted.adapter.num_layers
    starts = range(1, layers - size)  # the first and the last layer always run
    if not starts:
        raise PlanError(f"a block of {size} layers does not fit between the first and the last of {layers}")

    def screen() -> tuple[dict[int, Bridge], dict[int, float]]:
        found = {start: fit_run(fitted, start, start + size) for start in starts}
        best = sorted(found, key=lambda start: (found[start].unexplained, start))[:FINALISTS]
        return {start: found[start].bridge for start in best}, {s: fit.unexplained for s, fit in found.items()}

    finalists, unexplained = units.bridges("block-screen", screen)
    evidence = []
    for start, bridge in finalists.items():
        keep = [i for i in range(layers) if not start <= i < start + size]
        kl, agreement = units.value(f"block-{start}", partial(judge_constant, held, keep, {start: bridge}))
        evidence.append({"start": start, "unexplained": unexplained[str(start)], "kl": kl, "agreement": agreement})
    evidence.sort(key=lambda row: (row["kl"], row["start"]))
    return int(evidence[0]["start"]), evidence


def grow_block(start: int, drops: int, layers: int) -> list[int]:
    """The drop order of a block that grows upwards from ``start``, and below it once it meets the last layer."""
    above = list(range(start, layers - 1))[:drops]
    return above + list(range(start - 1, 0, -1))[: drops - len(above)]
