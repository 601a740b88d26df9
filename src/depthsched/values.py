"""One value of a setting: read from a word of a spec, checked against its type and range, shown as a word."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from .errors import SettingsError

_KNOWN = {int, float, bool, str, types.NoneType}


def options_of(hint: Any) -> list[Any]:
    """The types that a union allows; each word of a ``Literal`` stands for itself."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return [option for part in typing.get_args(hint) for option in options_of(part)]
    return list(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else [hint]


def item_of(options: list[Any]) -> Any:
    """The type of what a tuple holds; None where no option is a tuple."""
    return next((typing.get_args(o)[0] for o in options if typing.get_origin(o) is tuple), None)


def _words(options: list[Any]) -> list[Any]:
    return [o for o in options if isinstance(o, str | int)]


def read(raw: str, hint: Any) -> Any:
    """What a word of a spec stands for; the word itself where it fits no type, for :func:`checked` to refuse."""
    options = options_of(hint)
    if raw.lower() == "none" and (types.NoneType in options or item_of(options) is not None):
        return None if types.NoneType in options else ()
    if item_of(options) is not None:
        return tuple(read(part.strip(), item_of(options)) for part in raw.split("+"))
    if bool in options and raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    for kind in (int, float):
        if kind in options:
            try:
                return kind(raw)
            except ValueError:
                continue
    return next((word for word in _words(options) if str(word) == raw), raw)


def checked(value: Any, hint: Any, limits: Mapping[str, Any], where: str) -> Any:
    """The value in its declared type.

    Parameters
    ----------
    limits : mapping
        ``low``, ``high``, ``low_open`` and ``high_open`` of a number, as :func:`depthsched.setting` takes them.
    where : str
        What the value is for, such as ``"schedule 'd3': alpha"``.

    Raises
    ------
    SettingsError
        Another type, not an allowed word, not finite or out of range.
    """
    options = options_of(hint)
    if (item := item_of(options)) is None or (value is None and types.NoneType in options):
        return _checked_one(value, options, limits, where, value)
    values = value if isinstance(value, tuple | list) else (value,)
    return tuple(_checked_one(one, options_of(item), limits, where, value) for one in values)


def _checked_one(value: Any, options: list[Any], limits: Mapping[str, Any], where: str, whole: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # numpy scalars are welcome, and printed as plain numbers
    if isinstance(value, int | float) and not isinstance(value, bool) and (int in options or float in options):
        problem = _out_of_range(value, limits)
        if isinstance(value, float) and not math.isfinite(value):
            problem = "a finite number"
        elif isinstance(value, float) and float not in options:
            problem = "a whole number"
        if problem:
            raise SettingsError(f"{where}={show(whole)} must be {problem}")
        return value if int in options else float(value)
    words = _words(options)
    if any(value == word and type(value) is type(word) for word in words):
        return value
    plain = tuple(option for option in options if option in _KNOWN)
    blank = isinstance(value, str) and not value.strip()
    if not blank and (bool in options if isinstance(value, bool) else isinstance(value, plain)):
        return value
    if any(option not in _KNOWN and option not in words for option in options):  # a type of the class's own
        return value
    shown = repr(value) if isinstance(value, str) else show(value)
    raise SettingsError(f"{where}={shown} is not {_describe(options)}")


def _out_of_range(value: float, meta: Mapping[str, Any]) -> str:
    """The range that a number misses; empty where it is in it."""
    low, high = meta.get("low"), meta.get("high")
    too_low = low is not None and (value <= low if meta["low_open"] else value < low)
    too_high = high is not None and (value >= high if meta["high_open"] else value > high)
    if not too_low and not too_high:
        return ""
    if low is not None and high is not None and high <= 1:
        left, right = "(" if meta["low_open"] else "[", ")" if meta["high_open"] else "]"
        return f"in {left}{low}, {high}{right}"
    if too_low:
        return f"{'above' if meta['low_open'] else 'at least'} {low}"
    return f"{'below' if meta['high_open'] else 'at most'} {high}"


def _describe(options: list[Any]) -> str:
    if words := _words(options):
        return f"one of {', '.join(map(str, words))}"
    said = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    return next((text for kind, text in said.items() if kind in options), "allowed")


def show(value: Any) -> str:
    """A value as it stands in a spec: ``3+4``, ``true``, ``1e22``."""
    if isinstance(value, tuple | list):
        return "+".join(show(v) for v in value) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value).replace("e+", "e")  # the plus sign joins the numbers of a list
    return str(value)
