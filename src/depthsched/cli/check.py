"""``depthsched check``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from ..plugins import registry
from ..settings import split_spec
from .output import JsonOption, console, print_json, table


class Kind(StrEnum):
    """What may be checked."""

    schedule = "schedule"
    order = "order"
    ranker = "ranker"


def add_to(app: typer.Typer) -> None:
    app.command("check")(check)


def check(
    name: Annotated[str, typer.Argument(help="A name, name:key=value,... or file.py:Class:key=value,...")],
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What it is; default the first of these that has the name.")
    ] = None,
    examples: Annotated[int, typer.Option("--examples", min=1, help="Settings to try for each check.")] = 50,
    json: JsonOption = False,
) -> None:
    """Run the conformance kit on a schedule, an order or a ranker; exit with code 2 when a check fails."""
    from ..testing import check_order, check_ranker, check_schedule

    checks = {Kind.schedule: check_schedule, Kind.order: check_order, Kind.ranker: check_ranker}
    report = checks[kind or _kind(name)](name, max_examples=examples)
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
            out.print(f"{report.kind} {name} passed {len(report.results)} checks, {examples} examples each")
    if not report.passed:
        raise typer.Exit(2)


def _kind(name: str) -> Kind:
    """The first kind that knows a name; a schedule where none does."""
    known, word = registry(), split_spec(name)[0]
    have = {Kind.schedule: known.schedules, Kind.order: known.orders, Kind.ranker: known.rankers}
    return next((kind for kind, entries in have.items() if word in entries), Kind.schedule)
