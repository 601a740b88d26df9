"""What all pages are made of: tables, sections, and the JSON that was kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from depthsched.errors import SettingsError

Row = Mapping[str, Any]
Cell = str | Callable[[Row], str]


def table(columns: Mapping[str, Cell], rows: Iterable[Row]) -> str:
    """A Markdown table.

    Parameters
    ----------
    columns : mapping
        From a heading (with ``>`` in front: to the right) to a format such as ``{mean_depth:.1f}``, or to a function of
        the row.
    rows : iterable of mapping
    """
    rule = ["---:" if name.startswith(">") else "---" for name in columns]
    cells = [
        [cell.format_map(row) if isinstance(cell, str) else cell(row) for cell in columns.values()] for row in rows
    ]
    lines = [[name.lstrip(">") for name in columns], rule, *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(key: str, form: str = ".2f", unit: str = "", middle: str = "median") -> str:
    """The format of a value with its interval: ``1.11x (1.09 to 1.13)``."""
    return f"{{{key}[{middle}]:{form}}}{unit} ({{{key}[low]:{form}}} to {{{key}[high]:{form}}})"


def measured(found: Row | None, form: str = ".2f") -> str:
    """A median with its interval where it has one; nothing where nothing was measured."""
    if not found:
        return ""
    if found["low"] is None:
        return f"{found['median']:{form}}x"
    return f"{found['median']:{form}}x ({found['low']:{form}} to {found['high']:{form}})"


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it, with an empty line after each."""
    return "".join(f"{part}\n\n" for part in (f"## {title}", *parts) if part)


def commands(*lines: str) -> str:
    """A block of commands."""
    return "\n".join(["```text", *lines, "```"])


def versions(found: Row) -> str:
    """The packages that something was measured with."""
    return ", ".join(f"{name} {version}" for name, version in found["versions"].items())


def once_measured(there: bool, command: str, makers: Mapping[str, Callable[[], str]]) -> dict[str, Callable[[], str]]:
    """The tables of a page; while nothing was measured the first is a line that says so, and the others are empty."""
    if there:
        return dict(makers)
    first, *others = makers
    return {first: lambda: not_measured(command), **dict.fromkeys(others, str)}


def not_measured(command: str) -> str:
    """What stands in the place of a table."""
    return f"Not measured yet: `{command}`."


def read(path: Path) -> Any:
    """The JSON of a file.

    Raises
    ------
    SettingsError
        It is not there.
    """
    if not path.is_file():
        raise SettingsError(f"{path} was not measured yet; the make targets evidence-* measure all of it")
    return json.loads(path.read_text(encoding="utf-8"))
