"""``depthsched new``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, console, print_json


class Kind(StrEnum):
    """What a plug-in can begin with."""

    schedule = "schedule"
    adaptive = "adaptive"
    ranker = "ranker"


def add_to(app: typer.Typer) -> None:
    app.command("new")(new)


def new(
    name: Annotated[str, typer.Argument(help="Name of the schedule or ranker, such as half-life.")],
    out: Annotated[Path, typer.Option("--out", help="Where the folder depthsched-NAME is made.")] = Path(),
    kind: Annotated[
        Kind, typer.Option("--kind", help="schedule, adaptive (a schedule that sees signals) or ranker.")
    ] = Kind.schedule,
    json: JsonOption = False,
) -> None:
    """Start a plug-in: a folder that pip installs, with one schedule or ranker, its entry point and its test."""
    from ..scaffold import new_plugin

    files = new_plugin(name, out, kind.value)
    if json:
        print_json({"name": name, "folder": str(files[0].parent), "files": [str(path) for path in files]})
        return
    shown = console()
    for path in files:
        shown.print(str(path), markup=False, soft_wrap=True)
    shown.print(f"next: pip install -e {files[0].parent}, then depthsched check {name}", markup=False, soft_wrap=True)
