"""How often `eval --until decided` errs, and after how many items it answers: simulated items, a look after each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer

from depthsched.evaluate.pooling import MARGIN
from depthsched.evaluate.sequential import first_decision

CHANGED = (0.0, 0.02, 0.1, 0.3)
DROPS = (0.0, 0.01, 0.03, 0.1)


def peeking(
    runs: Annotated[int, typer.Option(help="Simulated evaluations of each kind.")] = 200,
    items: Annotated[int, typer.Option(help="After which they give up.")] = 8000,
    seed: Annotated[int, typer.Option()] = 0,
) -> dict[str, Any]:
    """Right-or-wrong items of which a share changes, with a true drop: the answers, and the items they took."""
    rng = np.random.default_rng(seed)
    rows = []
    for changed in CHANGED:
        for drop in DROPS:
            if drop <= changed:
                u = rng.random((runs, items))
                lost, kept = (changed + drop) / 2, changed
                found = [first_decision(row) for row in np.where(u < lost, -1.0, np.where(u < kept, 1.0, 0.0))]
                rows.append({"changed": changed, "drop": drop, **_summary(found)})
    return {"rows": rows, "runs": runs, "items": items, "margin": MARGIN, "seed": seed}


def _summary(found: Sequence[tuple[str, int]]) -> dict[str, Any]:
    share = {name: sum(answer == name for answer, _ in found) / len(found) for name in ("yes", "no", "undecided")}
    decided = share["undecided"] < 0.5
    return {**share, "median": float(np.median([n for _, n in found])) if decided else None}
