"""Which layers to drop first: one growing block, or one layer after another."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..bridge import Bridge
from ..errors import PlanError
from .fit import fit_run
from .judge import block_influence, judge_constant
from .study import Study

FINALISTS = 3


def rank_greedily(study: Study) -> list[int]:
    """Droppable layers, each the one whose loss adds least to KL, given what is already dropped.

    Layers of the most block influence are left out beforehand. Damage rarely shrinks when more layers are gone,
    so a layer is measured again only while its last figure is the smallest (lazy greedy).
    """
    influence = block_influence(study.scout)
    pool = sorted(study.droppable, key=lambda layer: (influence[layer], layer))[: study.drops + 4]
    dropped: list[int] = []

    def measure(layer: int) -> float:
        name = "-".join(map(str, sorted(dropped))) + f"+{layer}"
        kl: float = study.remember(name, lambda: study.quality([*dropped, layer]).kl)
        return kl

    found = {layer: measure(layer) for layer in pool}
    while len(dropped) < study.drops and found:
        fresh: set[int] = set()
        while (best := min(found, key=lambda layer: (found[layer], layer))) not in fresh and dropped:
            found[best] = measure(best)
            fresh.add(best)
        del found[best]
        dropped.append(best)
    return dropped


def choose_block(study: Study) -> tuple[int, list[dict[str, Any]]]:
    """The start of the best block of ``study.judged`` layers, and the evidence.

    The screen is the fit itself: the share of the block's change that its bridge cannot explain on held-out
    prompts. The best of the screen are then judged by KL.
    """
    layers, size = study.num_layers, study.judged
    starts = range(1, layers - size)  # the first and the last layer always run
    if not starts:
        raise PlanError(f"a block of {size} layers does not fit between the first and the last of {layers}")

    def screen() -> tuple[dict[int, Bridge], dict[int, float]]:
        found = {start: fit_run(study.fitted, start, start + size) for start in starts}
        best = sorted(found, key=lambda start: (found[start].unexplained, start))[:FINALISTS]
        return {start: found[start].bridge for start in best}, {s: fit.unexplained for s, fit in found.items()}

    finalists, unexplained = study.units.bridges("block-screen", screen)
    evidence = []
    for start, bridge in finalists.items():
        keep = [i for i in range(layers) if not start <= i < start + size]
        kl, agreement = study.remember(f"block-{start}", partial(judge_constant, study.held, keep, {start: bridge}))
        evidence.append({"start": start, "unexplained": unexplained[str(start)], "kl": kl, "agreement": agreement})
    evidence.sort(key=lambda row: (row["kl"], row["start"]))
    return int(evidence[0]["start"]), evidence


def grow_block(start: int, drops: int, layers: int) -> list[int]:
    """The drop order of a block that grows upwards from ``start``, and below it once it meets the last layer."""
    above = list(range(start, layers - 1))[:drops]
    return above + list(range(start - 1, 0, -1))[: drops - len(above)]
