"""Write the tables of the quality pages from ``docs/results/quality``: ``python docs/make_quality.py [--check]``.

``make evidence-quality`` writes those files; this only prints them, so the pages cannot say anything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DATA = RESULTS / "quality"
Row = Mapping[str, Any]
ORDERS = {"list": "ranked one by one", "middle-out": "middle-out", "early-exit": "early exit"}


def main(arguments: Sequence[str]) -> int:
    stale = []
    for page, tables in PAGES.items():
        path = RESULTS / page
        text = before = path.read_text(encoding="utf-8")
        for name, make in tables.items():
            head, begin, rest = text.partition(f"<!-- table: {name} -->")
            _, end, tail = rest.partition("<!-- end -->")
            if not end:
                raise SystemExit(f"{path} has no table {name!r}; add <!-- table: {name} --><!-- end -->")
            text = f"{head}{begin}\n\n{measured(make)}\n{end}{tail}"
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif text != before:
            stale.append(page)
    if stale:
        print(f"stale: {', '.join(stale)}; run python docs/make_quality.py")
    return 1 if stale else 0


def measured(make: Callable[[], str]) -> str:
    try:
        return make()
    except FileNotFoundError as missing:
        return f"Not measured yet: `make evidence-quality` writes `{Path(missing.filename).name}`.\n"


def read(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    names = head.split(" | ")
    rule = ["---:" if name.startswith(">") else "---" for name in names]
    lines = [[name.lstrip(">") for name in names], rule, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mean(value: Mapping[str, float], sign: str = "") -> str:
    """``0.239 (0.213 to 0.268)``."""
    return f"{value['mean']:{sign}.3f} ({value['low']:{sign}.3f} to {value['high']:{sign}.3f})"


def label(row: Row) -> str:
    if row["profile"]:
        return "profile: block, bridge and corrections"
    return ORDERS.get(row["order"].partition(":")[0], "the profile's block") + ", plain skipping"


def scores(*names: str) -> str:
    rows = []
    for name in names:
        file, _, note = name.partition("=")
        for row in sorted(read(file)["rows"], key=lambda row: -row["mean_depth"]):
            who = note if note and row["profile"] else label(row)
            speed = f"{row['bytes_speedup']:.2f}x"
            found = [mean(row["intervals"][key]) for key in ("kl", "agreement")]
            rows.append([f"{row['mean_depth']:.0f}", who, *found, f"{row['perplexity']:.2f}", speed])
    rows.sort(key=lambda cells: -int(cells[0]))
    return table(">depth | plan | >KL | >agreement | >perplexity | >bytes saved", rows)


def curve() -> str:
    rows = [
        [
            str(row["depth"]),
            f"{row['kl']:.3f}",
            f"{row['agreement']:.3f}",
            "+".join(str(f["layer"]) for f in row["fits"]),
        ]
        for row in read("calibrate")["evidence"]["constant"]
    ]
    return table(">depth | >KL | >agreement | maps in front of layers", rows)


def orders() -> str:
    evidence = read("calibrate")["evidence"]
    rows = [
        [name, *(f"{found[how][key]:.3f}" for how in ("plain", "bridged") for key in ("kl", "agreement"))]
        for name, found in evidence["orders"].items()
    ]
    return table("order | >plain KL | >plain agreement | >bridged KL | >bridged agreement", rows)


def speed() -> str:
    found = read("paired")
    seconds = {name: sum(values) / len(values) for name, values in found["seconds"].items()}
    rows = [
        [
            str(found["prompts"]),
            str(found["tokens"]),
            f"{seconds['staircase']:.1f}",
            f"{seconds['step-by-step']:.0f}",
            f"{found['ratio']['median']:.1f}",
            f"{found['kl_difference']:.1e}",
        ]
    ]
    return table(">prompts | >decode steps | >one pass, s | >step by step, s | >ratio | >difference in KL", rows)


def bench() -> str:
    rows = []
    for name in ("bench-float32", "bench-bfloat16"):
        found = read(name)
        for row in found["rows"]:
            if row["plan"] != "full":
                ratio = row["speedup_vs_full"]
                measured = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
                theory = row["theoretical_bytes"]
                rows.append([row["plan"], found["dtype"], f"{theory:.3f}", measured, f"{row['realised']:.2f}"])
    return table("plan | dtype | >bytes, with bridges | >measured | >realised", rows)


def position(bridges: bool) -> Callable[[], str]:
    def make() -> str:
        rows = [
            [
                f"`{row['schedule']}`",
                f"{row['mean_depth']:.1f}",
                f"{row['bytes_speedup']:.3f}",
                f"{row['kl']['mean']:.3f}",
                mean(row["kl_less_constant"], "+") if row["family"] != "constant" else "",
                f"{row['agreement']['mean']:.3f}",
                mean(row["agreement_less_constant"], "+") if row["family"] != "constant" else "",
                f"{row['kl_first_quarter']:.3f}, {row['kl_last_quarter']:.3f}",
            ]
            for row in read("position")["rows"]
            if row["bridges"] is bridges
        ]
        head = "schedule | >mean depth | >bytes | >KL | >less constant | >agreement | >less constant "
        return table(f"{head}| >KL, first and last quarter", rows)

    return make


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "quality.md": {
        "gsm8k": lambda: scores("gsm8k"),
        "bbh": lambda: scores("bbh=profile of GSM8K", "bbh-mixed=profile of both"),
        "gsm8k-mixed": lambda: scores("gsm8k-mixed=profile of both"),
        "curve": curve,
        "orders": orders,
        "paired": speed,
        "bench": bench,
    },
    "position.md": {"bridged": position(True), "plain": position(False)},
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
