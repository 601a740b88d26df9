"""Pictures of the page as SVG. Colours are those of the style sheet, so that a change of light redraws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ..plans import DepthPlan
from ..report.frontier import judged
from .escape import safe

_WIDE, _HIGH, _LEFT, _BELOW = 640.0, 190.0, 34.0, 22.0
_TOP, _RIGHT = 8.0, 8.0


def depth_curve(plan: DepthPlan) -> str:
    """The depth of every step of a plan."""
    across, up = _across(plan.horizon), _up(plan.num_layers)
    points = []
    for step, depth in enumerate(plan.depths):
        if step in (0, plan.horizon - 1) or depth != plan.depths[step - 1]:
            points.append(f"{across(step):.1f},{up(plan.depths[max(step - 1, 0)]):.1f}")
            points.append(f"{across(step):.1f},{up(depth):.1f}")
    line = (
        f'<polyline class="ds-line" points="{" ".join(points)} {across(plan.horizon):.1f},{up(plan.depths[-1]):.1f}"/>'
    )
    said = (
        f"Depth curve: from {plan.depths[0]} to {plan.depths[-1]} of {plan.num_layers} layers in {plan.horizon} steps"
    )
    return _svg("ds-curve", said, _frame(plan.horizon, plan.num_layers, "layers that run") + line)


def layer_map(plan: DepthPlan) -> str:
    """Which layers run at which step: a band for each layer and run of steps that leave it out."""
    across, up = _across(plan.horizon), _up(plan.num_layers)
    bands = [f'<rect class="ds-runs" x="{_LEFT}" y="{_TOP}" width="{_WIDE - _LEFT - _RIGHT}" '
             f'height="{_HIGH - _TOP - _BELOW}"/>']  # fmt: skip
    spans: list[tuple[int, int, int]] = []
    begin = 0
    for depth, steps in groupby(plan.depths):
        end = begin + len([*steps])
        spans.append((begin, end, depth))
        begin = end
    for begin, end, depth in spans:
        skipped = sorted({*range(plan.num_layers)} - {*plan.keep_sets[depth]})
        for first, last in _together(skipped):
            x, y = across(begin), up(last + 1)
            bands.append(
                f'<rect class="ds-skipped" x="{x:.1f}" y="{y:.1f}" width="{across(end) - x:.1f}" '
                f'height="{up(first) - y:.1f}"/>'
            )
    said = f"Layer map: {len(plan.drop_order)} of {plan.num_layers} layers may be left out, {plan.core_size} always run"
    return _svg("ds-map", said, "".join(bands) + _frame(plan.horizon, plan.num_layers, "layer"))


def frontier(points: Sequence[Mapping[str, Any]]) -> str:
    """Agreement against saving of runs; those that another run beats in both are hollow.

    Parameters
    ----------
    points : sequence of mapping
        ``number``, ``plan``, ``saving`` (at least 0) and ``agreement`` (0 to 1).
    """
    as_read = [
        {**point, "speed": {"kind": "bytes", "value": point["saving"]}, "quality": {"value": point["agreement"]}}
        for point in points
    ]
    low, high = min(1.0, *(p["saving"] for p in points)), max(1.25, *(p["saving"] for p in points))
    least = min(0.9, *(p["agreement"] for p in points))
    wide, tall = _WIDE - _LEFT - _RIGHT - 24, _HIGH - _TOP - _BELOW - 16
    marks = []
    for point in judged(as_read):
        x = _LEFT + 12 + wide * (point["saving"] - low) / (high - low)
        y = _TOP + 12 + tall * (1 - (point["agreement"] - least) / (1 - least))
        kind = "ds-beaten" if point["dominated"] else "ds-best"
        said = f"{point['number']}: {point['plan']}, {point['saving']:.2f}x, {point['agreement']:.0%}"
        marks.append(
            f'<g><title>{safe(said)}</title><circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
            f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{safe(point["number"])}</text></g>'
        )
    bottom = _HIGH - _BELOW
    ends = (
        f'<text x="{_LEFT + 12}" y="{_HIGH - 6}">{low:.2f}x</text>'
        f'<text x="{_WIDE - _RIGHT}" y="{_HIGH - 6}" text-anchor="end">{high:.2f}x fewer bytes</text>'
        f'<text x="0" y="{_TOP + 16}">100%</text><text x="0" y="{bottom - 4}">{least:.0%}</text>'
        f'<path class="ds-axis" d="M{_LEFT} {_TOP}V{bottom}H{_WIDE - _RIGHT}"/>'
    )
    return _svg("ds-frontier", f"Saving against agreement of {len(points)} runs", ends + "".join(marks))


def _together(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of every run of neighbours in rising numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [(first, last) for first, last in runs]


def _across(steps: int) -> Any:
    return lambda step: _LEFT + (_WIDE - _LEFT - _RIGHT) * step / max(steps, 1)


def _up(layers: int) -> Any:
    return lambda layer: _HIGH - _BELOW - (_HIGH - _BELOW - _TOP) * layer / layers


def _frame(steps: int, layers: int, what: str) -> str:
    bottom = _HIGH - _BELOW
    return (
        f'<path class="ds-axis" d="M{_LEFT} {_TOP}V{bottom}H{_WIDE - _RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{layers}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{_HIGH - 6}">{safe(what)}</text>'
        f'<text x="{_WIDE - _RIGHT}" y="{_HIGH - 6}" text-anchor="end">step {steps}</text>'
    )


def _svg(name: str, said: str, body: str) -> str:
    return (
        f'<svg class="ds-picture {name}" viewBox="0 0 {_WIDE:.0f} {_HIGH:.0f}" role="img" '
        f'aria-label="{safe(said)}">{body}</svg>'
    )
