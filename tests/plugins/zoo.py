"""Schedules that break one rule each, with the check that must say so and words of its message."""

import math
import random
import zlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

import depthsched as ds


@dataclass(frozen=True)
class NotANumber(ds.DepthSchedule):
    """nan from step 100 on."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return np.where(np.asarray(step) < 100, num_layers, np.nan)


@dataclass(frozen=True)
class LateInfinity(ds.DepthSchedule):
    """Infinite, but only late."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - np.exp(np.asarray(step) / 1000.0)


@dataclass(frozen=True)
class Overflows(ds.DepthSchedule):
    """Overflows in plain Python."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return np.array([num_layers / 2.0 ** int(s) for s in np.atleast_1d(step)])


@dataclass(frozen=True)
class Text(ds.DepthSchedule):
    """A string."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return "all of them"


@dataclass(frozen=True)
class Nothing(ds.DepthSchedule):
    """Forgets the return."""

    def depth(self, step: Any, num_layers: int) -> Any:
        num_layers - step


@dataclass(frozen=True)
class WrongLength(ds.DepthSchedule):
    """One value too many."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return np.full(np.size(step) + 1, num_layers)


@dataclass(frozen=True)
class Rising(ds.DepthSchedule):
    """Deeper and deeper."""

    slope: float = 0.5

    def depth(self, step: Any, num_layers: int) -> Any:
        return 1 + self.slope * np.asarray(step)


@dataclass(frozen=True)
class NotFull(ds.DepthSchedule):
    """Declares a full start and has none."""

    starts_full: ClassVar[bool] = True

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - 1


@dataclass(frozen=True)
class Dice(ds.DepthSchedule):
    """A different depth at every call."""

    monotone: ClassVar[bool] = False

    def depth(self, step: Any, num_layers: int) -> Any:
        return random.uniform(1, num_layers) + 0 * np.asarray(step)


@dataclass(frozen=True)
class Mutates(ds.DepthSchedule):
    """Counts in the caller's array."""

    def depth(self, step: Any, num_layers: int) -> Any:
        step += 1
        return num_layers - step


@dataclass(frozen=True)
class Branches(ds.DepthSchedule):
    """An if on the step."""

    def depth(self, step: Any, num_layers: int) -> Any:
        if step > 3:
            return num_layers // 2
        return num_layers


@dataclass(frozen=True)
class TakesFirst(ds.DepthSchedule):
    """Looks at the first step of an array only."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - np.atleast_1d(step)[0]


@dataclass(frozen=True)
class WithMath(ds.DepthSchedule):
    """Functions of math, a minimum and a whole number."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers * math.pow(0.99, min(int(step), 50))


@dataclass(frozen=True)
class Table(ds.DepthSchedule):
    """Looks the step up, and swallows what is not there."""

    def depth(self, step: Any, num_layers: int) -> Any:
        try:
            return {0: num_layers, 1: num_layers - 1}[step]
        except Exception:
            return num_layers // 2


@dataclass(frozen=True)
class Hashes(ds.DepthSchedule):
    """One number for an array too, though not the number of its steps."""

    monotone: ClassVar[bool] = False

    def depth(self, step: Any, num_layers: int) -> Any:
        return 1 + zlib.crc32(str(step).encode()) % num_layers


@dataclass(frozen=True)
class Listed(ds.DepthSchedule):
    """A list of one, whatever is asked."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return [num_layers / 2]


@dataclass(frozen=True)
class BigInts(ds.DepthSchedule):
    """Whole numbers beyond 64 bits."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - 2 ** min(step, 5000) if step else num_layers


@dataclass(frozen=True)
class Counted(ds.DepthSchedule):
    """Of the right shape, and by the place in the array."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - np.arange(np.size(step)).reshape(np.shape(step))


@dataclass(frozen=True)
class ArraysOnly(ds.DepthSchedule):
    """Does not take an int."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - step.astype(float)


class Undecorated(ds.DepthSchedule):
    """No dataclass line."""

    share: float = 0.5

    def depth(self, step: Any, num_layers: int) -> Any:
        return self.share * num_layers


@dataclass(frozen=True)
class HoldsAList(ds.DepthSchedule):
    """A setting that can change."""

    at: list[int] = field(default_factory=lambda: [1, 2])

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers


@dataclass(frozen=True)
class Counts(ds.DepthSchedule):
    """Writes to its own settings."""

    calls: int = 0

    def depth(self, step: Any, num_layers: int) -> Any:
        object.__setattr__(self, "calls", self.calls + 1)
        return num_layers


@dataclass(frozen=True, eq=False)
class Unequal(ds.DepthSchedule):
    """Compares by identity."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers


@dataclass(frozen=True)
class Negative(ds.DepthSchedule):
    """Below zero from the start."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return -1.0 - np.asarray(step)


@dataclass(frozen=True)
class LosesMinDepth(ds.DepthSchedule):
    """Its for_horizon gives something else back."""

    def for_horizon(self, horizon: int) -> Any:
        return "a plan"

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers


