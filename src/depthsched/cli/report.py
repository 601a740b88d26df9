"""``depthsched report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, console, notes, print_json


def add_to(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep; one that still runs will do.", metavar="DIR")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the page and its pictures; default report in DIR.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write what a sweep found as one HTML page and PNG pictures."""
    from ..report.data import read_report
    from ..report.html import save_report

    data = read_report(folder)
    with notes().status("drawing", spinner="dots"):
        files = save_report(data, folder / "report" if out is None else out)
    if json:
        print_json({**data, "files": [str(path) for path in files]})
        return
    cells = data["cells"]
    shown = console()
    shown.print(f"{cells['done']} of {cells['all']} cells, {cells['failed']} failed, {cells['missing']} still to run")
    for frontier in data["frontiers"]:
        best = [point["plan"] for point in frontier["points"] if not point["dominated"]]
        shown.print(f"best for {frontier['quality']}: {', '.join(best)}", markup=False)
    for path in files:
        shown.print(str(path), markup=False)
