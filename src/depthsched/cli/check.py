"""``depthsched check``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from .output import JsonOption, console, print_json, table


def add_to(app: typer.Typer) -> None:
    app.command("check")(check)


def check(
    schedule: Annotated[str, typer.Argument(help="A name, name:key=value,... or file.py:Class:key=value,...")],
    examples: Annotated[int, typer.Option("--examples", min=1, help="Settings to try for each check.")] = 50,
    json: JsonOption = False,
) -> None:
    """Run the conformance kit on a schedule: leaves with 2 when a check fails."""
    from ..testing import check_schedule

    report = check_schedule(schedule, max_examples=examples)
    if json:
        print_json(report.to_json())
    else:
        rows = table("", "check", "what happened")
        for result in report.results:
            word = "[red]failed[/]" if not result.passed else "[yellow]note[/]" if result.message else "[green]ok[/]"
            rows.add_row(word, result.name, escape(result.message))
        out = console()
        out.print(rows)
        if report.passed:
            out.print(f"{schedule} passed {len(report.results)} checks, {examples} examples each")
    if not report.passed:
        raise typer.Exit(2)
