"""A comparison as a picture."""

from __future__ import annotations

from pathlib import Path

from ..files import write_figure
from .results import BenchResult


def save_chart(result: BenchResult, path: Path) -> None:
    """Write tokens a second of every row, with their intervals, as a PNG file.

    Raises
    ------
    SettingsError
        The file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = result.rows[::-1]
    figure = Figure(figsize=(8, 0.4 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    middles = [row.tokens_per_second.median for row in rows]
    bounds = [row.tokens_per_second.bounds for row in rows]
    errors = [
        [max(m - low, 0) for m, (low, _) in zip(middles, bounds, strict=True)],
        [max(high - m, 0) for m, (_, high) in zip(middles, bounds, strict=True)],
    ]
    kinds = sorted({row.backend for row in rows})
    colours = [f"C{kinds.index(row.backend)}" for row in rows]
    names = [f"{row.plan}{', lossless' if row.drafts else ''} ({row.backend})" for row in rows]
    axes.barh(names, middles, xerr=errors, color=colours)
    axes.set_xlabel("tokens per second, median and 95% interval")
    axes.set_title(f"{result.context.get('model', '')}, {result.context['dtype']}, {result.context['machine']}")
    write_figure(path, figure)
