"""``depthsched eval --pool`` and ``--until``: what is asked, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import SettingsError
from .output import console

if TYPE_CHECKING:
    from ..evaluate.pooling import Pooled
    from ..evaluate.pools import Pool


def margin_of(pool: str | None, until: str | None, margin: float | None) -> float:
    """The margin as a share; what is asked must fit together.

    Raises
    ------
    SettingsError
    """
    if until not in (None, "decided"):
        raise SettingsError(f"--until {until!r}: the only word it knows is decided")
    if margin is not None and pool is None and until is None:
        raise SettingsError("--margin goes with --pool or --until decided; alone it changes nothing")
    points = 1.0 if margin is None else margin
    if not 0 < points < 100:
        raise SettingsError(f"--margin {points:g} must lie between 0 and 100 points")
    return points / 100


def refuse_unused(tasks: Sequence[str], until: Pool | None, needle_tokens: int | None) -> None:
    """Refuse what no task would see: tasks beside the pool of ``--until``, and a length where no texts are made.

    Raises
    ------
    SettingsError
    """
    from ..evaluate.layouts import layout_of

    beside = [task for task in tasks if until is not None and task not in until.metrics]
    if beside:
        raise SettingsError(f"--until runs the tasks of --pool alone; pool {', '.join(beside)} too, or leave it out")
    if needle_tokens is not None and not any((found := layout_of(task)) and found.synthetic for task in tasks):
        raise SettingsError("--needle-tokens is the length of texts that are made; none of the tasks makes any")


def print_pooled(found: Sequence[tuple[str, Pooled]], pool: Pool) -> None:
    """The pool, and for each plan the pooled difference and the answer."""
    out = console()
    weights = ", ".join(
        f"{t} {pool.metrics[t].replace(',', '/').removesuffix('/none')} {w:.3g}" for t, w in pool.weights.items()
    )
    out.print(f"pool, by weight: {weights}", soft_wrap=True, markup=False)
    for plan, one in found:
        spread = f"{100 * one.diff:+.2f} ({100 * one.low:+.2f} to {100 * one.high:+.2f})"
        out.print(f"{plan}: {spread} on {one.n} items; {one.verdict()}", soft_wrap=True, markup=False)
    if found and found[0][1].method == "betting":
        said = "Items were run until the answer: the pooled interval and bounds hold at all looks, "
        out.print(f"[dim]{said}intervals, p values and sentences of single tasks above do not.[/]", soft_wrap=True)
