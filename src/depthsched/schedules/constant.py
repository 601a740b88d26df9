"""Constant depth: the simplest baseline."""

from dataclasses import dataclass
from typing import Any

from ..schedule import DepthSchedule
from ..settings import setting


@dataclass(frozen=True)
class Constant(DepthSchedule):
    """``depth`` layers at every decode step (the prefill is always full)."""

    layers: int = setting(low=1, high=10**6, budget=True, key="depth", help="layers to run at every decode step")

    def depth(self, step: Any, num_layers: int) -> Any:
        return self.layers
