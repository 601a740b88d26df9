"""The one way from text to HTML: what steers a terminal or a line is shown, and nothing of it becomes markup."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

_STEERS = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # parts of words and of emoji; they move nothing


def visible(text: str, *, lines: bool = False) -> str:
    """A text in which no character acts without being seen.

    Control characters become their pictures, those that turn the direction of text or have no width their numbers.

    Parameters
    ----------
    text : str
    lines : bool
        Keep line breaks and tabs after their marks, for text that is shown as it is laid out.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _seen(c, lines) for c in text)


def visible_in(data: Any) -> Any:
    """JSON whose texts are :func:`visible`, their line breaks and tabs as they are: a page lays them out itself."""
    if isinstance(data, str):
        return data if data.isprintable() else "".join(c if c in "\n\t" else visible(c) for c in data)
    if isinstance(data, Mapping):
        return {key: visible_in(value) for key, value in data.items()}
    return [visible_in(value) for value in data] if isinstance(data, list | tuple) else data


def _seen(character: str, lines: bool) -> str:
    if character in "\n\t":
        mark = "↵" if character == "\n" else "⇥"
        return mark + character if lines else mark
    if character in _JOINERS or unicodedata.category(character) not in _STEERS:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def show(value: object, *, lines: bool = False) -> Markup:
    """Anything as HTML: what :func:`tag` made as it is, all else as text."""
    return value if isinstance(value, Markup) else escape(visible(str(value), lines=lines))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. Children and values of attributes are text, but for children that this function made.

    Parameters
    ----------
    name : str
    *children
    **attributes
        ``class_`` stands for ``class``, ``stroke_width`` for ``stroke-width``; one that is None is left out.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    inside = Markup("").join(Markup(' {}="{}"').format(Markup(key), show(value)) for key, value in given.items())
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), inside, Markup("").join(show(child) for child in children))
