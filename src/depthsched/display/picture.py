"""Inline SVG: the depth curve over a layer map, and points with intervals. Ink is the page's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from .escape import tag

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 40
_LINE, _FILL = "#e8590c", "rgba(76,110,245,0.35)"
MOST_COLUMNS = 240


@dataclass(frozen=True)
class Point:
    """A point of a chart; ``low`` and ``high`` are its interval, ``name`` its tip."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    name: str = ""


@dataclass(frozen=True)
class _Frame:
    """From values to places in the picture."""

    xs: tuple[float, float]
    ys: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.xs
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.ys
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)


def depth_picture(depths: Sequence[int], full: int, layers: Callable[[int], Collection[int]]) -> Markup:
    """The depth of every step as a line, over the layers that run.

    Parameters
    ----------
    depths : sequence of int
    full : int
        Layers of the model.
    layers : callable
        From a step to its layers.
    """
    frame = _Frame((-0.5, len(depths) - 0.5), (-0.5, full))
    path = [f"M{frame.x(-0.5):.1f} {frame.y(depths[0]):.1f}"]
    for step, depth in enumerate(depths):
        if step and depth != depths[step - 1]:
            path.append(f"V{frame.y(depth):.1f}")
        if step + 1 == len(depths) or depths[step + 1] != depth:
            path.append(f"H{frame.x(step + 0.5):.1f}")
    words = (
        f"Depth of {len(depths)} steps, from {depths[0]} to {depths[-1]} of {full} layers; the least is {min(depths)}."
    )
    return _svg(
        words,
        tag("path", d=_map(len(depths), full, layers, frame), fill=_FILL),
        tag("path", d="".join(path), fill="none", stroke=_LINE, stroke_width=2),
        *_axes(frame, "step; shaded: the layer runs", "depth", whole=True),
    )


def _map(steps: int, full: int, layers: Callable[[int], Collection[int]], frame: _Frame) -> str:
    """Rectangles of the steps in which a layer runs. Of many steps, one in each of :data:`MOST_COLUMNS` columns."""
    every = math.ceil(steps / MOST_COLUMNS)
    columns = [set(layers(step)) for step in range(0, steps, every)]
    parts = []
    for layer in range(full):
        at = 0
        for runs, group in groupby(layer in column for column in columns):
            end = at + len(list(group))
            if runs:
                left, right = frame.x(at * every - 0.5), frame.x(min(end * every, steps) - 0.5)
                parts.append(
                    f"M{left:.1f} {frame.y(layer + 0.4):.1f}H{right:.1f}V{frame.y(layer - 0.4):.1f}H{left:.1f}Z"
                )
            at = end
    return "".join(parts)


def chart(points: Sequence[Point], x: str, y: str, *, joined: bool = True, whole: bool = False) -> Markup:
    """Points with their intervals.

    Parameters
    ----------
    points : sequence of Point
        Those that are not finite are left out.
    x, y : str
        Names of the axes.
    joined : bool
        Whether a line joins them.
    whole : bool
        Whether x is a whole number.
    """
    shown = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    if not shown:
        return Markup("")
    ends = [end for p in shown for end in (p.y, p.low, p.high) if end is not None and math.isfinite(end)]
    frame = _Frame(_wider([p.x for p in shown]), _wider(ends))
    marks = []
    if joined:
        line = " ".join(f"{frame.x(p.x):.1f},{frame.y(p.y):.1f}" for p in shown)
        marks.append(tag("polyline", points=line, fill="none", stroke=_LINE, stroke_width=1.5))
    for p in shown:
        place = frame.x(p.x)
        if p.low is not None and p.high is not None:
            bar = f"M{place:.1f} {frame.y(p.low):.1f}V{frame.y(p.high):.1f}"
            marks.append(tag("path", d=bar, stroke=_LINE, stroke_width=1.5))
        words = [tag("title", p.name)] if p.name else []
        marks.append(tag("circle", *words, cx=f"{place:.1f}", cy=f"{frame.y(p.y):.1f}", r=4, fill=_LINE))
    return _svg(f"{y} by {x}, {len(shown)} points.", *marks, *_axes(frame, x, y, whole=whole))


def _wider(values: Sequence[float]) -> tuple[float, float]:
    """A range with some room at both ends."""
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _axes(frame: _Frame, x: str, y: str, *, whole: bool) -> Iterable[Markup]:
    bottom, left = HEIGHT - _BOTTOM, _LEFT
    yield tag("path", d=f"M{left} {_TOP}V{bottom}H{WIDTH - _RIGHT}", fill="none", stroke="currentColor", opacity=0.5)
    for value in _ticks(*frame.xs, whole=whole):
        yield _word(f"{value:.4g}", frame.x(value), bottom + 15, "middle")
    for value in _ticks(*frame.ys, whole=whole):
        yield _word(f"{value:.4g}", left - 6, frame.y(value) + 4, "end")
    yield _word(x, (left + WIDTH - _RIGHT) / 2, HEIGHT - 8, "middle")
    middle = (bottom + _TOP) / 2
    yield _word(y, 13, middle, "middle", transform=f"rotate(-90 13 {middle:.0f})")


def _word(text: str, x: float, y: float, anchor: str, **more: object) -> Markup:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text_anchor": anchor}
    return tag("text", text, font_size=12, fill="currentColor", **place, **more)


def _ticks(low: float, high: float, *, whole: bool) -> list[float]:
    """About five round numbers in a range."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]


def _svg(words: str, *children: Markup) -> Markup:
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=words,
        style=f"display:block;width:100%;max-width:{WIDTH}px;height:auto;font-family:inherit",
    )
