"""Run the cells of a sweep on a Ray cluster."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SettingsError
from ..text import one_line
from .cells import Cell
from .run import Notice, Outcome, SweepResult, attempt, forget_failed, run_sweep
from .store import Record, Store

_RETRIES = 3


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
    ray = _ray()
    ours = not ray.is_initialized()
    try:
        if ours:
            _connect(ray)
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
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)(_remote)
    waiting, ran = deque(cells), set()
    running: dict[Any, tuple[Cell, Any]] = {}
    while waiting or running:
        while waiting and len(running) < _slots(ray, cpus):
            cell = waiting.popleft()
            lock = None if store.finished(cell) else store.lock(cell)
            if lock is None:
                continue
            if store.finished(cell):  # between the look and the claim
                lock.release()
                continue
            running[task.remote(json.dumps(cell.to_json()), dict(versions))] = cell, lock
        done, _ = ray.wait(list(running), num_returns=1, timeout=1.0) if running else ([], None)
        for reference in done:
            cell, lock = running.pop(reference)
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


def _slots(ray: Any, cpus: float) -> int:
    """Cells that the cluster can run at once, and one more so that no worker waits for this process."""
    return int(ray.cluster_resources().get("CPU", 1) // cpus) + 1


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SettingsError("--ray needs Ray: pip install 'depthsched[ray]'") from error
    return ray


def _connect(ray: Any) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of our own reports to nobody
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingsError(f"no Ray cluster: {one_line(error)}") from error
