"""``depthsched new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, console, print_json


def add_to(app: typer.Typer) -> None:
    app.command("new")(new)


def new(
    name: Annotated[str, typer.Argument(help="Name of the schedule, such as half-life.")],
    out: Annotated[Path, typer.Option("--out", help="Where the folder depthsched-NAME is made.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Start a plug-in: a folder that pip installs, with one schedule, its entry point and its test."""
    from ..scaffold import new_plugin

    files = new_plugin(name, out)
    if json:
        print_json({"name": name, "folder": str(files[0].parent), "files": [str(path) for path in files]})
        return
    shown = console()
    for path in files:
        shown.print(str(path), markup=False, soft_wrap=True)
    shown.print(f"next: pip install -e {files[0].parent}, then depthsched check {name}", markup=False, soft_wrap=True)
