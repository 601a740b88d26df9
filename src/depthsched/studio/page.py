"""The page: components, and what happens when they are touched. Imported by the command only: it needs Gradio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from .. import plugins
from ..errors import DepthschedError
from ..order import Ranked
from ..planspec import DEFAULT_ORDER, PlanText
from . import html
from .fields import Field, beginning, form, with_setting
from .lines import MOST_TOKENS, Ask, complete, one_text, python_lines, shell_line
from .session import Frame, Studio
from .slots import Slots

log = logging.getLogger("depthsched")

BEGIN = "d3"
TOKENS = 96
PROMPT = "Explain in three sentences why the sky is blue."
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_AT_ONCE: dict[str, Any] = {**_QUIET, "concurrency_limit": None, "trigger_mode": "always_last"}


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio."""
    return _Page(studio).blocks


class _Page:
    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.names = plugins.registry()
        with gr.Blocks(title="depthsched studio", analytics_enabled=False, fill_width=True) as self.blocks:
            failures = [f"{name} was not loaded: {why}" for name, why in self.names.failures.items()]
            gr.HTML(html.heading(studio.name, studio.layers, failures))
            self._form()
            self._results()
            self._events()

    def _form(self) -> None:
        text = one_text(BEGIN, "", self.studio.profile)
        with gr.Row(equal_height=True):
            self.prompt = gr.Textbox(PROMPT, label="Prompt", lines=2, elem_id="ds-prompt", scale=5, min_width=300)
            with gr.Column(scale=1, min_width=140):
                self.write = gr.Button("Write", variant="primary", elem_id="ds-write")
                self.cancel = gr.Button("Cancel", elem_id="ds-cancel", interactive=False)
        self.said = gr.HTML(html.said(""), elem_id="ds-status")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.schedule = gr.Dropdown(
                    sorted(self.names.schedules), value=BEGIN, allow_custom_value=True, elem_id="ds-schedule",
                    label="Schedule", info="a name, or file.py:Class for one of your own",
                )  # fmt: skip
                schedule = Slots("schedule")
                self.order = gr.Dropdown(
                    sorted(self.names.orders), value=self._order_of(PlanText.of(text)).partition(":")[0],
                    label="Layer order", info="which layers go first", elem_id="ds-order",
                )  # fmt: skip
                self.slots = (schedule, Slots("order"))
                names = ", ".join(self.names.profiles)
                self.profile = gr.Textbox(
                    self.studio.profile, label="Profile", elem_id="ds-profile",
                    info=f"a folder, {names + ', ' if names else ''}or user/name on the hub; empty: none",
                )  # fmt: skip
            with gr.Column(scale=3, min_width=300):
                self.plan = gr.Textbox(
                    text, label="Plan", elem_id="ds-plan", buttons=["copy"],
                    info="schedule[@order][+profile=DIR]: what the fields say, and what they follow",
                )  # fmt: skip
                self.picture = gr.HTML(elem_id="ds-picture")
                self.tokens = gr.Slider(8, min(512, MOST_TOKENS), TOKENS, step=8, label="Tokens", elem_id="ds-length")
                self.lossless = gr.Checkbox(label="Lossless: the plan drafts, full depth checks", elem_id="ds-lossless")
                self.gated = gr.Checkbox(
                    label="Gate: unsure tokens are checked at full depth, the cache is renewed", elem_id="ds-gated"
                )
                self.below = gr.Slider(
                    0.01, 1, 0.2, step=0.01, label="Unsure below this margin", elem_id="ds-below", visible=False
                )
        self.asked = [self.plan, self.prompt, self.tokens, self.lossless, self.gated, self.below]

    def _results(self) -> None:
        with gr.Row():
            with gr.Column(min_width=300):
                self.full = gr.HTML(html.text("Full depth", None), elem_id="ds-full")
            with gr.Column(min_width=300):
                self.scheduled = gr.HTML(html.text("The plan", None), elem_id="ds-scheduled")
        self.measured = gr.HTML("", elem_id="ds-numbers")
        with gr.Accordion("The same without this page", open=True, elem_id="ds-lines"):
            options: dict[str, Any] = {"interactive": False, "buttons": ["copy"]}
            self.spec = gr.Textbox(
                label="Plan, with its order and the folder of its profile", elem_id="ds-spec", **options
            )
            self.shell = gr.Textbox(label="Shell", lines=2, elem_id="ds-shell", **options)
            self.python = gr.Textbox(label="Python", lines=9, max_lines=20, elem_id="ds-python", **options)
        gr.HTML("<h2>History</h2>")
        self.history = gr.HTML(html.history([]), elem_id="ds-history")
        self.drawn = [self.picture, self.spec, self.shell, self.python]

    def _events(self) -> None:
        places = [component for slots in self.slots for component in slots.components]
        self.blocks.load(
            lambda *asked: (*self._draw(*asked), *self._fields(asked[0], asked[2])),
            self.asked,
            [*self.drawn, *places],
            **_AT_ONCE,
        )
        parts = (self.prompt, self.tokens, self.below, self.lossless, self.gated)
        # One event for all: the answers of several could come in another order than their questions.
        gr.on([part.input for part in parts], self._draw, self.asked, self.drawn, **_AT_ONCE)
        self.gated.input(lambda on: gr.update(visible=on), self.gated, self.below, **_AT_ONCE)
        changed = [self.plan, self.schedule, self.order, self.profile, *self.drawn, *places]
        for part, choose in ((self.schedule, self._choose_schedule), (self.order, self._choose_order)):
            part.input(choose, [part, *self.asked], changed, **_AT_ONCE)
        for event in (self.profile.submit, self.profile.blur):
            event(self._choose_profile, [self.profile, *self.asked], changed, **_AT_ONCE)
        for event in (self.plan.submit, self.plan.blur):
            event(self._follow, self.asked, changed, **_AT_ONCE)
        for slots in self.slots:
            for place, kind, component, event in slots.changes():
                change = self._setter(slots.part, place, kind)
                event(change, [component, *self.asked], [self.plan, *self.drawn], **_AT_ONCE)
        buttons = [self.write, self.cancel]
        results = [self.said, self.full, self.scheduled, self.measured, self.history]
        begun = gr.on([self.write.click, self.prompt.submit], self._begin, None, buttons, **_QUIET, queue=False)
        written = begun.then(
            self._write, self.asked, results, **_QUIET, queue=True, concurrency_limit=1, concurrency_id="model"
        )
        written.then(
            lambda: (gr.update(interactive=True), gr.update(interactive=False)), None, buttons, **_QUIET, queue=False
        )
        self.cancel.click(self._cancel, None, self.said, **_QUIET, queue=False)

    # What is chosen: every one gives the plan, the fields that follow it, and what is drawn of it.

    def _choose_schedule(self, name: str | None, plan: str, *rest: Any) -> tuple[Any, ...]:
        text = _parts(plan)
        known = self.names.schedules.get(name or "")
        spec = beginning(known.value, self.studio.layers) if known else name or ""
        return self._follow(one_text(spec, text.order, text.profile), *rest)

    def _choose_order(self, name: str | None, plan: str, *rest: Any) -> tuple[Any, ...]:
        text = _parts(plan)
        known = self.names.orders.get(name or "")
        spec = beginning(known.value, self.studio.layers) if known and name != Ranked.name else name or ""
        profile = text.profile if name == Ranked.name else ""
        return self._follow(one_text(text.schedule, spec, profile), *rest)

    def _choose_profile(self, profile: str, plan: str, *rest: Any) -> tuple[Any, ...]:
        text = _parts(plan)
        if profile.strip() == text.profile:
            return self._follow(plan, *rest)
        # The bridges of a profile fit its own order.
        return self._follow(one_text(text.schedule, "", profile), *rest)

    def _follow(self, plan: str, *rest: Any) -> tuple[Any, ...]:
        text = _parts(plan)
        name = text.schedule.partition(":")[0] if ".py" not in text.schedule else text.schedule
        order = self._order_of(text).partition(":")[0]
        known = order if order in self.names.orders else None
        return (plan, name, known, text.profile, *self._draw(plan, *rest), *self._fields(plan, rest[1]))

    def _order_of(self, text: PlanText) -> str:
        return text.order or (Ranked.name if text.profile else DEFAULT_ORDER)

    def _draw(self, plan: str, *rest: Any) -> tuple[str, ...]:
        """The picture of the plan, and the lines to copy; an error is one line in its place."""
        try:
            ask = _ask(plan, *rest)
            spec = self.studio.parse(plan)
            picture = html.preview(spec.resolve(self.studio.layers, ask.tokens))
            name = self.studio.name
            return picture, complete(spec), shell_line(ask, name), python_lines(ask, name, chat=self.studio.chat)
        except Exception as error:
            return self._problem(error), "", "", ""

    def _problem(self, error: Exception) -> str:
        if isinstance(error, DepthschedError):
            return html.problem(error)
        log.error("studio: %s: %s", type(error).__name__, error, exc_info=log.isEnabledFor(logging.DEBUG))
        return html.problem(RuntimeError(f"internal error: {type(error).__name__}: {error}"))

    # The fields of the schedule and of the order.

    def _fields(self, plan: str, tokens: float) -> list[Any]:
        """Updates of all places. A plan that is wrong has no fields; the line in place of the picture says why."""
        return [update for slots in self.slots for update in slots.show(self._form_of(slots.part, plan, tokens))]

    def _form_of(self, part: str, plan: str, tokens: float) -> list[Field]:
        try:
            spec = self.studio.parse(plan)
        except DepthschedError:
            return []
        return form(spec.schedule if part == "schedule" else spec.order, self.studio.layers, int(tokens))

    def _setter(self, part: str, place: int, kind: str) -> Callable[..., tuple[Any, ...]]:
        def change(value: Any, plan: str, *rest: Any) -> tuple[Any, ...]:
            fields = self._form_of(part, plan, rest[1])
            if place >= len(fields) or fields[place].kind != kind:  # of a plan that was there before, or a wrong one
                return (gr.skip(), *self._draw(plan, *rest))
            field, text = fields[place], _parts(plan)
            value = round(value) if field.whole and isinstance(value, float) and value.is_integer() else value
            if part == "schedule":
                text = text._replace(schedule=with_setting(text.schedule, field.key, value))
            else:
                text = text._replace(order=with_setting(self._order_of(text), field.key, value))
            return (str(text), *self._draw(str(text), *rest))

        return change

    # A run.

    def _begin(self, request: gr.Request) -> tuple[Any, ...]:
        self.studio.visitor(_key(request)).stop.clear()
        return gr.update(interactive=False), gr.update(interactive=True)

    def _cancel(self, request: gr.Request) -> str:
        self.studio.visitor(_key(request)).stop.set()
        return html.said("stops after this token")

    def _write(
        self, plan: str, prompt: str, tokens: float, lossless: bool, gated: bool, below: float, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        visitor = self.studio.visitor(_key(request))
        try:
            for frame in self.studio.write(_ask(plan, prompt, tokens, lossless, gated, below), visitor):
                yield self._shown(frame)
            yield {self.history: html.history(visitor.history)}
        except Exception as error:
            yield {self.said: self._problem(error)}

    def _shown(self, frame: Frame) -> dict[Any, Any]:
        found = {
            self.said: html.said(frame.said),
            self.full: html.text("Full depth", frame.full),
            self.scheduled: html.text(f"The plan {frame.spec}".strip(), frame.plan),
        }
        return {**found, self.measured: html.measured(frame)}


def _parts(plan: str) -> PlanText:
    try:
        return PlanText.of(plan)
    except DepthschedError:
        return PlanText(plan)


def _ask(plan: str, prompt: str, tokens: float, lossless: bool, gated: bool, below: float) -> Ask:
    return Ask(plan.strip(), prompt, int(tokens), lossless, gated, float(below))


def _key(request: gr.Request) -> str:
    return str(request.session_hash)
