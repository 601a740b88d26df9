"""The pictures of a report, each for light and dark pages and for wide and narrow ones."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_FONT = {"svg.fonttype": "none", "svg.hashsalt": "depthsched", "font.family": "sans-serif", "font.size": 10}
_LINES = ("-", "--", ":", "-.")
_MOST_CURVES = 8


@dataclass(frozen=True)
class Look:
    """Colours and size of a picture."""

    ink: str
    faint: str
    series: tuple[str, ...]
    """Eight colours that stay apart for colour-blind readers."""
    narrow: bool = False


LIGHT = Look(
    "#1f2328", "#7b818b", ("#3f51b5", "#c2571a", "#14806b", "#9c3d8f", "#7a6a00", "#b3261e", "#00719c", "#555b66")
)
DARK = Look(
    "#e4e6eb", "#8a909d", ("#98a6ff", "#f59e64", "#4cc4a8", "#e08fd4", "#d6c34a", "#ff8a80", "#5cc0ea", "#b9bec9")
)


def new_axes(look: Look, wide: tuple[float, float], narrow: tuple[float, float]) -> tuple[Any, Any]:
    """An empty picture of one of two sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=narrow if look.narrow else wide, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=look.ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look.faint)
    axes.grid(color=look.faint, alpha=0.25, linewidth=0.6)
    return figure, axes


def draw_frontier(frontier: Mapping[str, Any], look: Look) -> Any:
    """Quality against speed-up. Dominated plans are faint; a speed on paper is a hollow mark."""
    figure, axes = new_axes(look, (8.2, 4.8), (3.7, 3.9))
    points = frontier["points"]
    for point in points:
        x, y = point["speed"]["value"], point["quality"]["value"]
        colour = look.faint if point["dominated"] else look.series[0]
        hollow = point["speed"]["kind"] == "theoretical"
        axes.errorbar(
            [x],
            [y],
            xerr=_bars(point["speed"]),
            yerr=_bars(point["quality"]),
            fmt="o",
            color=colour,
            markerfacecolor="none" if hollow else colour,
            elinewidth=0.8,
            alpha=0.75 if point["dominated"] else 1,
        )
    best = sorted((p for p in points if not p["dominated"]), key=lambda p: p["speed"]["value"])
    for kind in ("measured", "theoretical"):
        line = [p for p in best if p["speed"]["kind"] == kind]
        xs, ys = ([p[axis]["value"] for p in line] for axis in ("speed", "quality"))
        axes.plot(xs, ys, color=look.series[0], linewidth=1, alpha=0.5, drawstyle="steps-pre")
    kinds = {point["speed"]["kind"] for point in points}
    words = {"measured": "measured", "theoretical": "theoretical, by bytes"}
    speed = "; hollow: ".join(words[kind] for kind in ("measured", "theoretical") if kind in kinds)
    axes.set_xlabel(f"speed-up over full depth, {speed}", color=look.ink)
    axes.set_ylabel(frontier["quality"], color=look.ink)
    axes.margins(0.12)
    _name_points(axes, points, look)
    return figure


def _bars(value: Mapping[str, Any]) -> list[list[float]] | None:
    if value["low"] is None:
        return None
    return [[max(value["value"] - value["low"], 0)], [max(value["high"] - value["value"], 0)]]


# Where a name may stand beside its point, in points: off the bars first, then on them, then farther off.
_PLACES = (
    (7, 6),
    (-7, 6),
    (7, -14),
    (-7, -14),
    (7, -4),
    (-7, -4),
    (0, 7),
    (0, -15),
    (7, 18),
    (-7, 18),
    (7, -26),
    (-7, -26),
)

_LETTER, _LINE = 4.9, 10.0


def _name_points(axes: Any, points: Sequence[Mapping[str, Any]], look: Look) -> None:
    """Names beside the points, the frontier's first; a dominated one without room is in the table only."""
    figure = axes.figure
    figure.draw_without_rendering()  # settles the layout, so that places are known
    scale = 72 / figure.dpi
    right, top = figure.bbox.x1 * scale, axes.get_window_extent().y1 * scale + _LINE
    dots = [tuple(axes.transData.transform((p["speed"]["value"], p["quality"]["value"])) * scale) for p in points]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    for point, (x, y) in sorted(zip(points, dots, strict=True), key=lambda pair: pair[0]["dominated"]):
        text = str(point["number"]) if look.narrow else point["plan"]
        places = [(dx, dy, _box(x, y, dx, dy, len(text) * _LETTER)) for dx, dy in _PLACES]
        free = [
            place
            for place in places
            if place[2][0] > 0 and place[2][2] < right and place[2][3] < top
            if not any(_overlap(place[2], other) for other in taken)
        ]
        if not free and point["dominated"]:
            continue
        dx, dy, box = (free or places)[0]
        taken.append(box)
        axes.annotate(
            text,
            (point["speed"]["value"], point["quality"]["value"]),
            xytext=(dx, dy),
            textcoords="offset points",
            ha="left" if dx > 0 else "right" if dx < 0 else "center",
            fontsize=8,
            color=look.faint if point["dominated"] else look.ink,
            annotation_clip=False,
        ).set_in_layout(False)


