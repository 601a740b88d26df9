"""The parts of the page that are written as HTML. Every text goes through :func:`~depthsched.studio.escape.safe`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..depthplan import DepthPlan
from ..text import one_line
from .escape import safe
from .pictures import depth_curve, frontier, layer_map
from .session import Frame, Row
from .tokens import Column


def heading(name: str, layers: int, failures: Sequence[str]) -> str:
    """The head of the page: the model, and plug-ins that were not loaded."""
    lost = "".join(f'<p class="ds-error">plug-in {safe(one_line(text))}</p>' for text in failures)
    return f"<h1>depthsched studio</h1><p class='ds-soft'>{safe(name)}, {layers} layers. Greedy decoding.</p>{lost}"


def problem(error: BaseException) -> str:
    """An error as one line."""
    return f'<p class="ds-error" role="alert">{safe(one_line(error, 1000))}</p>'


def said(text: str) -> str:
    """What goes on, for eyes and for screen readers."""
    return f'<p class="ds-said" role="status">{safe(text)}</p>'


def note(text: str) -> str:
    """A remark in passing."""
    return f'<p class="ds-note">{safe(text)}</p>'


def preview(plan: DepthPlan) -> str:
    """A plan before it runs."""
    kind = "nested" if plan.nested else "not nested"
    facts = (
        f"mean depth {plan.mean_depth:.2f} of {plan.num_layers} over {plan.horizon} tokens, "
        f"{plan.layer_speedup:.2f}x fewer layers, {kind}"
    )
    if plan.adaptive:
        facts += "; depths are decided while it writes, and the curve is that of a sure model"
    notes = "".join(map(note, plan.notes))
    return f"{depth_curve(plan)}{layer_map(plan)}<p class='ds-facts'>{safe(facts)}</p>{notes}"


def text(title: str, column: Column | None) -> str:
    """One of the two texts with its scale of colours."""
    if column is None:
        return f"<h2>{safe(title)}</h2><div class='ds-tokens ds-empty'></div>"
    ends = f"<span>{column.least}</span><span class='ds-scale'></span>" if column.least < column.num_layers else ""
    scale = f"<p class='ds-legend'>{ends}<span>{column.num_layers} layers</span></p>"
    box = f"<div class='ds-tokens' role='group' aria-label='{safe(title)}'>{column.grow()}</div>"
    return f"<h2>{safe(title)}</h2>{scale}{box}"


_HEAD = ("run", "tokens", "depth", "layers", "bytes", "tokens/s", "delay p95", "agreement", "first difference")


def measured(frame: Frame) -> str:
    """What both runs measured, as a table, and which backends ran them."""
    if not frame.numbers:
        return ""
    rows = []
    for name, found in (("full depth", frame.numbers["full"]), ("plan", frame.numbers["plan"])):
        place = found.get("difference")
        rows.append(
            (
                name,
                found["tokens"],
                f"{found['depth']:.2f}",
                f"÷{found['layers']:.2f}",
                f"÷{found['bytes']:.2f}",
                f"{found['speed']:.1f}",
                f"{1000 * found['p95']:.1f} ms",
                f"{found['agreement']:.0%}" if "agreement" in found else "",
                "" if "agreement" not in found else "none" if place is None else f"token {place}",
            )
        )
    backends = [f"{name}: {frame.numbers[key]['backend']} ({frame.numbers[key]['reason']})"
                for name, key in (("full depth", "full"), ("plan", "plan"))]  # fmt: skip
    lines = [*backends, *frame.numbers["plan"]["said"]]
    return _table(_HEAD, rows) + "".join(f"<p class='ds-soft'>{safe(line)}</p>" for line in lines)


def history(rows: Sequence[Row]) -> str:
    """The runs of a visitor as a frontier and a table, the last one first."""
    if not rows:
        return "<p class='ds-soft'>No runs yet.</p>"
    points = [{"number": r.number, "plan": r.plan, "saving": r.saving, "agreement": r.agreement} for r in rows]
    shown = [
        (
            row.number,
            row.plan,
            f"÷{row.saving:.2f}",
            f"{row.agreement:.0%}",
            f"{row.speed:.1f}",
            "none" if row.difference is None else f"token {row.difference}",
        )
        for row in reversed(rows)
    ]
    return frontier(points) + _table(("", "plan", "bytes", "agreement", "tokens/s", "first difference"), shown)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th scope='col'>{safe(word)}</th>" for word in head)
    body = "".join(f"<tr>{_cells(head, row)}</tr>" for row in rows)
    return f"<table class='ds-table'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cells(head: Sequence[str], row: Sequence[Any]) -> str:
    pairs = zip(head, row, strict=True)
    return "".join(f"<td data-label='{safe(word)}'>{safe(cell)}</td>" for word, cell in pairs)
