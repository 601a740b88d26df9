"""Rankers that break one rule each, with the check that must say so and words of its message."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import depthsched as ds
from depthsched.calibrate import Study


@dataclass(frozen=True)
class FromTheTop(ds.LayerRanker):
    """Drops the last layer, which always runs."""

    def rank(self, study: Study) -> Sequence[int]:
        return range(study.num_layers - 1, 0, -1)


@dataclass(frozen=True)
class TooFew(ds.LayerRanker):
    """Ranks two layers, whatever is asked for."""

    def rank(self, study: Study) -> Sequence[int]:
        return [2, 3]


@dataclass(frozen=True)
class Again(ds.LayerRanker):
    """Names a layer twice."""

    def rank(self, study: Study) -> Sequence[int]:
        return [2, 3, 2, 4, 1]


@dataclass(frozen=True)
class Tensors(ds.LayerRanker):
    """Layers that are no whole numbers."""

    def rank(self, study: Study) -> Any:
        return torch.tensor([1, 2, 3, 4])


@dataclass(frozen=True)
class Fails(ds.LayerRanker):
    """Raises."""

    def rank(self, study: Study) -> Sequence[int]:
        raise KeyError("nothing here")


@dataclass(frozen=True)
class Drawn(ds.LayerRanker):
    """Another ranking at every call."""

    def rank(self, study: Study) -> Sequence[int]:
        return random.sample(study.droppable, len(study.droppable))


@dataclass(frozen=True)
class DrawnByTorch(ds.LayerRanker):
    """Draws from torch's global generator."""

    def rank(self, study: Study) -> Sequence[int]:
        return [1 + i for i in torch.randperm(study.num_layers - 2).tolist()]


@dataclass(frozen=True)
class LeavesAHook(ds.LayerRanker):
    """Leaves a hook on the model."""

    def rank(self, study: Study) -> Sequence[int]:
        study.adapter.layers[1].register_forward_hook(lambda module, args, output: None)
        return study.droppable


@dataclass(frozen=True)
class Trains(ds.LayerRanker):
    """Leaves the model in another mode."""

    def rank(self, study: Study) -> Sequence[int]:
        study.adapter.model.train()
        return study.droppable


WRONG_RANKERS: list[tuple[type[ds.LayerRanker], str, list[str]]] = [
    (FromTheTop, "valid_layers", ["returned layer 5", "layers 0 and 5 always run"]),
    (TooFew, "valid_layers", ["returned 2 layers", "asks for 4"]),
    (Again, "valid_layers", ["layer 2 twice"]),
    (Tensors, "valid_layers", ["tensor(1)", "return plain ints"]),
    (Fails, "valid_layers", ["rank() fails with KeyError: 'nothing here'"]),
    (Drawn, "deterministic", ["then", "draw from study.seed alone"]),
    (DrawnByTorch, "deterministic", ["draw from study.seed alone"]),
    (LeavesAHook, "model_unchanged", ["changed the hooks of the model"]),
    (Trains, "model_unchanged", ["changed the mode of the model"]),
]
