"""The tables of the page on renewal, from what ``python -m benchmarks renewal`` printed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

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
    columns[">constant at this clock"] = partial(_at_this_clock, read(file)["frontier"])
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


def constant_at(frontier: list[Row], row: Row) -> tuple[float, float] | None:
    """KL and agreement of constant depth where it is as fast on the clock, by interpolation between its depths."""
    clocked = [point for point in frontier if point["family"] == "constant" and point["clock"]]
    points = sorted(clocked, key=lambda point: float(point["clock"]["median"]))
    speeds = [point["clock"]["median"] for point in points]
    if not (row["clock"] and speeds and speeds[0] <= row["clock"]["median"] <= speeds[-1]):
        return None
    at = partial(np.interp, row["clock"]["median"], speeds)
    return float(at([point["kl"]["mean"] for point in points])), float(at([p["agreement"]["mean"] for p in points]))


def _at_this_clock(frontier: list[Row], row: Row) -> str:
    found = constant_at(frontier, row)
    return "" if found is None else f"{found[0]:.3f}, {found[1]:.3f}"
