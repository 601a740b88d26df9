"""``depthsched sweep``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..environment import versions
from .output import JsonOption, console, notes, print_json, quiet_libraries, table

if TYPE_CHECKING:
    from ..sweep import Cell, Record
    from ..sweep.run import Outcome

_DAY = 24 * 3600.0


def add_to(app: typer.Typer) -> None:
    app.command("sweep")(sweep)


def sweep(
    grid: Annotated[Path, typer.Argument(help="A YAML file: schedules, orders, profiles, measure, prompts, ...")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the results; the same one again goes on with it.")],
    retry: Annotated[bool, typer.Option("--retry", help="Run cells again that failed before.")] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Run the cells on a Ray cluster: the one at hand, or local.")
    ] = False,
    ray_cpus: Annotated[
        float | None, typer.Option("--ray-cpus", help="CPUs that Ray sets aside for one cell; default 1.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure a grid of plans; every finished cell is one file, and an interrupted sweep goes on."""
    from ..errors import SettingsError
    from ..sweep import Store, read_grid
    from ..sweep.expand import cells_of

    if ray_cpus is not None and ray_cpus <= 0:
        raise SettingsError(f"--ray-cpus {ray_cpus} must be above 0")
    if ray_cpus is not None and not ray:
        raise SettingsError("--ray-cpus goes with --ray; alone it changes nothing")
    asked = read_grid(grid)
    cells = cells_of(asked)
    store = Store(out)
    store.prepare(cells, asked.to_json())
    quiet_libraries()
    _check_extras(cells)
    with progress(len(cells)) as notice:
        options: dict[str, Any] = {"retry": retry, "versions": versions(), "notice": notice}
        if ray:
            from ..sweep.cluster import run_on_ray

            with redirect_stdout(sys.stderr):  # Ray prints there when a worker dies
                outcomes = run_on_ray(cells, store, cpus=1.0 if ray_cpus is None else ray_cpus, **options)
        else:
            from ..sweep import run_sweep

            outcomes = run_sweep(cells, store, **options)
    failed = [o.record for o in outcomes if o.record.status == "failed"]
    if json:
        print_json(
            {"out": str(out), "cells": len(cells), "failed": len(failed), "rows": [_row(o, store) for o in outcomes]}
        )
    else:
        _print(outcomes, failed, out)
    if failed:
        # As every command: 1 for a fault of ours, 2 for input that cannot work, such as a plan too deep for the model.
        raise typer.Exit(1 if any(record.error and record.error["fault"] for record in failed) else 2)


def _check_extras(cells: list[Cell]) -> None:
    """Before hours of work: what the grid needs is installed."""
    if any(cell.measure == "eval" for cell in cells):
        from ..sweep.measure import check_eval

        check_eval()


def _row(outcome: Outcome, store: Any) -> dict[str, Any]:
    record = outcome.record
    cell = record.cell
    return {
        "id": cell.id,
        "measure": cell.measure,
        "plan": cell.label,
        "model": cell.model,
        "dtype": cell.dtype,
        "options": dict(cell.options),
        "status": record.status,
        "error": record.error,
        "seconds": record.seconds,
        "ran": outcome.ran,
        "file": str(store.path(cell)),
    }


@contextmanager
def progress(total: int | None) -> Iterator[Callable[[Record, bool], None]]:
    """A bar with the time left; where nobody watches, a line for every cell."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    out, done = notes(), 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Cells take seconds to hours: the speed is that of all of them so far.
    with Progress(*columns, console=out, speed_estimate_period=_DAY, disable=not out.is_terminal) as bar:
        task = bar.add_task("cells", total=total)

        def notice(record: Record, ran: bool) -> None:
            nonlocal done
            done += 1
            bar.advance(task)
            what = f"{record.cell.measure} {record.cell.label}"
            if record.error:
                out.print(f"failed: {what}: {record.error['message']}", style="yellow", markup=False)
            elif not out.is_terminal:
                how = f"{record.seconds:.1f} s" if ran else "already there"
                of = "" if total is None else f" of {total}"
                out.print(f"{done}{of}: {what}, {how}", markup=False)

        yield notice


def _print(outcomes: list[Outcome], failed: list[Record], folder: Path) -> None:
    out = console()
    ran = sum(outcome.ran for outcome in outcomes)
    out.print(f"{len(outcomes)} cells in {folder}: {ran} run now, {len(outcomes) - ran} already there")
    if failed:
        rows = table("measure", "plan", "error", title=f"{len(failed)} failed; --retry runs them again")
        for record in failed:
            message = record.error["message"] if record.error else ""
            rows.add_row(record.cell.measure, escape(record.cell.label), escape(message))
        out.print(rows)
    out.print(f"depthsched report {folder}")
