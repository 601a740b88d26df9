"""Diagrams of the documentation, drawn by ``python docs/make_assets.py``: small grids of layers and steps.

Layers go up and steps go right, as in every picture here. What runs comes from real plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle

import depthsched as ds

Look = Mapping[str, str]
LAYERS = 8
ORDERS = {"middle-out": "middle-out:head=2,tail=2", "early-exit": "early-exit", "strided": "strided"}


def order(look: Look) -> Any:
    """Three orders at the depths 8 to 3: which layers are left out first."""
    figure, panels = plt.subplots(1, 3, figsize=(7.6, 2.9), layout="constrained")
    for axes, (name, spec) in zip(panels, ORDERS.items(), strict=True):
        depths = range(LAYERS, 3, -1)
        for column, depth in enumerate(depths):
            keep = ds.plan(f"constant:depth={depth}", order=spec, num_layers=LAYERS, horizon=4).keep(1)
            for layer in range(LAYERS):
                _cell(axes, column, layer, look["ran"] if layer in keep else look["skipped"])
        _frame(axes, look, len(depths), LAYERS)
        axes.set_title(name, color=look["ink"], fontsize=10)
        axes.set_xticks([column + 0.5 for column in range(len(depths))], [str(depth) for depth in depths])
        axes.set_xlabel("depth", color=look["ink"])
    panels[0].set_ylabel("layer", color=look["ink"])
    return figure


def staircase(look: Look) -> Any:
    """One pass for each depth of a plan over the whole answer, in place of one pass for each token."""
    plan = ds.plan("linear:end=4,over=7", num_layers=LAYERS, horizon=8)
    figure, axes = plt.subplots(figsize=(7.6, 3.1), layout="constrained")
    for step, depth in enumerate(plan.depths):
        for layer in range(LAYERS):
            _cell(axes, step, layer, look["ran"] if layer in plan.keep(step) else look["skipped"])
        axes.text(step + 0.5, LAYERS + 0.25, str(depth), color=look["ink"], ha="center", fontsize=9)
    for layer in range(LAYERS):
        last = max(step for step in range(len(plan.depths)) if layer in plan.keep(step))
        _arrow(axes, (0.12, layer + 0.5), (last + 0.9, layer + 0.5), look["arrow"])
    _frame(axes, look, len(plan.depths), LAYERS)
    axes.set_ylim(-0.1, LAYERS + 0.9)
    axes.set_xlabel("position of the answer; above it, its depth", color=look["ink"])
    axes.set_ylabel("layer, each run once", color=look["ink"])
    return figure


def bridge(look: Look) -> Any:
    """A run of skipped layers, and the map that stands in for what they would have added."""
    keep = ds.plan("constant:depth=5", order="middle-out:head=2,tail=2", num_layers=LAYERS, horizon=4).keep(1)
    skipped = [layer for layer in range(LAYERS) if layer not in keep]
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 2.2), layout="constrained")
    for axes, bridged in zip(panels, (False, True), strict=True):
        for layer in range(LAYERS):
            _cell(axes, layer, 0, look["ran"] if layer in keep else look["skipped"], str(layer), look)
        start, end = skipped[0], skipped[-1] + 1
        if bridged:
            axes.add_patch(Rectangle((start + 0.2, 1.25), end - start - 0.4, 0.7, color=look["accent"], linewidth=0))
            axes.text((start + end) / 2, 1.6, "x + Ax + b", color=look["on"], ha="center", va="center", fontsize=9)
            _arrow(axes, (start - 0.4, 1.05), (start + 0.15, 1.5), look["ink"])
            _arrow(axes, (end - 0.15, 1.5), (end + 0.4, 1.05), look["ink"])
        else:
            _arrow(axes, (start - 0.4, 1.15), (end + 0.4, 1.15), look["ink"])
            axes.text((start + end) / 2, 1.35, "x", color=look["ink"], ha="center", fontsize=9)
        _frame(axes, look, LAYERS, 2.2)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title("with a bridge" if bridged else "plain skipping", color=look["ink"], fontsize=10)
    return figure


def holes(look: Look) -> Any:
    """Which K and V are in the cache: of a plan that falls, and of one that rises again."""
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 2.9), layout="constrained", sharey=True)
    titles = {"nested: the depth falls": (8, 8, 6, 6, 4, 4), "not nested: it rises again": (8, 5, 5, 5, 8, 8)}
    for axes, (title, depths) in zip(panels, titles.items(), strict=True):
        keeps = [
            ds.plan(f"constant:depth={d}", order="middle-out:head=2,tail=2", num_layers=LAYERS, horizon=2).keep(1)
            for d in depths
        ]
        for step, keep in enumerate(keeps):
            for layer in range(LAYERS):
                missed = layer not in keep and any(layer in later for later in keeps[step + 1 :])
                colour = look["ran"] if layer in keep else look["accent"] if missed else look["skipped"]
                _cell(axes, step, layer, colour)
        _frame(axes, look, len(depths), LAYERS)
        axes.set_title(title, color=look["ink"], fontsize=10)
        axes.set_xlabel("step", color=look["ink"])
    panels[0].set_ylabel("layer", color=look["ink"])
    panels[1].text(2.5, 3.5, "holes", color=look["on"], ha="center", va="center", fontsize=10, fontweight="bold")
    return figure


def verify(look: Look) -> Any:
    """A draft of three tokens at the plan's depth, and the one pass of full depth that checks it."""
    keep = ds.plan("constant:depth=5", order="middle-out:head=2,tail=2", num_layers=LAYERS, horizon=4).keep(1)
    figure, axes = plt.subplots(figsize=(7.6, 3.2), layout="constrained")
    for column, word in enumerate(("the", "cat", "sat")):
        for layer in range(LAYERS):
            _cell(axes, column, layer, look["ran"] if layer in keep else look["skipped"])
        axes.text(column + 0.5, LAYERS + 0.3, word, color=look["ink"], ha="center", fontsize=9)
    for column, word in enumerate(("the", "cat", "sat", "in")):
        for layer in range(LAYERS):
            _cell(axes, column + 5, layer, look["ran"])
        kept = "=" if column < 3 else "+"
        axes.text(column + 5.5, LAYERS + 0.3, f"{kept} {word}", color=look["ink"], ha="center", fontsize=9)
    _arrow(axes, (3.3, LAYERS / 2), (4.7, LAYERS / 2), look["ink"])
    axes.add_patch(Rectangle((4.93, -0.07), 4.1, LAYERS + 0.1, fill=False, edgecolor=look["accent"], linewidth=2))
    _frame(axes, look, 9.1, LAYERS)
    axes.set_ylim(-0.15, LAYERS + 1)
    axes.set_xticks([1.5, 7], ["three draft steps, one by one", "one pass at full depth, all rows at once"])
    axes.set_ylabel("layer", color=look["ink"])
    return figure


DIAGRAMS: dict[str, Callable[[Look], Any]] = {
    "order": order, "staircase": staircase, "bridge": bridge, "cache-holes": holes, "verify": verify,
}  # fmt: skip


def _cell(axes: Any, x: float, y: float, colour: str, text: str = "", look: Look | None = None) -> None:
    axes.add_patch(Rectangle((x + 0.06, y + 0.06), 0.88, 0.88, color=colour, linewidth=0))
    if look:
        ink = look["on"] if colour == look["ran"] else look["ink"]
        axes.text(x + 0.5, y + 0.5, text, color=ink, ha="center", va="center", fontsize=9)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="->", mutation_scale=10, color=colour, linewidth=1.2))


def _frame(axes: Any, look: Look, width: float, height: float) -> None:
    axes.set(xlim=(-0.1, width + 0.1), ylim=(-0.1, height + 0.1))
    for ticks, count in ((axes.set_xticks, width), (axes.set_yticks, height)):
        ticks([place + 0.5 for place in range(int(count))], [str(place) for place in range(int(count))])
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=look["ink"], length=0)
