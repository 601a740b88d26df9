"""Settings: frozen dataclasses whose fields are checked on entry and printed as ``name:key=value,...``.

Schedules, layer orders and the options of commands are all settings classes, so one place validates, parses and
prints them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from .classes import SettingsClass, refuse, untyped
from .errors import DepthschedError, SettingsError
from .text import one_line
from .values import checked, read, show

_MISSING = dataclasses.MISSING
_S = TypeVar("_S", bound="Settings")


def setting(
    default: Any = _MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    kw_only: bool = False,
    budget: bool = False,
    key: str = "",
    help: str = "",
) -> Any:
    """Declare one setting: a dataclass field with a range and a help text.

    Parameters
    ----------
    default : optional
        Left out, the setting is required.
    low, high : float, optional
        Bounds of a number, or of every number of a tuple. Included unless ``low_open`` / ``high_open``.
    kw_only : bool
        Whether Python code must name the setting.
    budget : bool
        Marks the one setting that :func:`depthsched.schedule_for_budget` solves for.
        The mean depth must not fall when it grows.
    key : str
        The word for it in a spec string, where the field itself cannot have that name.
    help : str
        One line for the documentation and for error messages.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Plateau(DepthSchedule):
    ...     share: float = setting(0.8, low=0, high=1, low_open=True, help="share of the layers to run")
    """
    limits = {"low": low, "high": high, "low_open": low_open, "high_open": high_open}
    meta = {**limits, "budget": budget, "key": key, "help": help}
    return dataclasses.field(default=default, kw_only=kw_only, metadata=meta)


def kebab(name: str) -> str:
    """``HalfLife`` -> ``half-life``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def suggest(name: str, known: Iterable[str]) -> str:
    """A ``did you mean`` clause for an unknown word, or the list of known words."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "nothing is registered"


@dataclasses.dataclass(frozen=True)
class Settings(metaclass=SettingsClass):
    """A frozen bag of checked settings. Base of schedules, layer orders and the options of commands.

    A field is an ``int``, ``float``, ``bool``, ``str``, ``Literal`` or a tuple of one of them, and may be ``None``
    where its type says so. What belongs together is checked in ``__post_init__``, after ``super().__post_init__()``.

    Attributes
    ----------
    name : str, class attribute
        The word before the colon of a spec; by default the class name in kebab case. Empty: there is no spec.
    kind : str, class attribute
        The noun in messages.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = "settings"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = kebab(cls.__name__)

    def __post_init__(self) -> None:
        for field, hint in field_types(type(self)):
            where = f"{_label(type(self))}: {spec_key(field)}"
            value = checked(getattr(self, field.name), hint, field.metadata, where)
            object.__setattr__(self, field.name, value)

    def spec(self) -> str:
        """The spec string that gives this object back: the name, then the settings that are not at their default."""
        own_first = sorted(dataclasses.fields(self), key=lambda field: bool(field.kw_only))
        parts = [
            f"{spec_key(field)}={show(getattr(self, field.name))}"
            for field in own_first
            if field.default is _MISSING or getattr(self, field.name) != field.default
        ]
        return f"{self.name}:{','.join(parts)}" if parts else self.name

    def __str__(self) -> str:
        return self.spec()

    @classmethod
    def from_settings(cls, text: str) -> Self:
        """Build from the part of a spec after the name: ``"alpha=0.99,start=32"``."""
        refuse(cls)
        return _build(cls, _parse_pairs(cls, text))

    @classmethod
    def from_mapping(cls, data: Any, what: str = "key") -> Self:
        """Build from the mapping that a file or a set of options holds.

        Parameters
        ----------
        data : mapping of str to value
            A setting that holds a tuple takes one value or a list. ``None`` leaves a setting at its default.
        what : str
            What the file calls a setting.

        Raises
        ------
        SettingsError
            Not a mapping, a key that is unknown or missing, a value that does not fit; the message names the key.
        """
        refuse(cls)
        if not isinstance(data, Mapping):
            raise SettingsError(f"{_label(cls)}: give a mapping of {what}s to values, not {one_line(repr(data), 60)}")
        known = {spec_key(f): f.name for f in dataclasses.fields(cls)}
        for key, value in data.items():
            if key not in known:
                raise SettingsError(f"{_label(cls)}: unknown {what} {key!r}; {suggest(str(key), known)}")
            if isinstance(value, list | tuple) and not value:
                raise SettingsError(f"{_label(cls)}: {key} is empty; leave the {what} out for its default")
        return _build(cls, {known[key]: value for key, value in data.items() if value is not None})


def spec_key(field: dataclasses.Field[Any]) -> str:
    """The word for a field in a spec string."""
    return str(field.metadata.get("key") or field.name)


def field_types(cls: type[Settings]) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a settings class, each with its resolved type."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise SettingsError(f"{_label(cls)}: the type of a setting cannot be read: {error}; import it") from error
    return [(f, hints.get(f.name, Any)) for f in dataclasses.fields(cls)]


def split_spec(spec: str) -> tuple[str, str]:
    """``"d3:alpha=0.99"`` -> ``("d3", "alpha=0.99")``."""
    name, _, settings = spec.strip().partition(":")
    return name.strip(), settings.strip()


def _label(cls: type[Settings]) -> str:
    return f"{cls.kind} {cls.name!r}" if cls.name else cls.kind


def _build(cls: type[_S], values: dict[str, Any]) -> _S:
    missing = [spec_key(f) for f in dataclasses.fields(cls) if _required(f) and f.name not in values]
    if missing:
        example = f", for example {_example(cls)}" if cls.name else ""
        raise SettingsError(f"{_label(cls)} needs {', '.join(missing)}{example}")
    try:
        return cls(**values)
    except DepthschedError:
        raise
    except Exception as error:  # a class of the user's own: whatever it raises becomes one line that names it
        given = ", ".join(f"{key}={show(value)}" for key, value in values.items()) or "its defaults"
        raise SettingsError(
            f"{_label(cls)} cannot be made from {given}: {type(error).__name__}: {one_line(error)}"
        ) from error


def _parse_pairs(cls: type[Settings], text: str) -> dict[str, Any]:
    known = {spec_key(f): (f.name, hint) for f, hint in field_types(cls)}
    values: dict[str, Any] = {}
    for pair in filter(None, (p.strip() for p in text.split(","))):
        key, equals, raw = (s.strip() for s in pair.partition("="))
        if not equals or not raw:
            raise SettingsError(f"{_label(cls)}: {pair!r} is not key=value, for example {_example(cls)}")
        if key not in known:
            raise SettingsError(untyped(cls, key) or f"{_label(cls)} has no setting {key!r}; {suggest(key, known)}")
        field_name, hint = known[key]
        if field_name in values:
            raise SettingsError(f"{_label(cls)}: setting {key!r} is given twice")
        values[field_name] = read(raw, hint)
    return values


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is _MISSING and field.default_factory is _MISSING and field.init


def _example(cls: type[Settings]) -> str:
    for field, _ in field_types(cls):
        if _required(field):
            low = field.metadata.get("low")
            return f"{cls.name}:{spec_key(field)}={int(low) if low and low > 1 else 8}"
        if not field.kw_only and field.default is not None:
            return f"{cls.name}:{spec_key(field)}={show(field.default)}"
    return cls.name
