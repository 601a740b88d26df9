"""Back to full depth when the model is unsure: the signal of CALM (arXiv 2207.07061) on whole steps."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ..schedule import AdaptiveSchedule
from ..settings import setting
from ..signals import Signals


@dataclass(frozen=True)
class Confidence(AdaptiveSchedule):
    """``depth`` layers while the last token was sure, all of them after an unsure one.

    Sure means that the most likely token led the next by at least ``margin`` in probability, the
    softmax measure of CALM (https://arxiv.org/abs/2207.07061).
    """

    needs: ClassVar[tuple[str, ...]] = ("margin",)

    layers: int = setting(low=1, high=10**6, budget=True, key="depth", help="layers to run after a sure token")
    margin: float = setting(0.5, low=0, high=1, help="lead of the most likely token that counts as sure")

    def depth(self, step: Any, num_layers: int) -> Any:
        return self.layers

    def decide(self, step: int, num_layers: int, signals: Signals) -> Any:
        return self.layers if signals.margin >= self.margin else num_layers