def _box(x: float, y: float, dx: float, dy: float, width: float) -> tuple[float, float, float, float]:
    left = x + dx - (width if dx < 0 else width / 2 if dx == 0 else 0)
    return left, y + dy - 2, left + width, y + dy + _LINE - 2


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def draw_curves(plans: Sequence[Mapping[str, Any]], bold: Sequence[str], look: Look) -> Any:
    """Depth of every step. At most eight plans are named, those of the frontier first; the others are faint."""
    figure, axes = new_axes(look, (8.2, 4.4), (3.7, 4.4))
    shown = [plan for plan in plans if plan["depths"]]
    shown.sort(key=lambda plan: plan["label"] not in bold)  # stable: the order of the grid within both
    for place, plan in reversed(list(enumerate(shown))):
        named = place < _MOST_CURVES
        axes.step(
            range(len(plan["depths"])),
            plan["depths"],
            where="mid",
            color=look.series[place] if named else look.faint,
            linestyle=_LINES[place % len(_LINES)] if named else "-",
            linewidth=1.8 if named else 0.8,
            alpha=1 if named else 0.5,
            label=f"{plan['number']}" if look.narrow else f"{plan['number']}  {plan['label']}",
        )
    axes.set_ylim(0, max((plan["num_layers"] for plan in shown), default=1) * 1.04)
    axes.set_xlabel("step (generated token)", color=look.ink)
    axes.set_ylabel("layers that run", color=look.ink)
    handles, labels = axes.get_legend_handles_labels()
    count = min(len(shown), _MOST_CURVES)
    figure.legend(
        handles[::-1][:count],
        labels[::-1][:count],
        loc="outside lower center",
        ncols=4 if look.narrow else 2,
        frameon=False,
        labelcolor=look.ink,
        fontsize=8,
    )
    return figure


def draw_tasks(tasks: Sequence[Mapping[str, Any]], look: Look) -> Any:
    """The difference to full depth of every task and plan, with its interval."""
    rows = list(tasks)[::-1]
    height = (0.42 if look.narrow else 0.26) * len(rows) + 1.1
    figure, axes = new_axes(look, (8.2, height), (3.7, height))
    for place, row in enumerate(rows):
        sure = row["low"] > 0 or row["high"] < 0
        bars = [[row["diff"] - row["low"]], [row["high"] - row["diff"]]]
        axes.errorbar([row["diff"]], [place], xerr=bars, fmt="o", color=look.series[1 if sure else 0])
    axes.axvline(0, color=look.faint, linewidth=1)
    metrics = {task: {row["metric"] for row in rows if row["task"] == task} for task in {row["task"] for row in rows}}
    names = [f"{_task(row, len(metrics[row['task']]) > 1)}: {row['plan']}" for row in rows]
    if look.narrow:  # no room beside the bars: names stand above them
        for place, name in enumerate(names):
            axes.annotate(name, (0, place + 0.28), xycoords=("axes fraction", "data"), fontsize=8, color=look.ink)
        axes.set_yticks([])
        axes.set_ylim(-0.5, len(rows) - 0.2)
    else:
        axes.set_yticks(range(len(rows)), names)
    axes.set_xlabel("score less that of full depth, 95% interval", color=look.ink)
    return figure


def _task(row: Mapping[str, Any], several: bool) -> str:
    """The task, with the filter of its metric where it has several."""
    return f"{row['task']}, {row['metric'].rpartition(',')[2]}" if several else str(row["task"])


def to_svg(draw: Any, *arguments: Any) -> str:
    """What a drawing function draws, as SVG; the same text for the same data."""
    return _saved("svg", draw, arguments).decode()


def to_png(draw: Any, *arguments: Any) -> bytes:
    """The same as PNG, on white."""
    return _saved("png", draw, arguments)


def _saved(kind: str, draw: Any, arguments: tuple[Any, ...]) -> bytes:
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context(_FONT):
        figure = draw(*arguments)
        if kind == "png":
            figure.savefig(file, format="png", dpi=140, facecolor="white")
        else:
            figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
