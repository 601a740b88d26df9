"""``depthsched list``."""

from __future__ import annotations

from typing import Any

import typer
from rich.markup import escape

from .. import plugins
from ..errors import ProfileError
from ..profile import Profile
from ..text import one_line, ranges
from .output import JsonOption, console, notes, print_json, table


def add_to(app: typer.Typer) -> None:
    app.command("list")(list_names)


def list_names(json: JsonOption = False) -> None:
    """Schedules, orders, rankers, adapters and profiles, and which plug-in each came from."""
    registry = plugins.registry()
    adapters = plugins.adapter_classes()
    rows = [
        _row(kind, name, entry)
        for kind, entries in (
            ("schedule", registry.schedules),
            ("order", registry.orders),
            ("ranker", registry.rankers),
            ("adapter", adapters),
            ("profile", registry.profiles),
        )
        for name, entry in entries.items()
    ]
    failures = [{"plugin": name, "error": text} for name, text in registry.failures.items()]
    if json:
        print_json({"rows": rows, "failures": failures})
        return
    shown = table("kind", "name", "from", "summary")
    for row in rows:
        shown.add_row(
            row["kind"], f"[bold]{row['name']}[/]", f"{row['plugin']} {row['version']}", escape(row["summary"])
        )
    console().print(shown)
    for failure in failures:
        notes().print(f"plug-in {failure['plugin']} was not loaded: {failure['error']}", style="yellow", markup=False)


def _row(kind: str, name: str, entry: plugins.Entry) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "plugin": entry.origin.plugin,
        "version": entry.origin.version,
        "summary": _summary(kind, name, entry),
    }


def _summary(kind: str, name: str, entry: plugins.Entry) -> str:
    """What a class says of itself, or what a profile is for."""
    if kind != "profile":
        return plugins.describe(entry.value).replace("``", "")
    try:
        found = Profile.load(entry.value)
    except ProfileError as error:
        return one_line(error)
    return one_line(f"For {found.model.name}, bridges at depths {ranges(found.depths) or 'none'}")
