"""What each depth costs in quality at each place of an answer, as a calibration measured it. Knows no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cost import Floats, ModelShape


@dataclass(frozen=True)
class DamageTable:
    """Mean KL against full depth by depth and position, and what the cost in bytes of those depths is based on.

    A value is the mean over held-out tokens of a range of decode steps, teacher-forced, where *every* step of the
    answer up to the token ran at the depth, in the profile's order with its bridges: what ``constant:depth=`` does
    there. So it holds the damage through the cache of a run that was as shallow all along. A schedule that falls was
    deeper before, and is expected to do a little less than the sum of these values; nothing proves it.

    Attributes
    ----------
    steps : tuple of int
        First decode step of each range, rising, and the first step after the last one.
    tokens : tuple of int
        Held-out tokens in each range.
    kl : mapping of int to tuple of float
        Depth below full -> mean KL(full || depth) of each range, in nats.
    prompts, prompt_tokens : int
        Held-out prompts, and their mean length, which the cost counts as context.
    shape : ModelShape
        Of the model that was calibrated, as it was loaded.
    """

    steps: tuple[int, ...]
    tokens: tuple[int, ...]
    kl: Mapping[int, tuple[float, ...]]
    prompts: int
    prompt_tokens: int
    shape: ModelShape

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths with a value, full depth among them, deepest first."""
        return (self.shape.num_layers, *sorted(self.kl, reverse=True))

    def at(self, depth: int, steps: Sequence[int] | np.ndarray[Any, Any]) -> Floats:
        """Damage of a depth at some decode steps; past the last range its value holds. 0 at full depth."""
        if depth == self.shape.num_layers:
            return np.zeros(len(steps))
        place = np.searchsorted(np.asarray(self.steps[1:-1]), np.asarray(steps), side="right")
        found: Floats = np.asarray(self.kl[depth], dtype=np.float64)[place]
        return found

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {**dataclasses.asdict(self), "kl": {str(depth): list(row) for depth, row in self.kl.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DamageTable:
        """Read a table back.

        Raises
        ------
        KeyError, TypeError, ValueError
            Not a whole table.
        """
        made = cls(
            steps=tuple(data["steps"]),
            tokens=tuple(data["tokens"]),
            kl={int(depth): tuple(row) for depth, row in data["kl"].items()},
            prompts=data["prompts"],
            prompt_tokens=data["prompt_tokens"],
            shape=ModelShape.from_json(data["shape"]),
        )
        if not made.tokens or {len(row) for row in made.kl.values()} | {len(made.steps) - 1} != {len(made.tokens)}:
            raise ValueError("the damage table has no value for some range of steps")
        return made


def step_ranges(counts: Sequence[int], most: int = 8) -> tuple[int, ...]:
    """The ranges of a table: boundaries between which about equally many tokens lie, so that late ones are not noise.

    Parameters
    ----------
    counts : sequence of int
        Decode steps of each answer; steps count from 1.
    most : int
        Ranges at most.
    """
    alive = np.bincount(np.minimum(counts, max(counts)))[::-1].cumsum()[::-1][1:]  # answers that reach each step
    seen = alive.cumsum() / alive.sum()
    inner = 1 + np.searchsorted(seen, np.arange(1, most) / most) + 1
    return tuple(sorted({1, *(int(step) for step in inner if step <= max(counts)), max(counts) + 1}))
