"""Full depth: the reference every other schedule is compared with."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ..schedule import DepthSchedule


@dataclass(frozen=True)
class Full(DepthSchedule):
    """Every layer at every step."""

    starts_full: ClassVar[bool] = True

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers
