"""Piecewise constant depth."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from ..errors import SettingsError
from ..schedule import DepthSchedule
from ..settings import setting


@dataclass(frozen=True)
class Step(DepthSchedule):
    """Full depth at first; from step ``at[k]`` on, ``drop[k]`` layers are left out.

    ``step:at=32+64,drop=4+8`` runs L layers for 32 steps, L-4 until step 64 and L-8 after it.
    """

    starts_full: ClassVar[bool] = True

    at: tuple[int, ...] = setting((32, 64), low=1, high=10**9, help="steps where the depth falls, joined by +")
    drop: tuple[int, ...] = setting(
        (4, 8), low=0, high=10**6, help="layers left out from each of these steps on, joined by +"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.at) != len(self.drop):
            raise SettingsError(
                f"schedule 'step': at has {len(self.at)} values and drop {len(self.drop)}; give one drop for every at"
            )
        if any(a >= b for a, b in pairwise(self.at)):
            raise SettingsError("schedule 'step': the steps in at must rise, such as at=32+64")
        if any(a > b for a, b in pairwise(self.drop)):
            raise SettingsError("schedule 'step': drop counts all layers left out so far, so it must not fall")

    def depth(self, step: Any, num_layers: int) -> Any:
        drops = np.concatenate([[0], self.drop]).astype(np.int64)
        return num_layers - drops[np.searchsorted(np.asarray(self.at), step, side="right")]
