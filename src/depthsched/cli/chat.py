"""``depthsched chat``: several turns, and another plan whenever one likes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..environment import versions
from ..errors import DepthschedError
from ..planspec import PlanSpec
from ..text import one_line
from .generate import check_numbers, sampling
from .output import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OrderOption,
    ProfileOption,
    RenewOption,
    ScheduleOption,
    SkippedKvOption,
    VerifyOption,
    WeightsOption,
    console,
    load_quietly,
    notes,
    print_json,
    refuse_rules,
    renew_of,
    say_notes,
)

if TYPE_CHECKING:
    from ..conversation import Conversation, Turn
    from ..plans import DepthPlan

HELP = """\
/schedule SPEC   another plan from here on: schedule[@order][+profile=PROFILE]; alone: which one runs
/full            all layers from here on
/help            this list
/quit            leave, as Ctrl-D does; Ctrl-C stops an answer
Anything else is a question; put a space before one that begins with a slash."""


def add_to(app: typer.Typer) -> None:
    app.command("chat")(chat)


def chat(
    model: ModelOption = "smollm2",
    schedule: ScheduleOption = "d3",
    order: OrderOption = None,
    profile: ProfileOption = None,
    system: Annotated[str | None, typer.Option("--system", help="What the model is told first.")] = None,
    backend: Annotated[str, typer.Option("--backend", help="auto, eager, compiled or cuda-graph.")] = "auto",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="Most tokens of an answer.")] = 256,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random draws when sampling.")] = 0,
    temperature: Annotated[float, typer.Option("--temperature", "-t", help="0 decodes greedily.")] = 0.0,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Sample from this much probability.")] = None,
    skipped_kv: SkippedKvOption = "auto",
    verify_below: VerifyOption = None,
    renew: RenewOption = None,
    force: Annotated[bool, typer.Option("--force", help="Drive a model family that is unknown or refused.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    json: JsonOption = False,
) -> None:
    """Talk with a model under a schedule, switched between turns. Without a terminal each line of stdin is a turn."""
    options: dict[str, Any] = {"backend": backend, "force": force, "max_new_tokens": max_new_tokens}
    options |= sampling(temperature, top_p)
    check_numbers(max_new_tokens, seed)
    rules: dict[str, Any] = {"skipped_kv": skipped_kv, "verify_below": verify_below, "renew": renew_of(renew)}
    refuse_rules(**rules)
    spec = PlanSpec.parse(schedule, order, profile)  # before the model, so that a typo costs no loading
    with notes().status(f"loading {model}", spinner="dots"):
        loaded, tokenizer = load_quietly(model, dtype, device, weights)
    import torch

    from ..adapters import adapter_for
    from ..conversation import Conversation

    torch.manual_seed(seed)
    layers = adapter_for(loaded, force=force).num_layers
    talk = Conversation(loaded, tokenizer, system, **options)
    session = _Session(talk, lambda one: one.resolve(layers, max_new_tokens), spec, (order, profile), rules, quiet=json)
    if sys.stdin.isatty() and not json:
        notes().print(f"{model}, {spec.label}. /help lists the commands.", style="dim", markup=False)
    for line in _lines():
        if not session.take(line):
            break
    if json:
        print_json({"model": model, "turns": session.turns, "versions": versions()})


class _Session:
    """What lines do: questions and commands."""

    def __init__(
        self, talk: Conversation, resolve: Callable[[PlanSpec], DepthPlan], spec: PlanSpec,
        defaults: tuple[str | None, str | None], rules: dict[str, Any], *, quiet: bool,
    ) -> None:  # fmt: skip
        self.talk, self.resolve, self.defaults, self.rules, self.quiet = talk, resolve, defaults, rules, quiet
        self.turns: list[dict[str, Any]] = []
        self.plan = self._use(spec)

    def take(self, line: str) -> bool:
        """Do what a line says; whether the chat goes on. What is wrong with it is one line, and nothing changes."""
        try:
            if line.startswith("/"):
                return self._command(*line[1:].strip().partition(" ")[::2])
            if line.strip():
                self._ask(line.strip())
        except DepthschedError as error:
            print(f"depthsched: {one_line(str(error), 5000)}", file=sys.stderr)
        except KeyboardInterrupt:
            print("depthsched: stopped; the question is taken back", file=sys.stderr)
        return True

    def _command(self, name: str, rest: str) -> bool:
        if name == "quit":
            return False
        if name == "schedule" and rest.strip():
            self.plan = self._use(PlanSpec.parse(rest.strip(), *self.defaults))
        elif name == "full":
            self.plan = self._use(PlanSpec.parse("full"))
        elif name == "help":
            notes().print(HELP, markup=False, soft_wrap=True)
        elif name != "schedule":
            raise DepthschedError(f"unknown command /{name}; /help lists them")
        if name in ("schedule", "full"):
            notes().print(f"{self.plan.schedule} @ {self.plan.order}", style="dim", markup=False)
        return True

    def _use(self, spec: PlanSpec) -> DepthPlan:
        plan = self.resolve(spec)
        say_notes(spec.label, plan.notes)
        return plan

    def _ask(self, question: str) -> None:
        with _stoppable() as criteria:
            streamer = None if self.quiet else _streamer(self.talk.tokenizer)
            turn = self.talk.ask(question, self.plan, streamer=streamer, stopping_criteria=criteria, **self.rules)
        if self.quiet:
            found = {"question": question, "text": turn.answer, "read_tokens": turn.read, "held_tokens": turn.held}
            self.turns.append({**found, **turn.run.to_json()})
        else:
            console().print(_depth_line(turn), style="dim", markup=False, soft_wrap=True)


def _depth_line(turn: Turn) -> str:
    run = turn.run
    parts = [
        f"depth {run.trace.mean_depth:.1f} of {run.shape.num_layers}",
        f"{run.layer_speedup:.2f}x fewer layers",
        f"{run.tokens.shape[1]} tokens, {run.tokens_per_second:.1f} per second",
        f"{turn.read} read, {turn.held} held",
    ]
    if run.trace.renewal is not None:
        from ..runtime.trace import renewal_line, renewed_in

        parts.append(renewal_line(renewed_in(run.trace)))
    return f"[{run.plan.schedule}] " + "; ".join(parts)


def _streamer(tokenizer: Any) -> Any:
    from transformers import TextStreamer

    return TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


def _lines() -> Iterator[str]:
    """What is typed, or what the pipe holds, until it ends."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n/quit or Ctrl-D leaves", file=sys.stderr)


@contextmanager
def _stoppable() -> Iterator[list[Any]]:
    """Stopping criteria that Ctrl-C meets: what was written stays. A second Ctrl-C interrupts at once."""
    pressed = threading.Event()

    def press(*_: Any) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield [_stop_when(pressed)]
    finally:
        signal.signal(signal.SIGINT, before)


def _stop_when(pressed: threading.Event) -> Any:
    import torch
    from transformers import StoppingCriteria

    class Pressed(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            return torch.full((len(input_ids),), pressed.is_set(), device=input_ids.device)

    return Pressed()
