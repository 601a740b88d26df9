"""The tables of the page on adaptive rules, from what ``python -m benchmarks adaptive`` printed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .markdown import Cell, Row, once_measured, read, spread, table, versions

COMMAND = "python -m benchmarks adaptive"


def tables(file: Path) -> dict[str, Callable[[], str]]:
    """Of the page on adaptive rules; one line while nothing was measured."""
    makers = (("setting", _setting), ("rules", _rules), ("constants", _constants))
    return once_measured(file.is_file(), COMMAND, {name: partial(make, file) for name, make in makers})


def _setting(file: Path) -> str:
    found = read(file)
    packages = versions(found)
    bounds = "; ".join(
        f"{kind}: " + ", ".join(f"{one['bytes_speedup']:.2f}x at {one['level']:.0%}" for one in some)
        for kind, some in found["headroom"].items()
    )
    return (
        f"{found['model']}, {found['prompts']} prompts, {found['tokens']} tokens; {packages}. Depths from "
        f"{found['lowest']} on. The oracle's headroom by agreement: {bounds}."
    )


def _rules(file: Path) -> str:
    columns: dict[str, Cell] = {
        "rule": "`{schedule}`",
        ">layers a step": "{mean_depth:.1f}",
        ">bytes saved": "{bytes_speedup:.2f}x",
        ">agreement": spread("agreement", ".3f", middle="mean"),
        ">KL": spread("kl", ".3f", middle="mean"),
        ">constant there": lambda row: f"{row['there']['agreement']:.3f}" if row["there"] else "out of its range",
        ">lead in agreement": lambda row: _signed(row, "agreement", 100, ".1f"),
        ">lead in KL": lambda row: _signed(row, "kl", 1, ".3f"),
        ">oracle there": lambda row: f"{row['oracle']['one-step']:.2f}x",
    }
    return table(columns, sorted(read(file)["rows"], key=_lead, reverse=True))


def _lead(row: Row) -> float:
    return float(row["lead"]["agreement"]["mean"]) if row["lead"] else float("-inf")


def _signed(row: Row, name: str, times: float, form: str) -> str:
    if not row["lead"]:
        return ""
    found = {key: row["lead"][name][key] for key in ("mean", "low", "high")}
    mean, low, high = ("" if value is None else f"{value * times:+{form}}" for value in found.values())
    return f"{mean} ({low} to {high})" if low else mean


def _constants(file: Path) -> str:
    columns: dict[str, Cell] = {
        ">depth": "{depth}",
        ">bytes saved": "{bytes_speedup:.2f}x",
        ">agreement": spread("agreement", ".3f", middle="mean"),
        ">KL": spread("kl", ".3f", middle="mean"),
        ">oracle there, one-step": lambda row: f"{row['oracle']['one-step']:.2f}x",
        ">held": lambda row: f"{row['oracle']['held']:.2f}x",
    }
    rows = {row["depth"]: row for row in read(file)["constants"]}  # depths below the least are that one again
    return table(columns, list(rows.values()))
