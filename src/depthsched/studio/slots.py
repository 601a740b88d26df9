"""Places for the settings of any class: components that are made once, and show the fields of what is chosen.

Components that are made anew when another class is chosen lose clicks meanwhile. These stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from . import html
from .fields import Field

PLACES = 10
"""Settings that have a place. No schedule or order that comes with depthsched has more than six."""
_KINDS: dict[str, Callable[..., Any]] = {
    "slider": gr.Slider,
    "number": gr.Number,
    "words": gr.Dropdown,
    "switch": gr.Checkbox,
    "text": gr.Textbox,
}


class Slots:
    """The places of one part of a plan, ``schedule`` or ``order``, each with one component of every kind.

    Attributes
    ----------
    part : str
    components : list of gradio components
        All of them, in the order in which :meth:`show` gives their updates.
    """

    def __init__(self, part: str) -> None:
        self.part = part
        with gr.Row(elem_id=f"ds-{part}-fields"):
            self._places = [
                {kind: make(visible=False, interactive=True, min_width=200) for kind, make in _KINDS.items()}
                for _ in range(PLACES)
            ]
            self._more = gr.HTML(visible=False)
        self.components = [component for place in self._places for component in place.values()] + [self._more]

    def changes(self) -> Iterator[tuple[int, str, Any, Any]]:
        """Every place and kind, its component, and the event of it that a person causes."""
        for place, components in enumerate(self._places):
            for kind, component in components.items():
                for event in [component.submit, component.blur] if kind == "text" else [component.input]:
                    yield place, kind, component, event

    def show(self, fields: Sequence[Field]) -> list[Any]:
        """Updates of all components after which they show these fields."""
        shown = [
            gr.update(visible=True, elem_id=f"ds-{self.part}-{fields[place].key}", **_options(fields[place]))
            if place < len(fields) and fields[place].kind == kind
            else gr.update(visible=False)
            for place in range(PLACES)
            for kind in _KINDS
        ]
        beyond = ", ".join(field.key for field in fields[PLACES:])
        return [*shown, gr.update(visible=bool(beyond), value=html.note(f"in the plan's text only: {beyond}"))]


def _options(field: Field) -> dict[str, Any]:
    """What the component of a field shows."""
    named: dict[str, Any] = {"label": field.key, "info": field.help or None, "value": field.value}
    if field.kind == "slider":
        return {**named, "minimum": field.low, "maximum": field.high, "step": field.step}
    if field.kind == "number":
        return {**named, "step": 1 if field.whole else 0.01, "placeholder": "default"}
    if field.kind == "words":
        return {**named, "choices": [*field.choices]}
    if field.kind == "switch":
        return {**named, "value": bool(field.value)}
    return named
