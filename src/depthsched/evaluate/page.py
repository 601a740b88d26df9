"""The page of task scores in the docs, from committed results: ``python -m depthsched.evaluate.page DATA PAGE``.

The folder holds what ``depthsched eval --json`` printed, ``head.md``, and in ``speed.json`` what ``depthsched bench
--json`` printed of the same plans; ``batching/`` holds what ``python -m depthsched.evaluate.batching`` printed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .statistics import Paired, paired

_COLUMNS = ("plan", "score", "difference to full, points", "p", "detects from", "mean depth", "bytes")


def page(
    results: Sequence[Mapping[str, Any]],
    speed: Mapping[str, Any],
    head: str,
    batching: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> str:
    """The page as Markdown: the tables of all results behind a hand-written head.

    Parameters
    ----------
    results : sequence of mapping
        Of ``depthsched eval``.
    speed : mapping
        Of ``depthsched bench``.
    head : str
    batching : sequence of tuple
        A dtype, and what batching saved in it.
    """
    rows = [row for result in results for row in result["rows"]]
    sections = [_pooled(rows, "bbh"), *(_section(task, metric, rows) for task, metric in _tasks(rows))]
    parts = [
        _commands(results, speed),
        _speeds(speed),
        *(_batching(*found) for found in batching),
        *filter(None, sections),
    ]
    return "\n".join([head.rstrip(), "", *parts])


def _commands(results: Sequence[Mapping[str, Any]], speed: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results[0]["versions"].items())
    commands = "\n".join([*(result["context"]["command"] for result in results), speed["command"]])
    return f"```text\n{commands}\n```\n\n{versions}.\n"


def _speeds(speed: Mapping[str, Any]) -> str:
    lines = [
        "## The plans on the clock",
        "",
        f"{speed['tokens']} tokens of one row, backend compiled, {speed['dtype']}, {speed['repeats']} rounds against "
        f"full depth in one process on a {speed['machine']} with {speed['threads']} threads.",
        "",
        "| plan | mean depth | bytes | measured | realised |",
        "|---|---|---|---|---|",
    ]
    for row in speed["rows"]:
        if row["plan"] != "full":
            ratio = row["speedup_vs_full"]
            measured = f"{ratio['median']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
            cells = (f"{row['mean_depth']:.1f}", f"{row['theoretical_bytes']:.2f}x", measured, f"{row['realised']:.2f}")
            lines.append(f"| {_name(row)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _batching(dtype: str, found: Mapping[str, Any]) -> str:
    lines = [
        f"## Batching, {dtype}",
        "",
        f"{found['items']} items of {found['task']} at full depth in the eager backend, batch sizes by turns, "
        f"{found['rounds']} rounds; prompts computed before, the examples that all items "
        "share once (`python -m depthsched.evaluate.batching`).",
        "",
        "| batch | tokens/s | times batch 1 | items with the same output |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        ratio = row["ratio"]
        times = f"{ratio['median']:.1f} ({ratio['low']:.1f} to {ratio['high']:.1f})"
        lines.append(f"| {row['batch']} | {row['tokens_per_second']:.1f} | {times} | {row['same_output']:.0%} |")
    return "\n".join([*lines, ""])


def _name(row: Mapping[str, Any]) -> str:
    """The plan as a column shows it: with a profile, but not where that lies."""
    return f"`{re.sub(r'profile=[^+;]*', 'profile', row['plan'])}`"


def _tasks(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["task"], row["metric"]) for row in rows))


def _section(task: str, metric: str, rows: Sequence[dict[str, Any]]) -> str:
    mine = [row for row in rows if (row["task"], row["metric"]) == (task, metric)]
    full = next(row for row in mine if row["plan"] == "full")
    name = task.removeprefix("bbh_cot_fewshot_").replace("_", " ")
    return _table(f"## {name}: {metric.replace(',', ', ')}", full, [row for row in mine if row is not full])


def _table(title: str, full: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        title,
        "",
        f"{full['n']} items; full depth scores {100 * full['full']:.1f}.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
    ]
    for row in rows:
        cells = (
            _name(row),
            f"{100 * row['score']:.1f}",
            f"{100 * row['diff']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})",
            f"{row['p_value']:.3f}",
            f"{100 * row['detectable']:.1f}",
            f"{row['mean_depth']:.1f}",
            f"{row['bytes_speedup']:.2f}x",
        )
        lines.append(f"| {' | '.join(cells)} |")
    verdicts = [f"- {_name(row)}: {row['verdict']}" for row in rows]
    return "\n".join([*lines, "", *verdicts, ""])


def _pooled(rows: Sequence[dict[str, Any]], suite: str) -> str:
    """The tasks of a suite as one: every item counts once."""
    mine = [row for row in rows if row["task"].startswith(suite)]
    plans = list(dict.fromkeys(row["plan"] for row in mine))
    complete = {row["task"] for row in mine if row["plan"] == "full"}
    pooled = []
    for plan in plans:
        some = [row for row in mine if row["plan"] == plan]
        if {row["task"] for row in some} == complete:
            pooled.append(_pool(some, [row for row in mine if row["plan"] == "full"]))
    if len(complete) < 2:
        return ""
    full = next(row for row in pooled if row["plan"] == "full")
    return _table(f"## {suite.upper()}: {len(complete)} tasks pooled", full, [row for row in pooled if row is not full])


def _pool(rows: Sequence[dict[str, Any]], fulls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    tokens = sum(row["tokens"] for row in rows)
    seconds = sum(row["tokens"] / row["tokens_per_second"] for row in rows)
    rate = sum(row["tokens"] for row in fulls) / sum(row["tokens"] / row["tokens_per_second"] for row in fulls)
    return {
        "plan": rows[0]["plan"],
        "mean_depth": sum(row["mean_depth"] * row["tokens"] for row in rows) / tokens,
        "bytes_speedup": tokens / sum(row["tokens"] / row["bytes_speedup"] for row in rows),
        "tokens_per_second": tokens / seconds,
        "speedup": tokens / seconds / rate,
        **_joined(rows).to_json(),
    }


def _joined(rows: Sequence[dict[str, Any]]) -> Paired:
    """Paired statistics of right-or-wrong scores, from how many items each task won, lost and left alike."""
    plan: list[float] = []
    full: list[float] = []
    for row in rows:
        right = round(row["full"] * row["n"]) - row["losses"]
        wrong = row["n"] - right - row["wins"] - row["losses"]
        plan += [1.0] * row["wins"] + [0.0] * row["losses"] + [1.0] * right + [0.0] * wrong
        full += [0.0] * row["wins"] + [1.0] * row["losses"] + [1.0] * right + [0.0] * wrong
    return paired(plan, full)


def main(data: str, target: str) -> None:
    """Write the page from the files of a folder."""
    folder = Path(data)
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    speed = found.pop("speed")
    head = (folder / "head.md").read_text(encoding="utf-8")
    batching = [
        (path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("batching/*.json"))
    ]
    Path(target).write_text(page(list(found.values()), speed, head, batching), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
