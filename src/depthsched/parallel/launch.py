"""What ``torchrun`` started: how many processes there are, and which of them this is. Knows no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from math import gcd

from ..errors import SettingsError

PATIENCE = "DEPTHSCHED_RANK_SECONDS"
"""Environment variable: seconds that a rank waits for the others inside a pass, 20 unless it says otherwise."""

_KEYS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether a launcher such as ``torchrun`` started this process."""
    return all(os.environ.get(key) for key in _KEYS)


def world() -> int:
    """Processes that were started together; 1 without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """Which of those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world())))


def patience() -> float:
    """Seconds of :data:`PATIENCE`.

    Raises
    ------
    SettingsError
        It is no number above 0.
    """
    said = os.environ.get(PATIENCE, "20")
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise SettingsError(f"{PATIENCE}={said!r} must be a number of seconds above 0")
    return seconds


def counts(heads: Sequence[int]) -> list[int]:
    """Numbers of ranks that divide all of these numbers of heads."""
    most = reduce(gcd, heads)
    return [n for n in range(1, most + 1) if most % n == 0]
