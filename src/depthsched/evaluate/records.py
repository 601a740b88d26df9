"""What a run did for each row of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.run import Run


@dataclass(frozen=True)
class RowRecord:
    """One row of a batch.

    Attributes
    ----------
    tokens : tuple of int
        Generated tokens, the one that ended the row included.
    depths : tuple of int
        Layers that ran for each of them, those of a pass that was thrown away included; the first is the prefill's.
    seconds : float
        The row's share of the decode steps it was part of: a step's time over the rows then running.
    bytes_full, bytes_plan : float
        Bytes that its decode steps move at batch 1, at full depth and under the plan.
    """

    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    seconds: float
    bytes_full: float
    bytes_plan: float

    def to_json(self) -> dict[str, Any]:
        return {"tokens": len(self.tokens), "depths": list(self.depths), "seconds": self.seconds}


def row_records(run: Run, lengths: Sequence[int]) -> list[RowRecord]:
    """The rows of a run; a length of 0 means that the row ran to the end."""
    steps = run.tokens.shape[1]
    ends = [length or steps for length in lengths] or [steps] * len(run.tokens)
    depths = [s.depth + s.tried for s in run.trace.steps]
    shares = [0.0] * steps  # running sum of decode time per running row
    for step in range(1, steps):
        running = sum(end > step for end in ends) or 1
        shares[step] = shares[step - 1] + run.trace.steps[step].seconds / running
    cost = run.cost_of(1)
    full, scheduled = ([0.0, *np.cumsum(each).tolist()] for each in (cost.full, cost.scheduled))
    return [
        RowRecord(
            tokens=tuple(row[:end].tolist()),
            depths=tuple(depths[:end]),
            seconds=shares[end - 1],
            bytes_full=full[end - 1],
            bytes_plan=scheduled[end - 1],
        )
        for row, end in zip(run.tokens, ends, strict=True)
    ]
