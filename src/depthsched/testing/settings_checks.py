"""Checks that schedules and orders share: they are frozen, documented settings with a spec string."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ..errors import SettingsError
from ..settings import Settings, field_types, spec_key
from ..text import one_line
from .report import Finding

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FROM_FILE = re.compile(r".+\.py:[A-Za-z_]\w*")


def say(value: Settings) -> str:
    """The spec of a schedule or order, or its class where that cannot be printed."""
    try:
        return value.spec()
    except Exception:  # spec() may be the author's own code; a finding needs a subject whatever it raises
        return type(value).__name__


def show(number: Any) -> str:
    """A number or any other value as a person writes it: no ``np.float64(...)`` around it."""
    if hasattr(number, "item") and getattr(number, "ndim", 1) == 0:
        number = number.item()
    return one_line(repr(number), 60)


def values_of(value: Settings) -> dict[str, Any]:
    """The settings of an object, by field name."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}


def check_docstring(cls: type[Settings]) -> None:
    """The class has a docstring of its own, which `depthsched list` and the docs show."""
    own = cls.__dict__.get("__doc__") or ""
    # dataclass() writes the signature as the docstring of a class that has none.
    if not own.strip() or own.startswith(f"{cls.__name__}("):
        raise Finding(
            "docstring",
            f'{cls.name}: the class {cls.__name__} has no docstring; write """What it does in one line.""" '
            "below the class line",
        )


def check_decorated(cls: type[Settings]) -> None:
    """The class itself is a frozen dataclass that compares by its settings."""
    params = cls.__dict__.get("__dataclass_params__")
    if params is None:
        raise Finding(
            "frozen",
            f"{cls.name}: the class {cls.__name__} is not a dataclass; write @dataclass(frozen=True) above it",
        )
    if not params.eq:
        raise Finding("frozen", f"{cls.name}: two equal sets of settings compare unequal; remove eq=False")


def check_frozen(value: Settings) -> None:
    """Settings cannot be changed, and two objects with the same settings are equal and hash equal."""
    check_decorated(type(value))
    first = dataclasses.fields(value)[0].name if dataclasses.fields(value) else "anything"
    try:
        setattr(value, first, getattr(value, first, None))
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise Finding("frozen", f"{say(value)}: {first} can be changed after the object is made; use frozen=True only")
    twin = type(value)(**values_of(value))
    try:
        hashes = hash(value), hash(twin)
    except TypeError as error:
        raise Finding(
            "frozen",
            f"{say(value)}: cannot be hashed ({one_line(error, 160)}); hold a tuple and not a list",
        ) from error
    if value != twin or hashes[0] != hashes[1]:
        raise Finding(
            "frozen",
            f"{say(value)}: an object made with the same settings is not equal to it; "
            "leave __eq__ and __hash__ to the dataclass",
        )


def check_same(check: str, where: str, what: str, first: Any, second: Any, advice: str) -> None:
    """``what`` was asked twice and gave the same answer."""
    if first != second:
        raise Finding(check, f"{where}: {what} gave {show(first)}, then {show(second)}; {advice}")


def check_unchanged(value: Settings, before: dict[str, Any], what: str) -> None:
    """``what`` was called and left the settings alone."""
    for name, old in before.items():
        if getattr(value, name) != old:
            raise Finding(
                "frozen",
                f"{say(value)}: {what} changed the setting {name} from {show(old)} to {show(getattr(value, name))}; "
                "a schedule keeps no state, compute from the step alone",
            )


def check_spec_round_trip(value: Settings) -> None:
    """What spec() prints, parsing reads back as an equal object."""
    cls = type(value)
    if not _PLAIN_NAME.fullmatch(cls.name) and not _FROM_FILE.fullmatch(cls.name):
        raise Finding(
            "spec_round_trip",
            f"{cls.name!r} cannot be written in a spec; name the {cls.kind} with letters, digits, '-' and '_'",
        )
    text = value.spec()
    name, settings = text[: len(cls.name)], text[len(cls.name) :]
    problem = ""
    if name != cls.name or (settings and not settings.startswith(":")):
        problem = f"prints itself as {text!r}, which does not start with its name {cls.name!r}"
    else:
        try:
            again = cls.from_settings(settings.removeprefix(":"))
        except SettingsError as error:
            problem = f"prints itself as {text!r}, which cannot be read back ({one_line(error, 160)})"
        else:
            different = [
                f"{spec_key(field)}={show(getattr(value, field.name))} comes back as {show(getattr(again, field.name))}"
                for field, _ in field_types(cls)
                if getattr(value, field.name) != getattr(again, field.name)
            ]
            problem = "; ".join(different)
    if problem:
        raise Finding(
            "spec_round_trip", f"{say(value)}: {problem}; use settings of plain types and leave spec() as it is"
        )
