"""What several experiments share: kinds of options, a model that does not stop early, and a look at every token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import typer

import depthsched as ds
from depthsched.bench import bench_inputs
from depthsched.errors import SettingsError
from depthsched.score import ScoreResult
from depthsched.score.result import interval

Count = Annotated[int, typer.Option(min=1)]
Tokens = Annotated[int, typer.Option(min=2, help="The first comes out of the prefill.")]


def numbers(name: str, text: str) -> list[int]:
    """Whole numbers separated by commas, or a SettingsError."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise SettingsError(f"{name} {text!r} must be whole numbers from 1, separated by commas, such as 24,20")
    return [int(part) for part in parts]


def load(model: str, dtype: str, device: str, batch: int = 1, weights: str = "dense") -> tuple[Any, dict[str, Any]]:
    """A model without an end token, so that every run has the same length, and the inputs of a comparison."""
    loaded, tokenizer = ds.load_model(model, dtype=dtype, device=device, weights=weights)
    loaded.generation_config.eos_token_id = None
    return loaded, bench_inputs(tokenizer, batch, loaded.device)


class Watch:
    """A streamer that keeps what a function says at the prompt, which comes first, and at every token."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self.look, self.seen = look, list[Any]()

    def put(self, tokens: Any) -> None:
        self.seen.append(self.look())

    def end(self) -> None:
        """Nothing is held back."""


def row_of(found: ScoreResult) -> dict[str, Any]:
    """A score as a row of a table."""
    return {
        "schedule": found.schedule,
        "mean_depth": found.mean_depth,
        "bytes_speedup": found.bytes_speedup,
        "kl": found.kl.to_json(),
        "agreement": found.agreement.to_json(),
    }


def beside(frontier: Sequence[ScoreResult], found: ScoreResult) -> dict[str, Any]:
    """What a frontier of schedules reaches at the bytes of a run, and the run's lead with an interval over prompts.

    Between the two schedules next to it, prompt by prompt, so that the lead is paired. Nothing outside of the frontier.

    Parameters
    ----------
    frontier, found : ScoreResult
        Of the same samples, so that their prompts come in the same order.
    """
    points = sorted(frontier, key=lambda one: one.bytes_speedup)
    places = [one.bytes_speedup for one in points]
    if not places or not places[0] <= found.bytes_speedup <= places[-1]:
        return {"there": None, "lead": None}
    counts = [prompt.tokens for prompt in found.per_prompt]
    there: dict[str, Any] = {}
    lead: dict[str, Any] = {}
    for name in ("agreement", "kl"):
        table = [[getattr(prompt, name) for prompt in one.per_prompt] for one in points]
        sums = [float(np.interp(found.bytes_speedup, places, column)) for column in zip(*table, strict=True)]
        own = [getattr(prompt, name) for prompt in found.per_prompt]
        there[name] = sum(sums) / sum(counts)
        lead[name] = interval([a - b for a, b in zip(own, sums, strict=True)], counts).to_json()
    return {"there": there, "lead": lead}
