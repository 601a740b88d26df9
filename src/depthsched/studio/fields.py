"""From a settings class to the fields of a form, and from a form back to a spec. Knows no page."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..settings import Settings, field_types, spec_key, split_spec
from ..values import item_of, options_of, show

_FAR = 1000
"""A bound of a whole number at or above this says that there is none; the model and the answer then give one."""


@dataclass(frozen=True)
class Field:
    """One setting as an entry of a form.

    Attributes
    ----------
    key : str
        Its word in a spec.
    kind : str
        ``slider``, ``number`` (empty stands for the default), ``words``, ``switch`` or ``text``.
    value : object
        What it is now.
    low, high, step : float or None
        Of a slider; ``low`` of a number, too.
    choices : tuple of str
        Of ``words``.
    whole : bool
        Whether only whole numbers are allowed.
    help : str
    """

    key: str
    kind: Literal["slider", "number", "words", "switch", "text"]
    value: Any
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    whole: bool = False
    help: str = ""


def form(settings: Settings, layers: int, tokens: int) -> list[Field]:
    """The fields of a settings object, its own first.

    Parameters
    ----------
    settings : Settings
        What they show.
    layers, tokens : int
        Of the model and the answer: the end of a slider for a whole number of layers or of tokens without an upper
        bound of its own. The spec string takes more.
    """
    ordered = sorted(field_types(type(settings)), key=lambda pair: bool(pair[0].kw_only))
    return [_field(field, hint, getattr(settings, field.name), layers, tokens) for field, hint in ordered]


def _field(field: dataclasses.Field[Any], hint: Any, value: Any, layers: int, tokens: int) -> Field:
    options, meta, key = options_of(hint), field.metadata, spec_key(field)
    help = str(meta.get("help") or "")
    words = tuple(str(option) for option in options if isinstance(option, str))
    if words:
        return Field(key, "words", None if value is None else str(value), choices=words, help=help)
    if bool in options:
        return Field(key, "switch", value, help=help)
    if item_of(options) is not None or not {int, float} & {*options}:
        return Field(key, "text", "" if value is None else show(value), help=help)
    low, high = meta.get("low"), meta.get("high")
    whole = int in options and not isinstance(value, float)
    if whole and (high is None or high >= _FAR):
        high = _reach(help, layers, tokens)
    if types.NoneType in options or low is None or high is None or high >= _FAR or not isinstance(value, int | float):
        return Field(key, "number", value, low=low, whole=whole, help=help)
    step = 1 if whole else 10.0 ** -(3 if high - low <= 1 else 2)
    low = low + step if meta.get("low_open") else low
    high = max(high - step if meta.get("high_open") else high, value)
    return Field(key, "slider", value, min(low, value), high, step, whole=whole, help=help)


def _reach(help: str, layers: int, tokens: int) -> int | None:
    """Where a whole number ends that counts layers or tokens; None where its help text names neither."""
    counted = {word: help.find(word) for word in ("layer", "depth", "token", "step") if word in help}
    if not counted:
        return None
    # "full depth before this: tokens": what is counted stands last, a time is "at each decode step".
    word = "token" if "tokens" in help else min(counted, key=counted.__getitem__)
    return layers if word in ("layer", "depth") else tokens


def beginning(cls: type[Settings], layers: int) -> str:
    """A spec of a class to begin with: its name, and a value for each setting that has no default."""
    parts = []
    for field, hint in field_types(cls):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            parts.append(f"{spec_key(field)}={show(_some(field, hint, layers))}")
    return f"{cls.name}:{','.join(parts)}" if parts else cls.name


def _some(field: dataclasses.Field[Any], hint: Any, layers: int) -> Any:
    """A value that a required setting may have: four fifths of the layers where it is a depth, else its lower bound."""
    options, meta = options_of(hint), field.metadata
    if item_of(options) is not None:
        return (layers // 2,)
    if bool in options:
        return False
    for word in options:
        if isinstance(word, str):
            return word
    if int in options and _reach(str(meta.get("help") or ""), layers, layers) == layers:
        return max(layers * 4 // 5, 1)
    low, high = meta.get("low"), meta.get("high")
    if float in options and low is not None and high is not None:
        return (low + high) / 2
    return (low if low is not None else 0) + (1 if meta.get("low_open") else 0)


def with_setting(spec: str, key: str, value: Any) -> str:
    """The spec with one setting changed; None and an empty text leave it out, so that its default holds.

    What is not a setting (a file, the name) stays as it is written.
    """
    head, settings = _split(spec)
    pairs = [pair for pair in settings if pair.partition("=")[0].strip() != key]
    text = show(value).strip() if value is not None else ""
    if text:
        place = next((i for i, pair in enumerate(settings) if pair.partition("=")[0].strip() == key), len(pairs))
        pairs.insert(place, f"{key}={text}")
    return f"{head}:{','.join(pairs)}" if pairs else head.removesuffix(":")


def _split(spec: str) -> tuple[str, Sequence[str]]:
    """The name of a spec, a file with its class included, and its ``key=value`` pairs."""
    file, dot_py, rest = spec.strip().partition(".py")
    if dot_py and (not rest or rest.startswith(":")):
        name, settings = split_spec(rest.removeprefix(":"))
        head = f"{file}.py:{name}"  # without a class, its settings stand after two colons
    else:
        head, settings = split_spec(spec)
    return head, [pair.strip() for pair in settings.split(",") if pair.strip()]
