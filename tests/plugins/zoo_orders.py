"""Layer orders that break one rule each, with the check that must say so and words of its message."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import depthsched as ds


@dataclass(frozen=True)
class OffByOne(ds.LayerOrder):
    """Names a layer past the last."""

    def rank(self, num_layers: int) -> Sequence[int]:
        return range(1, num_layers + 1)


@dataclass(frozen=True)
class Twice(ds.LayerOrder):
    """Names a layer twice on deep models."""

    def rank(self, num_layers: int) -> Sequence[int]:
        return [1, 2, 1] if num_layers > 100 else []


@dataclass(frozen=True)
class NeedsMany(ds.LayerOrder):
    """Fails on a model of one layer."""

    def rank(self, num_layers: int) -> Sequence[int]:
        return [list(range(1, num_layers))[0]]  # noqa: RUF015 (the mistake is meant)


@dataclass(frozen=True)
class Floats(ds.LayerOrder):
    """Layers that are no whole numbers."""

    def rank(self, num_layers: int) -> Any:
        return [num_layers / 2]


@dataclass(frozen=True)
class Shuffled(ds.LayerOrder):
    """Another ranking at every call."""

    def rank(self, num_layers: int) -> Sequence[int]:
        return random.sample(range(num_layers), num_layers)


@dataclass(frozen=True)
class NotNested(ds.LayerOrder):
    """Keeps the bottom layers at odd depths and the top ones at even depths."""

    def rank(self, num_layers: int) -> Sequence[int]:
        return range(num_layers)

    def keep(self, depth: int, num_layers: int) -> tuple[int, ...]:
        return tuple(range(depth)) if depth % 2 else tuple(range(num_layers - depth, num_layers))


@dataclass(frozen=True)
class NoModel(ds.LayerOrder):
    """Fits no model."""

    def rank(self, num_layers: int) -> Sequence[int]:
        raise ds.errors.SettingsError("order 'no-model': not this one")


WRONG_ORDERS: list[tuple[type[ds.LayerOrder], str, list[str]]] = [
    (OffByOne, "valid_layers", ["on 1 layers", "layer 1, expected 0 to 0"]),
    (Twice, "valid_layers", ["on 101 layers", "layer 1 twice"]),
    (NeedsMany, "valid_layers", ["on 1 layers", "IndexError"]),
    (Floats, "valid_layers", ["0.5", "return plain ints"]),
    (Shuffled, "deterministic", ["then", "no randomness"]),
    (NotNested, "nested", ["runs here but not at depth", "leave keep() as it is"]),
    (NoModel, "valid_layers", ["refuses every model"]),
]
