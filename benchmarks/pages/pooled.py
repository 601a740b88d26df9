"""The tables of the page on pooled differences.

``scores.json`` is what ``depthsched eval --pool`` printed, ``speed.json`` what ``depthsched bench`` printed of the same
plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .found import nothing_yet
from .markdown import Cell, Row, once_measured, read, spread, table, versions

COMMAND = "make evidence-pooled DATA=..."


def tables(folder: Path) -> dict[str, Callable[[], str]]:
    """Every plan on the pool, and on each task; one line while nothing was measured."""
    scores, speed = folder / "scores.json", folder / "speed.json"
    makers = {"setting": lambda: _setting(read(scores)), "pool": lambda: _pool(read(scores), read(speed)),
              "by-task": lambda: _tasks(read(scores))}  # fmt: skip
    return once_measured(scores.is_file() and speed.is_file(), COMMAND, makers)


def sentences(folder: Path) -> str:
    """Of the decisions."""
    if not (folder / "scores.json").is_file():
        return nothing_yet("pooled differences were", COMMAND)
    rows = read(folder / "scores.json")["pooled"]
    said = {word: sum(row["decision"] == word for row in rows) for word in ("yes", "no", "undecided")}
    wide = max((row["upper"] - row["lower"]) / 2 for row in rows)
    least, most = (f"{100 * f(row['diff'] for row in rows):+.1f}" for f in (min, max))
    return (
        f"Of {len(rows)} plans, {said['yes']} are shown to be within 1 point of full depth on {rows[0]['n']} items, "
        f"{said['no']} are shown not to be, and {said['undecided']} stay undecided. "
        f"The pooled differences lie between {least} and {most} points, and each is known to within "
        f"{100 * wide:.1f} points at most. "
        f"Full depth itself scores {100 * rows[0]['full']:.1f} of 100, so there is little to lose on this model."
    )


def _setting(found: Row) -> str:
    return f"`{found['context']['command']}`; {versions(found)}."


def _pool(found: Row, speed: Row) -> str:
    clock = {row["plan"]: row for row in speed["rows"]}
    rows = [{**row, "bytes": _bytes(found, row["plan"]), **_clock(clock, row["plan"])} for row in found["pooled"]]
    columns: dict[str, Cell] = {
        "plan": "`{plan}`",
        ">bytes saved": lambda row: "–".join(dict.fromkeys(f"{value:.2f}" for value in row["bytes"])) + "x",
        ">on the clock": lambda row: row["clock"],
        ">score": lambda row: f"{100 * row['score']:.1f}",
        ">less full depth": lambda row: points(row, "diff", "low", "high"),
        "within 1 point": lambda row: row["decision"],
        ">items for an answer": lambda row: f"{row['needs']:,}".replace(",", " ") if row["needs"] else "",
    }
    head = f"Full depth scores {100 * found['pooled'][0]['full']:.1f}. {found['pooled'][0]['n']} items.\n\n"
    return head + table(columns, sorted(rows, key=lambda row: (min(row["bytes"]), row["plan"])))


def _clock(clock: dict[str, Row], plan: str) -> dict[str, str]:
    row = next((row for name, row in clock.items() if name.partition("+profile=")[0] == plan), None)
    return {"clock": spread("speedup_vs_full", unit="x").format_map(row) if row else ""}


def _bytes(found: Row, plan: str) -> list[float]:
    return sorted({row["bytes_speedup"] for row in found["rows"] if row["plan"] == plan})


def _tasks(found: Row) -> str:
    columns: dict[str, Cell] = {
        "task": "`{task}`",
        "plan": "`{plan}`",
        ">items": "{n}",
        ">score": lambda row: f"{100 * row['score']:.1f}",
        ">less full depth": lambda row: points(row, "diff", "low", "high"),
        ">bytes saved": "{bytes_speedup:.2f}x",
    }
    return table(columns, _pooled_rows(found))


def _pooled_rows(found: Row) -> Iterator[Row]:
    metrics = {"ifeval": "inst_level_strict_acc,none", "xquad_en": "f1,none"}
    for task, metric in metrics.items():
        yield from (
            row for row in found["rows"] if (row["task"], row["metric"]) == (task, metric) and row["plan"] != "full"
        )


def points(row: Row, *names: str) -> str:
    """A difference and its interval, in points."""
    diff, low, high = (100 * row[name] for name in names)
    return f"{diff:+.1f} ({low:+.1f} to {high:+.1f})"
