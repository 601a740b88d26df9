"""Run the cells of a sweep, in this process or on a Ray cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..display.views import sweep_html
from ..errors import DepthschedError
from ..text import one_line
from .cells import Cell
from .store import Record, Store

_POLL_SECONDS = 0.5
Notice = Callable[[Record, bool], None]
"""Told of every cell that is finished, and whether this process did it."""


@dataclass(frozen=True)
class Outcome:
    """One cell at the end of a sweep.

    Attributes
    ----------
    record : Record
    ran : bool
        Whether this process did it; else another one did, or an earlier run.
    """

    record: Record
    ran: bool


class SweepResult(list[Outcome]):
    """The cells of a sweep, in the order of the grid. A notebook shows them as a table and a picture."""

    def _repr_html_(self) -> str:
        return sweep_html(self)


def run_sweep(
    cells: Sequence[Cell],
    store: Store,
    *,
    retry: bool = False,
    versions: Mapping[str, str] | None = None,
    notice: Notice = lambda record, ran: None,
) -> SweepResult:
    """Finish every cell: do those that nobody has done, and wait for those that another process is doing.

    Parameters
    ----------
    cells : sequence of Cell
    store : Store
        Prepared with the same cells. What is in it is not done again.
    retry : bool
        Do failed cells again.
    versions : mapping, optional
        Kept with every record.
    notice : callable

    Returns
    -------
    SweepResult
        A list of :class:`Outcome`.
        In the order of the cells.
    """
    outcomes: dict[str, Outcome] = {}
    if retry:
        forget_failed(cells, store)
    waiting = list(cells)
    while waiting:
        left = []
        for cell in waiting:
            outcome = _finish(cell, store, versions or {})
            if outcome is None:
                left.append(cell)
            else:
                outcomes[cell.id] = outcome
                notice(outcome.record, outcome.ran)
        if left:
            time.sleep(_POLL_SECONDS)
        waiting = left
    return SweepResult(outcomes[cell.id] for cell in cells)


def forget_failed(cells: Sequence[Cell], store: Store) -> None:
    """Remove the records of failures, but for those that another process is doing again right now."""
    for cell in cells:
        with store.claim(cell) as mine:
            record = store.read(cell) if mine else None
            if record is not None and record.status == "failed":
                store.forget(cell)


def _finish(cell: Cell, store: Store, versions: Mapping[str, str]) -> Outcome | None:
    """The outcome of a cell; None while another process works on it."""
    done = store.read(cell)
    if done is None:
        with store.claim(cell) as mine:
            if not mine:
                return None
            done = store.read(cell)  # it may have been finished between the look and the claim
            if done is None:
                done = attempt(cell, versions)
                store.write(done)
                return Outcome(done, True)
    return Outcome(done, False)


def attempt(cell: Cell, versions: Mapping[str, str]) -> Record:
    """Do a cell; whatever fails in it is its result and does not stop the others."""
    from .measure import measure

    began = time.perf_counter()
    result, error = None, None
    try:
        result = json.loads(json.dumps(measure(cell), allow_nan=False))  # what the file will say
    except DepthschedError as problem:
        error = {"type": type(problem).__name__, "message": one_line(problem, 500), "fault": False}
    except Exception as problem:  # a fault of ours, of a plug-in or of the machine: kept with the cell
        error = {"type": type(problem).__name__, "message": one_line(problem, 500), "fault": True}
    seconds = time.perf_counter() - began
    return Record(cell, "failed" if error else "done", result, error, seconds, versions)
