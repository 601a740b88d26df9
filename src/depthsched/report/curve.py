"""The depth curve of a plan as a PNG."""

from __future__ import annotations

from pathlib import Path

from ..files import write_figure
from ..plans import DepthPlan


def save_curve(plan: DepthPlan, path: Path | str) -> None:
    """Draw the depth of every step and the layers that run into a PNG file.

    Raises
    ------
    SettingsError
        The file cannot be written.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    runs = np.zeros((plan.num_layers, plan.horizon))
    for step in range(plan.horizon):
        runs[list(plan.keep(step)), step] = 1
    extent = (-0.5, plan.horizon - 0.5, -0.5, plan.num_layers - 0.5)
    axes.imshow(
        runs, origin="lower", aspect="auto", extent=extent, cmap="Blues", vmin=0, vmax=1.8, interpolation="none"
    )
    axes.step(range(plan.horizon), plan.depths, where="mid", color="#c2410c", linewidth=2, label="depth")
    axes.set_xlabel("step")
    axes.set_ylabel("layer (shaded: runs), depth (line)")
    axes.set_title(
        f"{plan.schedule} @ {plan.order}: mean depth {plan.mean_depth:.1f} of {plan.num_layers}", fontsize=10
    )
    axes.legend(loc="upper right")
    write_figure(Path(path), figure)
