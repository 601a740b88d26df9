"""What the page works on: a model, the runs of it one at a time, and what each visitor did."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..adapters import adapter_for
from ..encoding import encode, model_inputs
from ..errors import DepthschedError
from ..planspec import PlanSpec
from ..profile import Profile
from ..profiles import find_profile
from ..runtime.generate import generate
from .lines import Ask, complete
from .tokens import Column, first_difference, numbers
from .writing import GREEDY, Pieces, Writing, opinions

PERIOD = 0.08
"""Seconds between two looks at a run."""

_KEPT = 8
_VISITORS = 64


@dataclass(frozen=True)
class Row:
    """A finished run in the history of a visitor."""

    number: int
    plan: str
    saving: float
    agreement: float
    speed: float
    difference: int | None


@dataclass
class Visitor:
    """One open page.

    Attributes
    ----------
    history : list of Row
    stop : threading.Event
        Set by the cancel button for the run that was asked for last, also where that still waits.
    """

    history: list[Row] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    asked: int = 0


@dataclass(frozen=True)
class Frame:
    """The page at one moment of a run: what is said of it and the two columns as far as they are."""

    said: str
    full: Column | None = None
    plan: Column | None = None
    spec: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


class Studio:
    """A loaded model and its runs.

    Parameters
    ----------
    model, tokenizer
        As from :func:`depthsched.load_model`.
    name : str
        What the model was loaded as.
    profile : str
        The profile that the page begins with.
    force : bool
        Drive a model family that is unknown or refused.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, profile: str = "", *, force: bool = False) -> None:
        self.model, self.tokenizer, self.name, self.profile, self.force = model, tokenizer, name, profile, force
        self.layers: int = adapter_for(model, force=force).num_layers
        self.chat = bool(getattr(tokenizer, "chat_template", None))
        self._one_at_a_time = threading.Lock()
        self._full: OrderedDict[tuple[str, int], Column] = OrderedDict()
        self._warm: set[str] = set()
        self._profiles: dict[str, tuple[object, Profile]] = {}
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()
        self._now: Writing | None = None

    def visitor(self, key: str) -> Visitor:
        """What is known of an open page; the one not heard of for longest is forgotten where there are many."""
        found = self._visitors.setdefault(key, Visitor())
        self._visitors.move_to_end(key)
        while len(self._visitors) > _VISITORS:
            self._visitors.popitem(last=False)
        return found

    def parse(self, text: str) -> PlanSpec:
        """The plan of a text; profiles are read again when their files change.

        Raises
        ------
        DepthschedError
        """
        return PlanSpec.parse(text, load=self._load)

    def _load(self, place: str | Path) -> Profile:
        folder = Path(place).expanduser()
        try:
            state: object = [(f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in sorted(folder.iterdir())]
        except OSError:  # no folder: a name, or a profile of the hub, which is asked once
            state = None
        kept = self._profiles.get(str(place))
        if kept is None or kept[0] != state:
            kept = self._profiles[str(place)] = (state, find_profile(place))
        return kept[1]

    def warm_up(self) -> None:
        """Let first calls allocate and choose kernels before anybody waits for them."""
        with self._one_at_a_time:
            inputs = model_inputs([encode(self.tokenizer, "Hello")], self.model.device)
            self._prepare(inputs, PlanSpec.parse("full").resolve(self.layers, 64), {"max_new_tokens": 64})

    def close(self) -> None:
        """Stop what runs."""
        if self._now is not None:
            self._now.stop()

    def write(self, ask: Ask, visitor: Visitor) -> Iterator[Frame]:
        """Full depth and the plan, one after the other, as frames while they write.

        The text of full depth is kept: another plan on the same prompt begins at once. Whoever leaves the iterator
        stops the run.

        Raises
        ------
        DepthschedError
            Before the first frame where the plan or a setting is wrong.
        """
        ask.check()
        spec = self.parse(ask.plan)
        plan = spec.resolve(self.layers, ask.tokens)
        if plan.profile is not None:
            plan.profile.check_model(self.model)
        stop = visitor.stop
        yield Frame("waiting for the model")
        with self._one_at_a_time:
            inputs = model_inputs([encode(self.tokenizer, ask.prompt)], self.model.device)
            full = None
            for full in self._full_depth(ask, inputs, stop):
                yield Frame("full depth writes", full)
            if full is None or stop.is_set():
                yield Frame("cancelled; what was written stays", full, spec=complete(spec))
                return
            column = None
            for column in self._run(inputs, plan, ask.options(), stop, min(plan.depths)):
                yield Frame("the plan writes", full, column, complete(spec))
            if column is None or column.writing.run is None:
                yield Frame("cancelled; what was written stays", full, spec=complete(spec))
                return
            yield Frame("full depth reads the plan's text", full, column, complete(spec))
            column.judge(opinions(self.model, column.writing.run))
        yield self._finished(ask, complete(spec), full, column, visitor)

    def _finished(self, ask: Ask, spec: str, full: Column, column: Column, visitor: Visitor) -> Frame:
        found = numbers(column)
        place = first_difference(full.tokens, column.tokens)
        said = "cancelled; what was written stays" if column.writing.stopped else "done"
        if not column.writing.stopped:
            shown = spec + (", lossless" if ask.lossless else "") + (f", gate {ask.verify_below:g}" * ask.gated)
            visitor.asked += 1
            row = Row(visitor.asked, shown, found["bytes"], column.agreement, found["speed"], place)
            visitor.history.append(row)
        measured = {"full": numbers(full), "plan": {**found, "agreement": column.agreement, "difference": place}}
        return Frame(said, full, column, spec, measured)

    def _full_depth(self, ask: Ask, inputs: Any, stop: threading.Event) -> Iterator[Column]:
        key = (ask.prompt, ask.tokens)
        if key in self._full:
            self._full.move_to_end(key)
            yield self._full[key]
            return
        plan = PlanSpec.parse("full").resolve(self.layers, ask.tokens)
        column = None
        for column in self._run(inputs, plan, {"max_new_tokens": ask.tokens}, stop, self.layers):
            yield column
        if column is None or column.writing.run is None or stop.is_set():
            return
        column.judge(opinions(self.model, column.writing.run))
        yield column
        self._full[key] = column
        while len(self._full) > _KEPT:
            self._full.popitem(last=False)

    def _run(
        self, inputs: Any, plan: Any, options: dict[str, Any], stop: threading.Event, least: int
    ) -> Iterator[Column]:
        if stop.is_set():
            return
        self._prepare(inputs, plan, options)
        given = {**options, "tokenizer": self.tokenizer, "force": self.force}
        self._now = writing = Writing(self.model, inputs, plan, given)
        column = Column(writing, Pieces(self.tokenizer), self.layers, least)
        writing.start()
        try:
            while not writing.wait(PERIOD):
                if stop.is_set():
                    writing.stop()
                yield column
        finally:
            writing.stop() if not writing.wait(0) else None  # whoever looked is gone
            writing.wait()
        if writing.error is not None:
            raise writing.error
        yield column

    def _prepare(self, inputs: Any, plan: Any, options: dict[str, Any]) -> None:
        """Two tokens of the beginning of a prompt, the first time that a plan runs: its speed is that of later ones."""
        key = f"{plan.digest} {sorted(options.items())}"
        if key in self._warm:
            return
        short = {name: value[:, :8] for name, value in inputs.items()}
        given = {**GREEDY, **options, "max_new_tokens": 2, "tokenizer": self.tokenizer, "force": self.force}
        generate(self.model, short, plan, **given)
        self._warm.add(key)


__all__ = ["PERIOD", "Ask", "DepthschedError", "Frame", "Row", "Studio", "Visitor"]