@dataclass(frozen=True)
class OwnSpec(ds.DepthSchedule):
    """Prints a spec that nothing reads."""

    share: float = 0.5

    def spec(self) -> str:
        return f"own-spec:{self.share:.1f}"

    def depth(self, step: Any, num_layers: int) -> Any:
        return self.share * num_layers


@dataclass(frozen=True)
class BadName(ds.DepthSchedule):
    """A name that no spec can hold."""

    name: ClassVar[str] = "half@life"

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers


@dataclass(frozen=True)
class Silent(ds.DepthSchedule):
    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers


@dataclass(frozen=True)
class RefusesAll(ds.DepthSchedule):
    """Accepts no settings at all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        raise ds.errors.SettingsError("schedule 'refuses-all': never")

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers


@dataclass(frozen=True)
class Crashes(ds.DepthSchedule):
    """Fails on a setting that it declares fine."""

    every: int = ds.setting(1, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = "ab"[self.every]

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers


@dataclass(frozen=True)
class Undecided(ds.AdaptiveSchedule):
    """nan where the model is certain."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        return num_layers * np.log(signals.entropy)


@dataclass(frozen=True)
class Dividing(ds.AdaptiveSchedule):
    """Divides by a probability that can be zero."""

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        return num_layers / signals.top1


@dataclass(frozen=True)
class AsksForNothingKnown(ds.AdaptiveSchedule):
    """Asks for a signal that there is not."""

    needs: ClassVar[tuple[str, ...]] = ("margin", "confidence")

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        return num_layers


@dataclass(frozen=True)
class ReadsMore(ds.AdaptiveSchedule):
    """Reads a signal that it does not ask for."""

    needs: ClassVar[tuple[str, ...]] = ("agreement",)

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        return num_layers if signals.token_class == "digit" else 1


@dataclass(frozen=True)
class TrustsAgreement(ds.AdaptiveSchedule):
    """Forgets that nothing may have been checked."""

    needs: ClassVar[tuple[str, ...]] = ("agreement",)

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers

    def decide(self, step: int, num_layers: int, signals: ds.Signals) -> Any:
        return num_layers if signals.agreement < 0.5 else 1  # type: ignore[operator]


# class, the check that refuses it, words of the message
WRONG_SCHEDULES: list[tuple[type[ds.DepthSchedule], str, list[str]]] = [
    (NotANumber, "finite", ["step 100", "returned nan", "return a finite number"]),
    (LateInfinity, "finite", ["returned -inf", "10**6"]),
    (Overflows, "finite", ["overflows", "stays finite"]),
    (Text, "finite", ["'all of them'", "return a number"]),
    (Nothing, "finite", ["returned None", "return a number"]),
    (WrongLength, "one_value_per_step", ["shape", "single step 0", "return one depth per step"]),
    (Rising, "monotone", ["rising", "rises from 1 (step", "monotone = False"]),
    (NotFull, "starts_full", ["step 0", "expected 2", "starts_full = False"]),
    (Dice, "deterministic", ["then", "no randomness"]),
    (Mutates, "input_unchanged", ["step 0 became 1", "step = step + 1"]),
    (Counted, "scalar_equals_vectorised", ["single step", "in an array", "np.where instead of if"]),
    (ArraysOnly, "scalar_equals_vectorised", ["AttributeError", "in an array", "np.where instead of if"]),
    (Undecorated, "settings", ["zoo.py, line", "has settings (share)", "write @dataclass(frozen=True) above it"]),
    (HoldsAList, "frozen", ["cannot be hashed", "a tuple and not a list"]),
    (Counts, "frozen", ["changed the setting calls from 0 to 1"]),
    (Unequal, "frozen", ["remove eq=False"]),
    (Negative, "bounded", ["step 0", "returned -1.0", "at least 0"]),
    (LosesMinDepth, "bounded", ["for_horizon() returned 'a plan'"]),
    (OwnSpec, "spec_round_trip", ["'own-spec:0.5'", "cannot be read back"]),
    (BadName, "spec_round_trip", ["'half@life'", "name the schedule with letters"]),
    (Silent, "docstring", ["no docstring", "Silent"]),
    (RefusesAll, "settings", ["no settings were found"]),
    (Crashes, "settings", ["cannot be made from its settings", "IndexError"]),
    (Undecided, "adaptive", ["returned -inf", "Signals(entropy=0.0"]),
    (Dividing, "adaptive", ["ZeroDivisionError", "top1=0.0"]),
    (AsksForNothingKnown, "adaptive", ["needs a signal 'confidence'", "there are entropy"]),
    (ReadsMore, "adaptive", ["signals.token_class is read", "write needs = ('agreement', 'token_class')"]),
    (TrustsAgreement, "adaptive", ["TypeError", "agreement=None"]),
]

# Right, and written for one step: the check passes, and its note says what it costs.
ONE_STEP_SCHEDULES: list[type[ds.DepthSchedule]] = [Branches, TakesFirst, WithMath, Table, Hashes, Listed, BigInts]
