"""The tables of a report, as text in cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..text import span, sparkline

_WIDTH = 24


def tables(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Title, note, columns and rows of every table that has rows; ``faint`` marks rows of dominated plans."""
    made = [_plans(data), _tasks(data["tasks"]), _scores(data["scores"]), _benches(data["benches"])]
    return [table for table in made if table["rows"]]


def make_table(title: str, note: str, columns: str, rows: Iterable[tuple[list[str], bool]]) -> dict[str, Any]:
    """A table of a page: ``columns`` are separated by bars; those that start with ``>`` hold numbers."""
    heads = [{"title": c.strip().lstrip(">"), "number": c.strip().startswith(">")} for c in columns.split("|")]
    return {"title": title, "note": note, "columns": heads, "rows": [{"cells": c, "faint": f} for c, f in rows]}


def _plans(data: Mapping[str, Any]) -> dict[str, Any]:
    points = [point for frontier in data["frontiers"] for point in frontier["points"]]
    best = {point["plan"] for point in points if not point["dominated"]}
    placed = {point["plan"] for point in points}
    rows = []
    for plan in data["plans"]:
        speed = plan["speed"]
        name = plan["label"]
        place = "on it" if name in best else "dominated" if name in placed else "–"
        depth = "–" if plan["mean_depth"] is None else f"{plan['mean_depth']:.1f} of {plan['num_layers'] or '?'}"
        fast = span(speed["value"], speed["low"], speed["high"], 2) if speed else "–"
        how = f"{speed['kind']}: {speed['how']}" if speed else "–"
        rows.append(([str(plan["number"]), name, curve(plan), depth, fast, how, place], place == "dominated"))
    note = "Speed-up over full depth in the same backend. The curve is the depth over the steps."
    return make_table("Plans", note, ">#|plan|curve|>mean depth|>speed-up|how|frontier", rows)


def _tasks(tasks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        [
            row["task"],
            row["plan"],
            row["metric"],
            str(row["n"]),
            f"{row['score']:.3f}",
            f"{row['full']:.3f}",
            span(row["diff"], row["low"], row["high"], 3, sign=True),
            f"{row['p_value']:.3f}",
            f"{row['mean_depth']:.1f}",
            f"{row['speedup']:.2f}",
            row.get("verdict", ""),
        ]
        for row in tasks
    ]
    note = (
        "Against full depth on the same items; 95% intervals of the paired difference. Speed-up by the evaluation's "
        "own clock."
    )
    columns = "task|plan|metric|>items|>score|>full depth|>difference|>p|>mean depth|>speed-up|verdict"
    return make_table("Tasks", note, columns, ((row, False) for row in rows))


def _scores(scores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        [
            row["on"],
            row["plan"],
            str(row["tokens"]),
            f"{row['mean_depth']:.1f}",
            f"{row['bytes_speedup']:.2f}",
            interval(row["intervals"]["kl"], 3),
            interval(row["intervals"]["agreement"], 3),
            f"{row['perplexity']:.3f}",
            f"{row['perplexity_full']:.3f}",
        ]
        for row in scores
    ]
    note = (
        "Teacher-forced on the same tokens, decode steps only. KL(full || plan) in nats per token; 95% intervals over "
        "prompts."
    )
    columns = "prompts|plan|>steps|>mean depth|>bytes saved|>KL|>agreement|>perplexity|>at full depth"
    return make_table("Scores", note, columns, ((row, False) for row in rows))


def _benches(benches: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        [
            row["plan"],
            row["backend"],
            f"{row['mean_depth']:.1f}",
            interval(row["tokens_per_second"], 1),
            interval(row["speedup_vs_full"], 2),
            f"{row['theoretical_bytes']:.2f}",
            f"{row['realised']:.2f}",
            f"{row['context']['machine']}, {row['context']['threads']} threads",
        ]
        for row in benches
    ]
    note = "Paired and interleaved with full depth in one process; medians and 95% intervals."
    columns = "plan|backend|>mean depth|>tokens/s|>speed-up|>bytes saved|>realised|machine"
    return make_table("Clock", note, columns, ((row, False) for row in rows))


def interval(found: Mapping[str, Any], digits: int) -> str:
    """The same of ``{mean or median, low, high}``."""
    return span(found["mean"] if "mean" in found else found["median"], found["low"], found["high"], digits)


def curve(plan: Mapping[str, Any]) -> str:
    """The depth curve as block characters."""
    depths, layers = plan["depths"], plan["num_layers"]
    if not depths:
        return "–"
    return sparkline(depths, layers, _WIDTH)
