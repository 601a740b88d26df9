"""A batch and bridges where a piece of a calibration is worked on: in this process, or on a worker of a cluster."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ..adapters import adapter_for
from ..bridge import Bridge
from ..files import json_digest
from ..score.answers import Sample
from ..work.pieces import Loaded
from .corpus import Batch
from .store import Scratch


def batch_of(loaded: Loaded, piece: Any) -> Batch:
    """The batch of a piece that :meth:`~depthsched.calibrate.corpus.Corpus.map` gives.

    A worker runs it at full depth when it gets it for the first time, and keeps that as long as it works on the same
    calibration.
    """
    if isinstance(piece, Batch):
        return piece
    shelf, key = _shelf(loaded.model, piece["study"]), json_digest([piece["first"], piece["samples"]], 32)
    if key not in shelf:
        samples = [Sample(tuple(prompt), tuple(completion)) for prompt, completion in piece["samples"]]
        shelf[key] = Batch(adapter_for(loaded.model), samples, Scratch(), piece["first"])
    for name, states in piece["kept"].items():
        shelf[key].put(name, states)
    return shelf[key]


@functools.lru_cache(maxsize=1)
def _shelf(model: Any, study: str) -> dict[str, Batch]:
    """Batches of one calibration; those of the last one go."""
    return {}


def rows_of(bridges: Mapping[int, Bridge] | None) -> list[Any]:
    """Bridges as JSON with tensors in it."""
    return [[layer, bridge.weight, bridge.bias] for layer, bridge in (bridges or {}).items()]


def bridges_of(rows: Sequence[Any]) -> dict[int, Bridge]:
    """What :func:`rows_of` was given."""
    return {layer: Bridge(weight, bias) for layer, weight, bias in rows}
