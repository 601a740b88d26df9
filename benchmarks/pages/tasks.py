"""The tables of the page on tasks.

The folder holds what ``depthsched eval --json`` printed, in ``speed.json`` what ``depthsched bench --json`` printed of
the same plans, and in ``batching/`` what ``python -m benchmarks batching`` printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from depthsched.evaluate.statistics import Paired, paired

from .markdown import Cell, Row, commands, read, section, spread, table, versions


def tables(folder: Path) -> str:
    """Commands, the plans on the clock, what batching saves, and every task."""
    speed = read(folder / "speed.json")
    results = [read(path) for path in sorted(folder.glob("*.json")) if path.stem != "speed"]
    rows = [row for result in results for row in result["rows"]]
    return "".join(
        [
            _head(results, speed),
            _speeds(speed),
            *(_batching(path.stem, read(path)) for path in sorted(folder.glob("batching/*.json"))),
            _pooled(rows, "bbh"),
            *(_task(task, metric, rows) for task, metric in dict.fromkeys((r["task"], r["metric"]) for r in rows)),
        ]
    )


def _name(row: Row) -> str:
    """The plan as a column shows it: with a profile, but not where that lies."""
    return f"`{re.sub(r'profile=[^+;]*', 'profile', row['plan'])}`"


def _head(results: Sequence[Row], speed: Row) -> str:
    packages = versions(results[0])
    block = commands(*(result["context"]["command"] for result in results), speed["command"])
    return f"{block}\n\n{packages}.\n\n"


def _speeds(speed: Row) -> str:
    columns: dict[str, Cell] = {
        "plan": _name,
        ">mean depth": "{mean_depth:.1f}",
        ">bytes saved": "{theoretical_bytes:.2f}x",
        ">measured": spread("speedup_vs_full", unit="x"),
        ">realised": "{realised:.2f}",
    }
    return section(
        "The plans on the clock",
        f"{speed['tokens']} tokens of one row, backend compiled, {speed['dtype']}, {speed['repeats']} rounds against "
        f"full depth in one process on a {speed['machine']} with {speed['threads']} threads.",
        table(columns, [row for row in speed["rows"] if row["plan"] != "full"]),
    )


def _batching(dtype: str, found: Row) -> str:
    columns: dict[str, Cell] = {
        ">batch": "{batch}",
        ">tokens/s": "{tokens_per_second:.1f}",
        ">times batch 1": spread("ratio", ".1f"),
        ">items with the same output": "{same_output:.0%}",
    }
    return section(
        f"Batching, {dtype}",
        f"{found['items']} items of {found['task']} at full depth in the eager backend, alternating batch sizes, "
        f"{found['rounds']} rounds; prompts computed before, the examples that all items "
        "share once (`python -m benchmarks batching`).",
        table(columns, found["rows"]),
    )


def _task(task: str, metric: str, rows: Sequence[Row]) -> str:
    name = task.removeprefix("bbh_cot_fewshot_").replace("_", " ")
    mine = [row for row in rows if (row["task"], row["metric"]) == (task, metric)]
    return _against_full(f"{name}: {metric.replace(',', ', ')}", mine)


def _against_full(title: str, rows: Sequence[Row]) -> str:
    full = next(row for row in rows if row["plan"] == "full")
    in_points = ("score", "diff", "low", "high", "detectable")
    others = [{**row, "points": {name: 100 * row[name] for name in in_points}} for row in rows if row is not full]
    columns: dict[str, Cell] = {
        "plan": _name,
        ">score": "{points[score]:.1f}",
        ">difference to full, points": spread("points", "+.1f", middle="diff"),
        ">p": "{p_value:.3f}",
        ">detects from": "{points[detectable]:.1f}",
        ">mean depth": "{mean_depth:.1f}",
        ">bytes saved": "{bytes_speedup:.2f}x",
    }
    return section(
        title,
        f"{full['n']} items; full depth scores {100 * full['full']:.1f}.",
        table(columns, others),
        "\n".join(f"- {_name(row)}: {row['verdict']}" for row in others),
    )


def _pooled(rows: Sequence[Row], suite: str) -> str:
    """The tasks of a suite as one: every item counts once. Plans that did not run all of them are left out."""
    by_plan: dict[str, list[Row]] = {}
    for row in rows:
        if row["task"].startswith(suite):
            by_plan.setdefault(row["plan"], []).append(row)
    count = len(by_plan.get("full", []))
    if count < 2:
        return ""
    pooled = [_pool(mine) for mine in by_plan.values() if len(mine) == count]
    return _against_full(f"{suite.upper()}: {count} tasks pooled", pooled)


def _pool(rows: Sequence[Row]) -> Row:
    tokens = sum(row["tokens"] for row in rows)
    return {
        "plan": rows[0]["plan"],
        "mean_depth": sum(row["mean_depth"] * row["tokens"] for row in rows) / tokens,
        "bytes_speedup": tokens / sum(row["tokens"] / row["bytes_speedup"] for row in rows),
        **_joined(rows).to_json(),
    }


def _joined(rows: Sequence[Row]) -> Paired:
    """Paired statistics of right-or-wrong scores, from how many items each task won, lost and left alike."""
    plan: list[float] = []
    full: list[float] = []
    for row in rows:
        right = round(row["full"] * row["n"]) - row["losses"]
        wrong = row["n"] - right - row["wins"] - row["losses"]
        plan += [1.0] * row["wins"] + [0.0] * row["losses"] + [1.0] * right + [0.0] * wrong
        full += [0.0] * row["wins"] + [1.0] * row["losses"] + [1.0] * right + [0.0] * wrong
    return paired(plan, full)
