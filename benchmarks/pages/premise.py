"""The tables of the page on the premise of D³, from what ``depthsched oracle --json`` printed for sets of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .markdown import Cell, Row, once_measured, read, table

SETS = {"gsm8k": "GSM8K questions", "ifeval": "IFEval instructions", "xquad": "XQuAD, English"}
COMMAND = "make evidence-premise DATA=..."


def tables(folder: Path) -> dict[str, Callable[[], str]]:
    """Positions at full depth, the oracle, and plans beside it; one line while nothing was measured."""
    found = {name: folder / f"{name}.json" for name in SETS if (folder / f"{name}.json").is_file()}
    makers = {
        "full": lambda: _full(found),
        "oracle": lambda: table(ORACLE, _kinds(found)),
        "positions": lambda: "\n\n".join(_positions(name, file) for name, file in found.items()),
        "plans": lambda: "\n\n".join(_plans(name, file) for name, file in found.items()),
    }
    return once_measured(bool(found), COMMAND, makers)


def _full(found: dict[str, Path]) -> str:
    """Every set once: what full depth says does not depend on the order."""
    rows = [{"set": SETS[name], **read(file)["rows"][0]} for name, file in found.items()]
    columns: dict[str, Cell] = {
        "prompts": "{set}",
        ">number": "{prompts}",
        ">decode steps": "{tokens}",
        ">NLL": lambda row: _span(row["nll"]),
        ">entropy": lambda row: _span(row["entropy"]),
        ">NLL, per 100 steps": lambda row: _span(row["trend_per_100_steps"]["nll"], sign=True),
        ">entropy, per 100 steps": lambda row: _span(row["trend_per_100_steps"]["entropy"], sign=True),
    }
    return table(columns, rows)


def _kinds(found: dict[str, Path]) -> Iterator[Row]:
    for name, file in found.items():
        for row in read(file)["rows"]:
            for kind in row["kinds"]:
                yield {"set": SETS[name], "order": _order(row), "lowest": row["depths"][0], **kind}


def _saved(level: float, row: Row) -> str:
    return next(f"{best['bytes_speedup']:.2f}x" for best in row["headroom"] if best["level"] == level)


def _least(kind: str, row: Row) -> str:
    return _span(row[kind], ".1f")


def _best(kind: str, row: Row) -> str:
    return f"{row['best'][kind]:.2f}x"


ORACLE: dict[str, Cell] = {
    "prompts": "{set}",
    "order": "{order}",
    "oracle": "{kind}",
    ">lowest depth": "{lowest}",
    ">least depth": lambda row: _span(row["least"], ".1f"),
    ">stable from": lambda row: _span(row["stable"], ".1f"),
    ">least, per 100 steps": lambda row: _span(row["trend_per_100_steps"]["least"], sign=True),
    **{f">at {level:.0%}": partial(_saved, level) for level in (1.0, 0.99, 0.95)},
}


def _positions(name: str, file: Path) -> str:
    """By position, of the first order."""
    row = read(file)["rows"][0]
    lines = [
        {**found, **{kind["kind"]: kind["per_step"][i]["least"] for kind in row["kinds"]}}
        for i, found in enumerate(row["per_step"])
    ]
    columns: dict[str, Cell] = {
        "steps": "{first} to {last}",
        ">prompts": "{prompts}",
        ">NLL": lambda line: _span(line["nll"]),
        ">entropy": lambda line: _span(line["entropy"]),
        **{f">least depth, {kind['kind']}": partial(_least, kind["kind"]) for kind in row["kinds"]},
    }
    return f"{SETS[name]}, {_order(row)}:\n\n{table(columns, lines)}"


def _plans(name: str, file: Path) -> str:
    rows = [
        {**plan, "order": _order(row)}
        for row in read(file)["rows"]
        for plan in sorted(row["plans"], key=lambda plan: plan["bytes_speedup"])
    ]
    kinds = [kind["kind"] for kind in read(file)["rows"][0]["kinds"]]
    columns: dict[str, Cell] = {
        "order": "{order}",
        "plan": "`{plan}`",
        ">mean depth": "{mean_depth:.1f}",
        ">agreement": lambda row: _span(row["agreement"], ".3f"),
        ">bytes saved": "{bytes_speedup:.2f}x",
        **{f">best, {kind}": partial(_best, kind) for kind in kinds},
    }
    return f"{SETS[name]}:\n\n{table(columns, rows)}"


def _order(row: Row) -> str:
    return str(row["order"]).partition(":")[0] + (" with bridges" if row["profile"] else "")


def _span(found: Any, form: str = ".2f", sign: bool = False) -> str:
    form = f"+{form}" if sign else form
    middle = f"{found['mean']:{form}}"
    return middle if found["low"] is None else f"{middle} ({found['low']:{form}} to {found['high']:{form}})"
