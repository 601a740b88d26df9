"""Run the cells of a sweep on a Ray cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..text import one_line
from ..work.cluster import RETRIES, connect, in_flight, ray_package, slots
from .cells import Cell
from .run import Notice, Outcome, SweepResult, attempt, forget_failed, run_sweep
from .store import Record, Store


def run_on_ray(
    cells: Sequence[Cell],
    store: Store,
    *,
    cpus: float = 1,
    retry: bool = False,
    versions: Mapping[str, str] | None = None,
    notice: Notice = lambda record, ran: None,
) -> SweepResult:
    """As :func:`run_sweep`, with the cells on the workers of the Ray cluster that ``ray.init()`` finds, or a local one.

    This process holds the claims and writes the files, so the workers need the models, prompts and profiles at the
    same paths, but not the folder of the results. A cell whose worker dies runs again elsewhere.

    Parameters
    ----------
    cpus : float
        CPUs that Ray sets aside for a cell; as many as a node has where cells measure time.

    Raises
    ------
    SettingsError
        Ray is not installed, or no cluster can be reached.
    """
    ray = ray_package()
    ours = not ray.is_initialized()
    try:
        if ours:
            connect(ray)
        if retry:
            forget_failed(cells, store)
        ran = _run(ray, cells, store, cpus, versions or {}, notice)
    finally:
        if ours:
            ray.shutdown()

    def notice_others(record: Record, own: bool) -> None:
        if record.cell.id not in ran:
            notice(record, own)

    # What another process was at, and does it here should that one have died.
    rest = run_sweep(cells, store, versions=versions, notice=notice_others)
    return SweepResult(Outcome(outcome.record, outcome.ran or outcome.record.cell.id in ran) for outcome in rest)


def _run(
    ray: Any, cells: Sequence[Cell], store: Store, cpus: float, versions: Mapping[str, str], notice: Notice
) -> set[str]:
    """Do every cell that nobody else is doing; the ids of those done."""
    gpus = 1 if cells and cells[0].device.startswith("cuda") else 0
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_remote)
    ran = set()

    def starts() -> Iterator[tuple[tuple[Cell, Any], Any]]:
        for cell in cells:
            lock = None if store.finished(cell) else store.lock(cell)
            if lock is None:
                continue
            if store.finished(cell):  # between the look and the claim
                lock.release()
                continue
            yield (cell, lock), task.remote(json.dumps(cell.to_json()), dict(versions))

    for (cell, lock), reference in in_flight(ray, starts(), lambda: slots(ray, cpus)):
        record = _record(ray, reference, cell, versions)
        store.write(record)
        lock.release()
        ran.add(cell.id)
        notice(record, True)
    return ran


def _remote(cell: str, versions: Mapping[str, str]) -> str:
    """On a worker. JSON in and out: a worker needs nothing but depthsched."""
    return json.dumps(attempt(Cell.from_json(json.loads(cell)), versions).to_json())


def _record(ray: Any, reference: Any, cell: Cell, versions: Mapping[str, str]) -> Record:
    try:
        return Record.from_json(json.loads(ray.get(reference)))
    except ray.exceptions.RayError as problem:  # its worker died each time, or cannot import depthsched
        message = one_line(problem, 500)
        return Record(
            cell, "failed", None, {"type": type(problem).__name__, "message": message, "fault": True}, 0.0, versions
        )
