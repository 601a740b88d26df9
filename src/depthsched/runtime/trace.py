"""The record of a run: what ran at every step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import MissingExtraError
from ..plans import DepthPlan
from ..signals import Signals
from .renewal import Ran, Renewal
from .rounds import Round

ASKED = "asked for"
"""The reason of a backend that was named."""


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
        What an adaptive schedule saw before this step, in the row that determined its depth.
    renewed : int
        Earlier positions of each row that ran again in this step's pass, at full depth.
    tried : int
        Layers of a pass before it whose token was too unsure to keep; 0 where there was none.
    """

    step: int
    depth: int
    seconds: float
    tokens: tuple[int, ...] = ()
    signals: Signals | None = None
    renewed: int = 0
    tried: int = 0


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
    rounds : list of Round or None
        Of a lossless run: every draft with the pass that checked it. Its steps are the tokens, each full depth's.
    renewal : Renewal or None
        Of a run that renews its cache: by which rules, besides where the plan needs it.
    draft_tokens : str
        Of a lossless run: when it stopped drafting.
    decisions : list of str
        Of a lossless run: where it began to draft, at which depth, and where it stopped, with the reason.
    """

    plan: DepthPlan
    backend: str = "eager"
    reason: str = ""
    compile_seconds: float = 0.0
    steps: list[StepRecord] = field(default_factory=list)
    rounds: list[Round] | None = None
    renewal: Renewal | None = None
    draft_tokens: str = ""
    decisions: list[str] = field(default_factory=list)

    @property
    def fallback(self) -> str:
        """Why the run was eager although nobody asked for that; else an empty text."""
        return self.reason if self.backend == "eager" and self.reason != ASKED else ""

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
        """Mean depth of the decode steps; full depth when there is none. A pass over several positions counts once."""
        steps = len(self.steps) - 1
        return sum(depth for depth, _ in self.passes(1)) / steps if steps > 0 else float(self.plan.num_layers)

    def passes(self, batch: int) -> list[tuple[int, int]]:
        """Every pass of the decode steps: its depth, and its positions of all rows together.

        Parameters
        ----------
        batch : int
            Rows of a run that is not lossless; a lossless one knows how many went on.
        """
        if self.rounds is None:
            steps = self.steps[1:]
            tried = [(s.tried, batch) for s in steps if s.tried]
            return tried + [(s.depth, (1 + s.renewed) * batch) for s in steps]
        found = []
        for one in self.rounds:
            rows = len(one.accepted)
            found += [(one.depth, rows)] * one.drafted + [(self.plan.num_layers, rows * (one.drafted + 1))]
        return found

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
                **({"renewed": s.renewed, "tried": s.tried} if self.renewal else {}),
                **(s.signals.asdict() if s.signals else {}),
            }
            for s in self.steps
        ]

    def to_frame(self) -> Any:
        """The same as a pandas DataFrame, indexed by step.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingExtraError("to_frame needs pandas: pip install 'depthsched[frame]', or use to_rows") from None
        return pandas.DataFrame(self.to_rows()).set_index("step")


class Ledger:
    """Steps on their way into a trace. Reading tokens waits for the device, so several may be read at once."""

    def __init__(self, trace: Trace, began: float) -> None:
        self.trace, self.last = trace, began
        self.open: list[tuple[Ran, torch.Tensor, torch.Tensor, Signals | None]] = []

    def add(self, ran: Ran, tokens: torch.Tensor, running: torch.Tensor, signals: Signals | None) -> None:
        """A step whose tokens ``[batch]``, and whether any row goes on after it, still lie on the device."""
        self.open.append((ran, tokens, running, signals))

    def settle(self) -> bool:
        """Write what is open to the trace, up to the step with which the last row stopped; whether there is one.

        Each of these steps gets an equal share of the time they took together.
        """
        rows = torch.stack([tokens for _, tokens, _, _ in self.open]).tolist()
        running = torch.stack([some for _, _, some, _ in self.open]).tolist()
        now = time.perf_counter()
        seconds = (now - self.last) / len(self.open)
        self.last = now
        steps, self.open = self.open, []
        for (ran, _, _, signals), row, some in zip(steps, rows, running, strict=True):
            self.trace.steps.append(
                StepRecord(len(self.trace.steps), ran.depth, seconds, tuple(row), signals, ran.renewed, ran.tried)
            )
            if not some:
                return True
        return False


def renewed_in(trace: Trace) -> dict[str, int]:
    """What a run renewed: passes over several positions, the positions in them, and tokens checked at full depth."""
    passes = [s.renewed for s in trace.steps if s.renewed]
    return {"passes": len(passes), "positions": sum(passes), "checked": sum(1 for s in trace.steps if s.tried)}


def renewal_line(found: dict[str, int]) -> str:
    """The same for people."""
    checked = f", {found['checked']} unsure tokens checked" if found["checked"] else ""
    return f"{found['passes']} passes at full depth renewed {found['positions']} positions{checked}"
