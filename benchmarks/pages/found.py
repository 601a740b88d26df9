"""The three sentences that a page of results on the clock starts with: what was found, from the data of its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .markdown import Row, read

Rows = list[Row]
Maker = Callable[[], str]


def files(folder: Path) -> Rows:
    """What the ``.json`` files of a folder hold, in order."""
    return [read(path) for path in sorted(folder.glob("*.json"))]


def nothing_yet(what: str, command: str) -> str:
    """For a page whose experiment has not run."""
    return (
        f"There are no results yet: {what} not measured. The page says what is measured, and how; its tables are "
        f"empty. To fill them, run `{command}`."
    )


def span(values: Iterable[float], form: str = ".2f") -> str:
    """``0.93 to 1.09``, or one number where both ends round alike."""
    ends = sorted({f"{value:{form}}" for value in values}, key=float)
    return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


def _compared(folder: Path) -> Rows:
    """Rows of ``bench`` that are depthsched's own fast backends."""
    return [
        {**row, "copy": one["copy_gb_per_s"]}
        for one in files(folder)
        if "kind" not in one
        for row in one["rows"]
        if row["backend"] not in ("eager", "transformers")
    ]


def _times(rows: Sequence[Row]) -> str:
    return span((row["vs_transformers"]["median"] for row in rows if row["vs_transformers"]), ".1f")


def speed(folder: Path) -> str:
    """Of ``bench`` on a CPU."""
    own = _compared(folder)
    full, fewer = [r for r in own if r["plan"] == "full"], [r for r in own if r["plan"] != "full"]
    return (
        f"At full depth depthsched is {_times(full)} times as fast as transformers' own `generate` here. "
        f"Plans that skip layers reach {_times(fewer)} times. "
        f"Of the speed-up that a plan's bytes promise, {span(r['realised'] for r in fewer)} arrives on the clock, in "
        f"{len(fewer)} comparisons."
    )


def gpu(folder: Path) -> str:
    """Of ``bench`` on a GPU."""
    own = _compared(folder)
    full, fewer = [r for r in own if r["plan"] == "full"], [r for r in own if r["plan"] != "full"]
    return (
        f"What a plan saves in bytes reaches the clock: {span((r['realised'] for r in fewer), '.3f')} of it, in "
        f"{len(fewer)} comparisons with full depth. "
        f"Full depth itself is {_times(full)} times as fast as transformers' own `generate` where both ran. "
        f"It moves {span((100 * r['gb_per_s'] / r['copy'] for r in full), '.0f')}% of the bytes that a plain "
        "copy moves in the same time."
    )


def lossless(folder: Path) -> str:
    """Of the drafting runs."""
    if not files(folder):
        return nothing_yet("drafting was", "make evidence-lossless DATA=...")
    rows = [
        row for one in files(folder) if one.get("kind") == "lossless" for row in one["rows"] if row["category"] == "all"
    ]
    ours = [row for row in rows if row["side"] == "depthsched" and row["arm"] != "full"]
    theirs = [row for row in rows if row["side"] == "transformers" and row["arm"] != "full"]
    gains = [row["decode_speedup"] for row in ours]
    same = "Every" if all(row["equal"] == 1 for row in [*ours, *theirs]) else "Not every"
    return (
        f"On this model and machine {len(ours)} settings of drafting decode at {span(gains)} times "
        f"full depth. {same} text is that of full depth. "
        f"transformers' own drafters reach {span(r['speedup']['median'] for r in theirs)} times its plain "
        "`generate` on the same questions."
    )


def peers(folder: Path) -> str:
    """Of the engines on one file."""
    found = files(folder)
    if not found:
        return nothing_yet("other engines were", "make evidence-peers")
    rows = [row for row in found[0]["rows"] if row["vs_peer"]]
    ours = [row for row in rows if row["engine"] == "ours"]
    others = [row for row in rows if row["engine"] != "ours"]
    fast, peer = ours[0], max(others, key=_rate)
    dense = [row["vs_peer"]["median"] for row in ours if row["options"]["weights"] == "dense"]
    start, least = min(ours, key=_ready), min(others, key=_ready)
    return (
        f"On the weights as stored in the file depthsched decodes {_rate(fast):.0f} tokens/s at full depth, "
        f"{fast['vs_peer']['median']:.2f} times the fastest peer ({peer['name']}). "
        f"With the same weights dequantised it reaches {span(dense)} of that peer. "
        f"It takes longer to start: {_ready(start):.1f} s from the process to the loaded model; {least['name']} takes "
        f"{_ready(least):.1f} s."
    )


def _rate(row: Row) -> float:
    return float(row["tokens_per_second"]["median"])


def _ready(row: Row) -> float:
    return float(row["ready_seconds"]["median"])


def predict(folder: Path, beside: Maker, published: Maker) -> str:
    """Of predictions beside clocks: the last columns of two tables, and this machine where it was measured."""
    path = folder / "this.json"
    here = "On a CPU they were not compared with the clock yet: `python -m benchmarks predict` does it."
    if path.is_file():
        rows = read(path)["rows"]
        close = sum(row["within"] for row in rows)
        here = f"On a CPU, with a layer and the head timed first, {close} of {len(rows)} were within 15% of the clock."
    return (
        f"On an H200 the predicted tokens per second are {_column(beside, 5)} of those measured. "
        f"They are {_column(published, 4)} of what gpt-fast publishes for A100s. {here}"
    )


def _column(make: Maker, place: int) -> str:
    """The span of a column of a table, as it is printed there."""
    lines = make().splitlines()[2:]
    return span(float(line.strip("| ").split("|")[place]) for line in lines)
