"""The monotone depths of least total damage within a budget: a small dynamic program."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cost import Floats

UNITS = 8000
"""Parts in which costs that are no whole numbers are counted."""
Ints = np.ndarray[Any, np.dtype[np.int64]]


def least_damage(cost: Floats, damage: Floats, budget: float) -> list[int] | None:
    """Which choice each step takes, never a lower one than the step before it took.

    What is spent is what a step costs above its cheapest choice; the room is what the budget leaves for that. Exact
    where these are whole numbers and the room is at most :data:`UNITS`. Else they are rounded as they add up over the
    steps, to parts of one in :data:`UNITS` of the room, so that a stretch of one choice is off by less than a part
    however long it is. The answer is within the budget by the costs as given, and no sequence that leaves
    ``2 * choices`` parts of the room does less damage.

    Parameters
    ----------
    cost, damage : array
        Of each step and choice, ``[steps, choices]``; costs not negative. Damage adds up over the steps.
    budget : float
        Most cost of all steps.

    Returns
    -------
    list of int or None
        Of several with the least damage one of the least cost; None where nothing is within the budget.
    """
    steps, choices = cost.shape
    least = cost.min(axis=1)
    more, room = cost - least[:, None], budget - float(least.sum())
    room = min(room + 1e-12 * budget, float(more.max(axis=1).sum()))
    if room < 0:
        return None
    whole = room <= UNITS and bool((more == np.rint(more)).all())
    unit = 1.0 if whole else max(room, 1e-9 * float(more.max())) / UNITS
    added = np.rint(np.vstack([np.zeros(choices), more.cumsum(axis=0)]) / unit).astype(np.int64)
    parts = np.diff(added, axis=0)
    most = int(room) if whole else UNITS + choices
    best = np.full((choices, most + 1), np.inf)
    best[0, 0] = 0.0
    came = np.zeros((steps, choices, most + 1), dtype=np.int16)
    for step in range(steps):
        best = _one_step(best, parts[step], damage[step], came[step])
    return _first_within(best, came, parts, more, room)


def _one_step(best: Floats, parts: Ints, damage: Floats, came: Any) -> Floats:
    """Least damage by choice and parts spent, after one more step; notes which choice each came from."""
    after = np.full_like(best, np.inf)
    so_far, source = best[0].copy(), np.zeros(best.shape[1], dtype=np.int16)
    for choice, spent in enumerate(parts):
        if choice:
            better = best[choice] < so_far
            so_far[better], source[better] = best[choice][better], choice
        if spent < best.shape[1]:
            after[choice, spent:] = so_far[: best.shape[1] - spent] + damage[choice]
            came[choice, spent:] = source[: best.shape[1] - spent]
    return after


def _first_within(best: Floats, came: Any, parts: Ints, more: Floats, room: float) -> list[int] | None:
    """The sequence of least damage that the costs as given allow; rounded ones may be a little over."""
    ends = np.argwhere(np.isfinite(best))
    damages = best[ends[:, 0], ends[:, 1]]
    for at in np.lexsort((ends[:, 1], damages)):
        choice, spent = int(ends[at, 0]), int(ends[at, 1])
        taken = []
        for step in range(len(more) - 1, -1, -1):
            taken.append(choice)
            before = int(came[step, choice, spent])
            spent -= int(parts[step, choice])
            choice = before
        taken.reverse()
        if float(more[np.arange(len(more)), taken].sum()) <= room * (1 + 1e-12):
            return taken
    return None
