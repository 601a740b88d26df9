"""The page of an oracle: tables, pictures and the depth map, from the rows that ``depthsched oracle --json`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..text import span
from .charts import Look, new_axes
from .tables import interval, make_table

Row = Mapping[str, Any]
_MARKS = ("o", "s", "^", "D")


def label(row: Row) -> str:
    """An order in a few words."""
    return str(row["order"]).partition(":")[0] + (" + bridges" if row["profile"] else "")


def oracle_table(rows: Sequence[Row]) -> dict[str, Any]:
    """One line for each order and kind."""
    cells = []
    for row in rows:
        for kind in row["kinds"]:
            best = [f"{found['bytes_speedup']:.2f}" for found in kind["headroom"]]
            numbers = [str(row["prompts"]), str(row["tokens"]), interval(kind["least"], 1), interval(kind["stable"], 1)]
            change = kind["trend_per_100_steps"]["least"]
            change = span(change["mean"], change["low"], change["high"], 2, sign=True)
            cells.append(([label(row), kind["kind"], *numbers, change, *best], False))
    levels = "|".join(f">saved at {found['level']:.0%}" for found in rows[0]["kinds"][0]["headroom"]) if rows else ""
    note = (
        "Least depth whose most likely token is full depth's, in hindsight; stable: all deeper ones agree too. "
        "one-step: only this step is shallow; held: the whole answer up to it. Change per 100 steps within a prompt. "
        "Saved: bytes moved at full depth over those of the cheapest choice of depths that agrees so often. 95% "
        "intervals over prompts."
    )
    columns = f"order|oracle|>prompts|>steps|>least depth|>stable from|>per 100 steps|{levels}"
    return make_table("Oracle", note, columns, cells)


def position_table(rows: Sequence[Row]) -> dict[str, Any]:
    """How sure full depth is, and the least depth, by position in the answer."""
    cells = []
    for row in rows:
        for i, found in enumerate(row["per_step"]):
            least = [interval(kind["per_step"][i]["least"], 1) for kind in row["kinds"]]
            counts = [f"{found['first']}-{found['last']}", str(found["prompts"])]
            cells.append(
                ([label(row), *counts, interval(found["nll"], 2), interval(found["entropy"], 2), *least], False)
            )
    kinds = "|".join(f">least, {kind['kind']}" for kind in rows[0]["kinds"]) if rows else ""
    note = "NLL and entropy of full depth in nats. Later ranges hold only the prompts whose answers are that long."
    return make_table("Position", note, f"order|>steps|>prompts|>NLL|>entropy|{kinds}", cells)


def beside_table(rows: Sequence[Row]) -> dict[str, Any]:
    """Plans beside the best choice of depths at their agreement."""
    cells = []
    for row in rows:
        for plan in sorted(row["plans"], key=lambda plan: -plan["agreement"]["mean"]):
            best = [f"{plan['best'][kind['kind']]:.2f}" for kind in row["kinds"]]
            own = [interval(plan["agreement"], 3), f"{plan['bytes_speedup']:.2f}"]
            cells.append(([label(row), plan["plan"], *own, *best], False))
    kinds = "|".join(f">best, {kind['kind']}" for kind in rows[0]["kinds"]) if rows else ""
    note = "Best: what the cheapest choice of depths in hindsight saves where it agrees as often as the plan."
    return make_table("Beside", note, f"order|plan|>agreement|>bytes saved|{kinds}", cells)


def draw_positions(rows: Sequence[Row], look: Look) -> Any:
    """Mean least depth by position, a line for each order and kind."""
    figure, axes = new_axes(look, (8.2, 4.2), (3.7, 4.2))
    lines = [(row, kind) for row in rows for kind in row["kinds"]]
    for place, (row, kind) in enumerate(lines):
        colour = look.series[place % len(look.series)]
        _line(axes, kind["per_step"], "least", f"{label(row)}, {kind['kind']}", colour, place)
    axes.set_ylabel("least depth that agrees", color=look.ink)
    return _finished(figure, axes, look)


def draw_surprise(named: Mapping[str, Row], look: Look) -> Any:
    """NLL and entropy of full depth by position, a pair of lines for each set of prompts."""
    figure, axes = new_axes(look, (8.2, 4.2), (3.7, 4.2))
    for place, (name, row) in enumerate(named.items()):
        for value, style in (("nll", "-"), ("entropy", "--")):
            words = f"{name}, {value.upper() if value == 'nll' else value}".removeprefix(", ")
            _line(axes, row["per_step"], value, words, look.series[place % len(look.series)], place, style)
    axes.set_ylabel("nats", color=look.ink)
    return _finished(figure, axes, look)


def _line(axes: Any, ranges: Sequence[Row], name: str, words: str, colour: str, place: int, style: str = "-") -> None:
    shown = [found for found in ranges if found[name]["low"] is not None]
    # A range stands at the middle of its doubling; lines are moved a little, or their bars hide each other.
    xs = [((found["first"] * found["last"]) ** 0.5) * 1.02 ** (place - 1) for found in shown]
    ys = [found[name]["mean"] for found in shown]
    bars = [[y - found[name]["low"] for y, found in zip(ys, shown, strict=True)],
            [found[name]["high"] - y for y, found in zip(ys, shown, strict=True)]]  # fmt: skip
    axes.errorbar(
        xs, ys, yerr=bars, color=colour, linestyle=style, marker=_MARKS[place % len(_MARKS)], label=words,
        markersize=4, elinewidth=0.8, linewidth=1.6,
    )  # fmt: skip


def _finished(figure: Any, axes: Any, look: Look) -> Any:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("step of the answer", color=look.ink)
    figure.legend(
        loc="outside lower center", ncols=1 if look.narrow else 2, frameon=False, labelcolor=look.ink, fontsize=8
    )
    return figure


def pictures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Name, words and drawing of the pictures."""
    if not rows:
        return []
    shared = {"note": "Bars are 95% intervals over prompts. Ranges of steps double."}
    return [
        {
            "name": "oracle-positions",
            "title": "Least depth by position",
            "alt": "Mean least depth by position for every order and kind; the table Position holds the numbers.",
            "draw": draw_positions,
            "arguments": (rows,),
            **shared,
        },
        {
            "name": "oracle-surprise",
            "title": "How sure full depth is, by position",
            "alt": "NLL and entropy of full depth by position; the table Position holds the numbers.",
            "draw": draw_surprise,
            "arguments": ({"": rows[0]},),
            **shared,
        },
    ]


def oracle_page(rows: Sequence[Row], maps: Sequence[Row], context: Mapping[str, Any]) -> str:
    """The page as text.

    Parameters
    ----------
    rows, maps : sequence of mapping
        As from :meth:`depthsched.oracle.OracleResult.to_json` and :func:`depthsched.oracle.oracle_maps`.
    context : mapping
        ``model`` and ``versions``.
    """
    from ..display.escape import visible_in
    from .html import page

    rows = visible_in(rows)
    about = f"The oracle on {rows[0]['prompts']} prompts and {rows[0]['tokens']} decode steps"
    data = {
        "models": [context["model"]],
        "versions": context["versions"],
        "about": about,
        "command": "depthsched oracle --html",
        "maps": list(maps),
        "failed": [],
        "missing": [],
    }
    return page(data, pictures(rows), [oracle_table(rows), position_table(rows), beside_table(rows)])
