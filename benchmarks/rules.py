"""Adaptive schedules of the page on adaptive rules: one signal each, ``benchmarks/rules.py:Class:key=value``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import depthsched as ds
from depthsched.errors import SettingsError
from depthsched.signals import TEXT_CLASSES


@dataclass(frozen=True)
class Careful(ds.AdaptiveSchedule):
    """``depth`` layers, and all of them where :meth:`careful` says so."""

    layers: int = ds.setting(20, low=1, high=10**6, key="depth", help="layers to run elsewhere")

    def depth(self, step: Any, num_layers: int) -> Any:
        return self.layers

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        return num_layers if self.careful(signals) else self.layers

    def careful(self, signals: ds.Signals) -> bool:
        """Whether the next step runs every layer."""
        return False


@dataclass(frozen=True)
class ByClass(Careful):
    """All layers after a token of some classes."""

    needs: ClassVar[tuple[str, ...]] = ("token_class",)

    after: tuple[str, ...] = ds.setting(("digit",), help=f"joined by +, of {', '.join(TEXT_CLASSES)}")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.after:
            if name not in TEXT_CLASSES:
                raise SettingsError(f"schedule 'by-class': after={name} must be one of {', '.join(TEXT_CLASSES)}")

    def careful(self, signals: ds.Signals) -> bool:
        return signals.token_class in self.after


@dataclass(frozen=True)
class LessSure(Careful):
    """All layers after a token whose margin is below a share of the last tokens' mean: unsure for this text."""

    needs: ClassVar[tuple[str, ...]] = ("margin", "mean_margin")

    share: float = ds.setting(0.25, low=0, high=10, help="share of the mean margin")

    def careful(self, signals: ds.Signals) -> bool:
        return signals.margin < self.share * signals.mean_margin


@dataclass(frozen=True)
class Unsteady(Careful):
    """All layers while the last 16 tokens were unsure on average."""

    needs: ClassVar[tuple[str, ...]] = ("mean_entropy",)

    above: float = ds.setting(1.0, low=0, high=20, help="mean entropy in nats")

    def careful(self, signals: ds.Signals) -> bool:
        return signals.mean_entropy > self.above


@dataclass(frozen=True)
class Turned(Careful):
    """All layers after a step whose layers turned the state a lot."""

    needs: ClassVar[tuple[str, ...]] = ("cosine",)

    below: float = ds.setting(0.9, low=-1, high=1, help="mean cosine between the states before and after a layer")

    def careful(self, signals: ds.Signals) -> bool:
        return signals.cosine < self.below


@dataclass(frozen=True)
class Feedback(Careful):
    """All layers while too few of the last 16 checked tokens were full depth's; for runs that check."""

    needs: ClassVar[tuple[str, ...]] = ("agreement",)

    least: float = ds.setting(0.8, low=0, high=1, help="share of the checked tokens")

    def careful(self, signals: ds.Signals) -> bool:
        return signals.agreement is not None and signals.agreement < self.least
