"""The record of a run: what ran at every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..plans import DepthPlan
from ..schedule import Signals


@dataclass(frozen=True)
class StepRecord:
    """One step of a run.

    Attributes
    ----------
    step : int
        Index of the token it produced; 0 is the prefill.
    depth : int
        Decoder layers that ran.
    seconds : float
        Host time of the step. On a GPU, where tokens are read several steps at a time, an equal share of the time
        of these steps.
    tokens : tuple of int
        The token of each row of the batch; empty where the caller's loop chose it.
    signals : Signals or None
        What an adaptive schedule saw before this step.
    """

    step: int
    depth: int
    seconds: float
    tokens: tuple[int, ...] = ()
    signals: Signals | None = None


@dataclass
class Trace:
    """The steps of one run, in order.

    Attributes
    ----------
    plan : DepthPlan
    backend : str
        What executed the steps, and in ``reason`` why it was this one.
    compile_seconds : float
        Spent on compiling before the run; not part of any step.
    steps : list of StepRecord
    """

    plan: DepthPlan
    backend: str = "eager"
    reason: str = ""
    compile_seconds: float = 0.0
    steps: list[StepRecord] = field(default_factory=list)

    @property
    def depths(self) -> list[int]:
        """Depth of every step, the prefill first."""
        return [s.depth for s in self.steps]

    @property
    def decode_depths(self) -> list[int]:
        """Depth of every decode step."""
        return self.depths[1:]

    @property
    def mean_depth(self) -> float:
        """Mean depth of the decode steps; full depth when there is none."""
        depths = self.decode_depths
        return sum(depths) / len(depths) if depths else float(self.plan.num_layers)

    def layers(self, step: int) -> tuple[int, ...]:
        """The layers that ran at a step."""
        return self.plan.keep_sets[self.steps[step].depth]

    def to_rows(self) -> list[dict[str, Any]]:
        """One JSON-ready object per step."""
        return [
            {
                "step": s.step,
                "depth": s.depth,
                "layers": list(self.plan.keep_sets[s.depth]),
                "seconds": s.seconds,
                "tokens": list(s.tokens),
                **(s.signals._asdict() if s.signals else {}),
            }
            for s in self.steps
        ]

    def to_frame(self) -> Any:
        """The same as a pandas DataFrame, indexed by step."""
        import pandas

        return pandas.DataFrame(self.to_rows()).set_index("step")
