"""The tables of the page on signal: what ``python -m benchmarks signal`` and ``peeking`` printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .markdown import Cell, Row, read, table


def tables(folder: Path) -> dict[str, Callable[[], str]]:
    """Tasks at full depth, and items under peeking."""
    return {
        "tasks": lambda: _tasks(read(folder / "plain.json")),
        "peeking": lambda: _peeking(read(folder / "peeking.json")),
    }


def _tasks(found: Row) -> str:
    columns: dict[str, Cell] = {
        "task": lambda row: f"`{row['task'].removeprefix('bbh_cot_fewshot_')}`",
        "score of an item": lambda row: row["metric"].removesuffix(",none").replace(",", ", "),
        ">items": "{n}",
        ">full depth": lambda row: f"{100 * row['score']:.1f} ± {100 * row['error']:.1f}",
        ">spread": lambda row: f"{100 * row['spread']:.0f}",
        ">one point, unlike answers": lambda row: f"{row['items_apart'] or 'cannot tell'}",
    }
    head = f"Full depth, {found['dtype']}, up to {found['max_new_tokens']} new tokens, no chat template.\n\n"
    return head + table(columns, found["rows"])


def _peeking(found: Row) -> str:
    columns: dict[str, Cell] = {
        ">items changed": "{changed:.0%}",
        ">true drop, points": lambda row: f"{100 * row['drop']:.0f}",
        ">yes": "{yes:.1%}",
        ">no": "{no:.1%}",
        ">undecided": "{undecided:.1%}",
        ">items, median": lambda row: "–" if row["median"] is None else f"{row['median']:.0f}",
    }
    head = f"{found['runs']} simulated evaluations of up to {found['items']} items each, a look after every item.\n\n"
    return head + table(columns, found["rows"])
