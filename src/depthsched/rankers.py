"""The built-in rankers. What they do is in :mod:`.calibrate.rank`, which is imported when one runs: it needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .errors import SettingsError
from .hookspecs import hookimpl
from .ranker import LayerRanker
from .settings import setting

if TYPE_CHECKING:
    from .calibrate.study import Study


@dataclass(frozen=True)
class Block(LayerRanker):
    """One contiguous block that grows upwards: the block whose change a bridge explains best.

    Every place of a block of a third of the layers is screened by the share of its change that a bridge, fitted on
    some prompts, cannot explain on others; the best three are judged by KL with their bridges.

    Attributes
    ----------
    start : int
        The block's first layer; 0: searched.
    """

    start: int = setting(0, low=0, high=10**6, help="first layer of the block; 0: searched")

    def rank(self, study: Study) -> Sequence[int]:
        from .calibrate.rank import choose_block, grow_block

        if self.start and self.start not in study.droppable:
            raise SettingsError(f"{self.spec()}: a block starts in 1 to {study.num_layers - 2}")
        start = self.start
        if not start:
            start, study.evidence["blocks"] = choose_block(study)
        return grow_block(start, study.drops, study.num_layers)


@dataclass(frozen=True)
class Ranked(LayerRanker):
    """One layer after another, each the one whose loss adds least to KL given what is already dropped.

    The layers of the most block influence (ShortGPT, https://arxiv.org/abs/2403.03853) are not tried.
    """

    name: ClassVar[str] = "ranked"

    def rank(self, study: Study) -> Sequence[int]:
        from .calibrate.rank import rank_greedily

        return rank_greedily(study)


@dataclass(frozen=True)
class Listed(LayerRanker):
    """An order of your own, to fit bridges for: ``list:layers=11+12+5+6``, first dropped first."""

    name: ClassVar[str] = "list"

    layers: tuple[int, ...] = setting(low=1, high=10**6, help="layers joined by +, first dropped first")

    def rank(self, study: Study) -> Sequence[int]:
        return self.layers


@hookimpl
def register_rankers(register: Callable[[type[LayerRanker]], None]) -> None:
    """Offer the built-in rankers."""
    for ranker in (Block, Ranked, Listed):
        register(ranker)
