"""One run in a thread of its own: it writes into its trace, and whoever draws it looks there."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria

from ..errors import DepthschedWarning
from ..runtime.generate import generate

if TYPE_CHECKING:
    from ..plans import DepthPlan
    from ..runtime.run import Run
    from ..runtime.trace import Trace

GREEDY: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
"""As ``ds.generate`` takes it: every run of the studio is greedy, so that two of them can be compared."""


@dataclass(frozen=True)
class Opinion:
    """What full depth says after the same text.

    Attributes
    ----------
    token : int
        Its likeliest token, of probability ``sure``.
    sure, given : float
        ``given``: what it gives the token that the plan wrote.
    margin : float
        ``sure`` less the next token's.
    """

    token: int
    sure: float
    given: float
    margin: float


@dataclass
class Seen:
    """Probability and margin of every token as the run chose it, read from its logits; a logits processor."""

    found: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        first = scores[0].float()
        two = first.topk(2).values
        first_p, second_p = (two - first.logsumexp(-1)).exp().tolist()
        self.found.append((first_p, first_p - second_p))
        return scores


class Writing:
    """A greedy run of a plan.

    Parameters
    ----------
    model, inputs : model, mapping
    plan : DepthPlan
    options : mapping
        More of :func:`depthsched.generate`.

    Attributes
    ----------
    trace : Trace or None
        From its first step on, and growing.
    run : Run or None
        When it is done.
    error : Exception or None
        What ended it instead.
    warned : list of str
        Warnings of the run.
    """

    def __init__(self, model: Any, inputs: Any, plan: DepthPlan, options: Mapping[str, Any]) -> None:
        self.trace: Trace | None = None
        self.run: Run | None = None
        self.error: Exception | None = None
        self.warned: list[str] = []
        self.seen = Seen()
        self._stop, self._done = threading.Event(), threading.Event()
        given = {**GREEDY, **options, "streamer": self, "stopping_criteria": [_When(self._stop)]}
        if not given.get("lossless"):  # a lossless run asks its processors about drafts too
            given["logits_processor"] = [self.seen]
        self._thread = threading.Thread(target=self._write, args=(model, inputs, plan, given), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the next token; what is written stays."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it is done within so many seconds."""
        return self._done.wait(seconds)

    def follow(self, trace: Trace) -> None:
        self.trace = trace

    def put(self, value: Any) -> None:
        """A streamer's; the trace has the tokens."""

    def end(self) -> None:
        """A streamer's."""

    def _hear(self, message: Warning | str, *_: Any) -> None:
        self.warned.append(str(message))

    def _write(self, model: Any, inputs: Any, plan: DepthPlan, options: dict[str, Any]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", DepthschedWarning)
                warnings.showwarning = self._hear  # type: ignore[assignment]
                self.run = generate(model, inputs, plan, **options)
        except Exception as error:  # told to whoever waits
            self.error = error
        finally:
            self._done.set()


class _When(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, pressed: threading.Event) -> None:
        self.pressed = pressed

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.pressed.is_set(), device=input_ids.device)


@torch.no_grad()
def opinions(model: Any, run: Run) -> list[Opinion]:
    """Full depth's opinion on every token of a run, in one pass over its text."""
    ids = run.sequences[:1]
    logits = model(input_ids=ids, use_cache=False).logits[0, run.prompt_tokens - 1 : -1].float()
    chances = torch.softmax(logits, -1)
    two = chances.topk(2)
    given = chances.gather(-1, ids[0, run.prompt_tokens :, None])[:, 0]
    rows = zip(two.indices[:, 0].tolist(), two.values.tolist(), given.tolist(), strict=True)
    return [Opinion(token, first, chance, first - second) for token, (first, second), chance in rows]


def depths_of(trace: Trace) -> list[int]:
    """Depth of every token: of a lossless run that of the draft it was kept from, full depth for full depth's own."""
    if trace.rounds is None:
        return trace.depths
    found = [trace.plan.num_layers]
    for one in [*trace.rounds]:
        found += [one.depth] * one.accepted[0] + [trace.plan.num_layers]
    return found[: len(trace.steps)]


@dataclass
class Pieces:
    """The text that each token adds, token by token; empty where a character needs its next tokens."""

    tokenizer: Any
    found: list[str] = field(default_factory=list)
    _tokens: list[int] = field(default_factory=list)
    _begin: int = 0
    _read: int = 0

    def add(self, tokens: Sequence[int]) -> None:
        """Read more tokens."""
        for token in tokens:
            self._tokens.append(token)
            # From a few tokens back: the first token of a text loses its leading space in some tokenizers.
            before = self.tokenizer.decode(self._tokens[self._begin : self._read])
            now = self.tokenizer.decode(self._tokens[self._begin :])
            if now.endswith("�"):
                self.found.append("")
                continue
            self.found.append(now[len(before) :])
            self._begin, self._read = self._read, len(self._tokens)
