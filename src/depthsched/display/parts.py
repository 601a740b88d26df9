"""What the views are made of: a box, tables, text coloured by depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from .escape import show, tag

# Half transparent, so that both are readable on the light or dark ground of whatever page shows them.
_SHALLOW, _DEEP = (234, 88, 12, 0.45), (37, 99, 235, 0.14)
_BOX = "max-width:56em;overflow-x:auto;line-height:1.5"
_TEXT = (
    "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9;padding:0.5em 0.75em;margin:0.5em 0;"
    "border:1px solid rgba(128,128,128,0.4);border-radius:0.4em"
)
_SOFT = "opacity:0.8;font-size:0.9em"
_DIFFERS = "text-decoration:underline 2px #d9480f;text-underline-offset:3px;"
MOST_TOKENS = 1000
"""More tokens of one answer are left out of a page, which says so."""


def box(*children: object) -> str:
    """The whole of a view."""
    return str(tag("div", *(child for child in children if child != ""), class_="depthsched", style=_BOX))


def heading(text: str, more: str = "") -> Markup:
    """The first line: a spec, and what it is of."""
    return tag("p", tag("code", tag("bdi", text)), f" {more}" if more else "", style="margin:0.25em 0")


def note(text: str) -> Markup:
    """A line of small print."""
    return tag("p", text, style=f"{_SOFT};margin:0.25em 0")


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """A table of names and values."""
    lines = [
        tag("tr", tag("th", name, scope="row", style="text-align:left"), tag("td", value, style="text-align:left"))
        for name, value in rows
    ]
    return tag("table", tag("tbody", *lines))


def table(columns: str, rows: Iterable[Sequence[object]]) -> Markup:
    """A table: ``columns`` are separated by bars; those that start with ``>`` hold numbers."""
    names = [name.strip() for name in columns.split("|")]
    sides = [f"text-align:{'right' if name.startswith('>') else 'left'}" for name in names]
    head = tag("tr", *(tag("th", n.lstrip(">"), scope="col", style=side) for n, side in zip(names, sides, strict=True)))
    body = [tag("tr", *(tag("td", cell, style=side) for cell, side in zip(row, sides, strict=True))) for row in rows]
    return tag("table", tag("thead", head), tag("tbody", *body))


def colour(depth: int, least: int, full: int) -> str:
    """The ground of a token: orange for the least depth, blue for all layers."""
    share = (depth - least) / (full - least) if full > least else 1.0
    *rgb, alpha = (a + (b - a) * share for a, b in zip(_SHALLOW, _DEEP, strict=True))
    return f"rgba({','.join(f'{part:.0f}' for part in rgb)},{alpha:.2f})"


def coloured(
    pieces: Sequence[str], depths: Sequence[int], full: int, *, tips: Sequence[str] = (), differs: Sequence[bool] = ()
) -> Markup:
    """Text, token by token on the colour of its depth, with a tip for each.

    Parameters
    ----------
    pieces : sequence of str
        What each token adds to the text.
    depths : sequence of int
        Of at least as many steps.
    full : int
        Layers of the model.
    tips : sequence of str
        Further words for the tip of each token.
    differs : sequence of bool
        Tokens to underline.
    """
    least = min(depths, default=full)
    spans = []
    for place, (piece, depth) in enumerate(zip(pieces[:MOST_TOKENS], depths, strict=False)):
        tip = f"token {place}: {depth} of {full} layers" + (f"; {tips[place]}" if tips else "")
        line = _DIFFERS if differs and differs[place] else ""
        ground = f"background:{colour(depth, least, full)};border-radius:0.2em;{line}"
        spans.append(tag("span", show(piece or "·", lines=True), title=tip, style=ground))
    left = len(pieces) - len(spans)
    more = [tag("em", f" and {left} more tokens")] if left > 0 else []
    return tag("div", *spans, *more, style=_TEXT)


def legend(least: int, full: int, differs: bool = False) -> Markup:
    """What the colours of :func:`coloured` mean."""
    marks: list[Any] = []
    for depth in sorted({least, (least + full) // 2, full}):
        ground = f"background:{colour(depth, least, full)};padding:0 0.4em;border-radius:0.2em"
        marks += [tag("span", depth, style=ground), " "]
    words = tag("span", "underlined", style=_DIFFERS)
    more = ["; ", words, ": full depth would choose another token"] if differs else []
    return tag("p", "layers: ", *marks, *more, style=f"{_SOFT};margin:0.25em 0")
