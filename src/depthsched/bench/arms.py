"""Ways to decode, side by side: every round runs all of them once, so that what slows the machine hits all alike."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..plans import DepthPlan
from ..runtime.generate import generate
from ..runtime.run import Run
from ..stats import Interval
from .clock import StepClock, peak_bytes, reset_peak

BASELINE = "transformers"
_GREEDY = {"do_sample": False}

Timed = tuple[float, torch.Tensor, Run | None]
"""Seconds of decoding without the prefill, the new tokens ``[batch, tokens]`` on the CPU, and what ran."""


@dataclass
class Arm:
    """One thing that is compared, and what its runs showed.

    Attributes
    ----------
    name : str
    plan : DepthPlan
    backend : str
        As asked for; :data:`BASELINE` for transformers' own ``generate``.
    run : callable
        Decodes so many tokens.
    lossless : bool
    seconds : list of float
        Of each measured round, prefill left out.
    warmup, compiling : float
        Seconds of the first run, which is not measured; the second is part of the first.
    peak : int
        Most bytes held in a measured round.
    tokens : torch.Tensor
        Of the last run, ``[batch, tokens]``.
    record : Run or None
        Of the last run; None for transformers.
    """

    name: str
    plan: DepthPlan
    backend: str
    run: Callable[[int], Timed]
    lossless: bool = False
    seconds: list[float] = field(default_factory=list)
    warmup: float = 0.0
    compiling: float = 0.0
    peak: int = 0
    tokens: Any = None
    record: Run | None = None

    @classmethod
    def of_transformers(cls, model: Any, inputs: Mapping[str, torch.Tensor], plan: DepthPlan) -> Arm:
        """Transformers' own ``generate``; the plan is full depth's, and only its cost is read."""
        return cls("full", plan, BASELINE, functools.partial(_transformers, model, inputs))

    @classmethod
    def of_plan(
        cls,
        name: str,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        plan: DepthPlan,
        backend: str,
        *,
        tokenizer: Any = None,
        draft_tokens: int | str | None = None,
    ) -> Arm:
        """A plan on a backend; lossless where ``draft_tokens`` says how to draft."""
        options = {**_GREEDY, "tokenizer": tokenizer}
        if draft_tokens is not None:
            options |= {"lossless": True, "draft_tokens": draft_tokens}
        run = functools.partial(_ours, model, inputs, plan, backend, options)
        return cls(name, plan, backend, run, lossless=draft_tokens is not None)

    @property
    def title(self) -> str:
        return f"{self.name}, {self.backend}{', lossless' if self.lossless else ''}"


def _ours(model: Any, inputs: Any, plan: DepthPlan, backend: str, options: Any, tokens: int) -> Timed:
    run = generate(model, inputs, plan, backend=backend, max_new_tokens=tokens, **options)
    return run.decode_seconds, run.tokens, replace(run, cache=None)  # the next arm has the memory to itself


def _transformers(model: Any, inputs: Any, tokens: int) -> Timed:
    clock = StepClock()
    output = type(model).generate(model, **inputs, logits_processor=[clock], max_new_tokens=tokens, **_GREEDY)
    return clock.decode_seconds, output[:, inputs["input_ids"].shape[1] :].cpu(), None


@contextmanager
def without_end(model: Any) -> Iterator[None]:
    """Every run has the same length: no end token, which is cheaper at every step than forbidding it."""
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = None
    try:
        yield
    finally:
        model.generation_config.eos_token_id = before


def measure(
    arms: Sequence[Arm],
    tokens: int,
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda _: None,
    *,
    warm_up: int | None = None,
) -> None:
    """Run every arm once to warm up, then all of them in rounds, and fill in what they showed.

    Parameters
    ----------
    arms : sequence of Arm
    tokens, repeats : int
        New tokens of each run, and measured rounds.
    device : torch.device
        Whose memory is looked at.
    progress : callable
        Told what runs before it starts.
    warm_up : int, optional
        Tokens of the first runs, ``tokens`` if left out.
    """
    for arm in arms:
        progress(f"warm-up: {arm.title}")
        began = time.perf_counter()
        _, arm.tokens, arm.record = arm.run(warm_up or tokens)
        arm.warmup = time.perf_counter() - began
        arm.compiling = arm.record.trace.compile_seconds if arm.record else 0.0
    for turn in range(repeats):
        # Back and forth, so that no arm always follows the same one.
        for arm in arms if turn % 2 == 0 else reversed(arms):
            progress(f"round {turn + 1} of {repeats}: {arm.title}")
            reset_peak(device)
            seconds, arm.tokens, arm.record = arm.run(tokens)
            arm.seconds.append(seconds)
            arm.peak = max(arm.peak, peak_bytes(device))


def paired(slow: Arm, fast: Arm) -> Interval:
    """How many times as long one arm takes as another, round by round."""
    return Interval.of(ratios(slow, fast))


def ratios(slow: Arm, fast: Arm) -> list[float]:
    """Seconds of one arm over those of another, round by round."""
    return [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]


def equal_share(one: torch.Tensor, other: torch.Tensor) -> float:
    """Share of tokens ``[batch, tokens]`` that are equal before each row's first difference."""
    return float((one == other).int().cumprod(dim=1).float().mean())
