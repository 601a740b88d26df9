"""``depthsched show``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..budget import schedule_for_budget
from ..plans import DepthPlan
from ..planspec import PlanSpec, PlanText
from ..text import ranges
from .output import PLAN_SYNTAX, JsonOption, OrderOption, ProfileOption, console, print_json, table

_LAYERS = 32


def add_to(app: typer.Typer) -> None:
    app.command("show")(show)


def show(
    schedule: Annotated[str, typer.Argument(help=f"{PLAN_SYNTAX}, such as d3:alpha=0.995,start=32@early-exit.")],
    layers: Annotated[
        int | None, typer.Option("--layers", "-l", help="Decoder layers of the model; default the profile's, or 32.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", help="Tokens to resolve, the first one included.")] = 256,
    order: OrderOption = None,
    profile: ProfileOption = None,
    mean_depth: Annotated[
        float | None, typer.Option("--mean-depth", help="Solve the schedule's budget setting for this mean depth.")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Write the depth curve to this PNG file.")] = None,
    json: JsonOption = False,
) -> None:
    """Which layers a schedule runs at each token, and what that saves on paper."""
    spec = PlanSpec.parse(schedule, order, profile)
    if layers is None:
        layers = spec.profile.num_layers if spec.profile else _LAYERS
    if mean_depth is not None:
        family = PlanText.of(schedule).schedule
        idea = schedule_for_budget(family, mean_depth, num_layers=layers, horizon=tokens, order=spec.order)
        spec = replace(spec, schedule=idea)
    resolved = spec.resolve(layers, tokens)
    if png is not None:
        from ..report.curve import save_curve

        save_curve(resolved, png)
    if json:
        print_json(summary(resolved))
    else:
        _print(resolved)


def summary(resolved: DepthPlan) -> dict[str, Any]:
    """The plan and what it promises."""
    return {
        **resolved.to_json(),
        "mean_depth": resolved.mean_depth,
        "layer_speedup": resolved.layer_speedup,
        "nested": resolved.nested,
        "monotone": resolved.monotone,
        "digest": resolved.digest,
    }


def _print(resolved: DepthPlan) -> None:
    out = console()
    out.print(f"[bold]{resolved.schedule}[/] @ {resolved.order}")
    out.print(
        f"{resolved.num_layers:>4} {resolved.to_text(max(out.width - 12, 16))} {resolved.depths[-1]}", style="cyan"
    )
    out.print(
        f"mean depth {resolved.mean_depth:.2f} of {resolved.num_layers} over {resolved.horizon} tokens, "
        f"{resolved.layer_speedup:.2f}x fewer layers, {'nested' if resolved.nested else 'not nested (writes K and V)'}"
    )
    for note in resolved.notes:
        out.print(note, style="yellow")
    rows = table(">from step", ">depth", "layers left out")
    before = None
    for step, depth in enumerate(resolved.depths):
        if depth != before:
            left_out = set(range(resolved.num_layers)) - set(resolved.keep_sets[depth])
            rows.add_row(str(step), str(depth), ranges(sorted(left_out)) or "none")
        before = depth
    out.print(rows)
