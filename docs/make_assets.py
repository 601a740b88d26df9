"""Draw the pictures of the documentation: ``python docs/make_assets.py``.

Each picture is drawn twice, for light and for dark pages. Everything in them comes from plans; no model runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from make_diagrams import DIAGRAMS
from matplotlib.colors import ListedColormap

import depthsched as ds
from depthsched.drafts import MOST, draft_speedup

ASSETS = Path(__file__).parent / "assets"
LAYERS, HORIZON, MEAN = 32, 256, 24
THEMES = {
    "light": {
        "ink": "#30343b", "faint": "#c9ccd3", "skipped": "#e4e6ec", "ran": "#3f51b5",
        "accent": "#c2571a", "arrow": "#c9d0f5", "on": "#ffffff",
    },
    "dark": {
        "ink": "#d5d8e0", "faint": "#4a4f5c", "skipped": "#343846", "ran": "#7f8fe8",
        "accent": "#f0965a", "arrow": "#2a3270", "on": "#14161c",
    },
}  # fmt: skip
# Four colours that stay apart for colour-blind readers, on white and on dark grey.
COLOURS = {
    "light": {"d3": "#3f51b5", "linear": "#c2571a", "step": "#14806b", "constant": "#8a8f99"},
    "dark": {"d3": "#8f9ff5", "linear": "#f0965a", "step": "#4cc4a8", "constant": "#a9aeb8"},
}


def plans() -> dict[str, ds.DepthPlan]:
    """Four schedules that run (nearly) the same number of layers over 256 tokens."""
    solved = {
        family: ds.schedule_for_budget(family, MEAN, num_layers=LAYERS, horizon=HORIZON)
        for family in ("d3", "linear", "constant")
    }
    schedules = {**solved, "step": "step:at=64+160,drop=8+13"}
    return {name: ds.plan(s, num_layers=LAYERS, horizon=HORIZON) for name, s in schedules.items()}


def depth_curves(theme: str) -> None:
    colours, ink = COLOURS[theme], THEMES[theme]["ink"]
    figure, axes = _figure(theme, (7.6, 3.5))
    heights = _apart({name: plan.depths[-1] for name, plan in plans().items()}, gap=2.6)
    for name, plan in plans().items():
        axes.plot(range(HORIZON), plan.depths, color=colours[name], linewidth=2, drawstyle="steps-post")
        axes.annotate(
            f"{name}  (mean {plan.mean_depth:.1f})",
            (HORIZON - 1, heights[name]),
            xytext=(8, 0),
            textcoords="offset points",
            color=colours[name],
            va="center",
            fontweight="bold",
        )
    axes.set(xlim=(0, HORIZON - 1), ylim=(0, LAYERS + 1), yticks=range(0, LAYERS + 1, 8))
    axes.set_xlabel("step (generated token)", color=ink)
    axes.set_ylabel(f"layers run, of {LAYERS}", color=ink)
    _save(figure, f"depth-curves-{theme}")


def layer_map(theme: str) -> None:
    """Which layers run at which step: d3, middle-out."""
    plan, look = plans()["d3"], THEMES[theme]
    ran = np.zeros((LAYERS, HORIZON))
    for step in range(HORIZON):
        ran[list(plan.keep(step)), step] = 1
    figure, axes = _figure(theme, (7.6, 3.3))
    axes.imshow(
        ran,
        cmap=ListedColormap([look["skipped"], look["ran"]]),
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(0, HORIZON, -0.5, LAYERS - 0.5),
    )
    core = LAYERS - len(plan.drop_order)
    for layer, text in ((0.5, "head core"), (LAYERS - 1.5, "tail core")):
        axes.annotate(text, (HORIZON, layer), xytext=(8, 0), textcoords="offset points", color=look["ink"], va="center")
    axes.annotate("skipped", (HORIZON * 0.8, LAYERS / 2), color=look["ink"], ha="center", va="center")
    axes.grid(visible=False)
    axes.set(yticks=[0, 8, 16, 24, LAYERS - 1])
    axes.set_xlabel("step (generated token)", color=look["ink"])
    axes.set_ylabel(f"layer ({core} core, {LAYERS - core} flex)", color=look["ink"])
    _save(figure, f"layer-map-{theme}")


def break_even(theme: str) -> None:
    """The best speed-up of a lossless run over the length of a draft, by acceptance and cost of a draft step."""
    colours, ink = list(COLOURS[theme].values()), THEMES[theme]["ink"]
    figure, axes = _figure(theme, (7.6, 3.5))
    shares = np.linspace(0.4, 1.0, 121)
    for colour, cost in zip(colours, (0.5, 0.62, 0.75, 0.9), strict=True):
        for verify, style in ((1.0, "-"), (1.3, ":")):
            best = [max(draft_speedup(a, d, cost, verify) for d in range(1, MOST + 1)) for a in shares]
            axes.plot(shares, best, style, color=colour, linewidth=2)
            if verify == 1.0:
                place = (1.0, best[-1])
        axes.annotate(
            f"draft step {cost:g}", place, xytext=(8, 0), textcoords="offset points", color=colour, va="center",
            fontweight="bold",
        )  # fmt: skip
    axes.axhline(1, color=ink, linewidth=1)
    axes.annotate("plain full depth", (0.405, 1.02), color=ink)
    axes.set(xlim=(0.4, 1.0), ylim=(0.6, 2.0))
    axes.set_xlabel("share of drafted tokens that full depth keeps", color=ink)
    axes.set_ylabel("speed-up at the best length", color=ink)
    _save(figure, f"break-even-{theme}")


def _apart(ends: dict[str, int], gap: float) -> dict[str, float]:
    """Heights for the labels at the end of the curves, moved down just enough not to overlap."""
    heights: dict[str, float] = {}
    ceiling = float("inf")
    for name, end in sorted(ends.items(), key=lambda item: -item[1]):
        ceiling = heights[name] = min(end, ceiling - gap)
    return heights


def _figure(theme: str, size: tuple[float, float]) -> tuple[Any, Any]:
    look = THEMES[theme]
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(look["faint"])
    axes.tick_params(colors=look["ink"], length=0)
    axes.grid(axis="y", color=look["faint"], linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Any, name: str) -> None:
    path = ASSETS / f"{name}.svg"
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    print(path.name)


def main() -> None:
    # A fixed salt and no date: the same plans draw the same bytes.
    plt.rcParams.update({"svg.hashsalt": "depthsched", "font.size": 10, "font.family": "DejaVu Sans"})
    for theme in THEMES:
        depth_curves(theme)
        layer_map(theme)
        break_even(theme)
        for name, draw in DIAGRAMS.items():
            _save(draw(THEMES[theme]), f"{name}-{theme}")


if __name__ == "__main__":
    main()
