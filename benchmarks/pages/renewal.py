"""The tables of the page on renewal, from what ``python -m benchmarks renewal`` printed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .markdown import Cell, Row, measured, once_measured, read, spread, table, versions

COMMAND = "make evidence-quality DATA=..."


def tables(file: Path) -> dict[str, Callable[[], str]]:
    """Of the page on renewal; one line while nothing was measured."""
    makers = (("setting", _setting), ("renewed", _rows), ("beside", _beside))
    return once_measured(file.is_file(), COMMAND, {name: partial(make, file) for name, make in makers})


def _setting(file: Path) -> str:
    found = read(file)
    packages = versions(found)
    return (
        f"{found['model']}, {found['prompts']} prompts, {found['tokens']} tokens; {found['machine']}; {packages}. The "
        f"clock: {found['clock_prompts']} prompts, {found['repeats']} round(s), compiled, float32."
    )


def _rows(file: Path) -> str:
    columns: dict[str, Cell] = {
        "run": "{arm}",
        ">layers a step": "{mean_depth:.1f}",
        ">by bytes": "{bytes_speedup:.2f}x",
        ">on the clock": lambda row: measured(row["clock"]),
        ">KL": spread("kl", ".3f", middle="mean"),
        ">agreement": spread("agreement", ".3f", middle="mean"),
        **{f">{family} there": partial(_there, family) for family in ("constant", "d3", "linear")},
    }
    return table(columns, sorted(read(file)["rows"], key=lambda row: -row["bytes_speedup"]))


def _beside(file: Path) -> str:
    columns: dict[str, Cell] = {
        "schedule": "`{schedule}`",
        ">by bytes": "{bytes_speedup:.2f}x",
        ">on the clock": lambda row: measured(row["clock"]),
        ">KL": spread("kl", ".3f", middle="mean"),
        ">agreement": spread("agreement", ".3f", middle="mean"),
    }
    return table(columns, read(file)["frontier"])


def _there(family: str, row: Row) -> str:
    found = row["beside"][family]
    return "" if found is None else f"{found['kl']:.3f}, {found['agreement']:.3f}"
