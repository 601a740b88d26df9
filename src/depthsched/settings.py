"""Settings: frozen dataclasses whose fields are checked on entry and printed as ``name:key=value,...``.

Schedules and layer orders are both settings classes, so one place validates, parses and prints them all.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from .errors import SettingsError

_MISSING = dataclasses.MISSING


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
    """Declare one setting of a schedule or an order: a dataclass field with a range and a help text.

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
    meta = {
        "low": low,
        "high": high,
        "low_open": low_open,
        "high_open": high_open,
        "budget": budget,
        "key": key,
        "help": help,
    }
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
class Settings:
    """A named, frozen bag of checked settings. Base of schedules and layer orders."""

    name: ClassVar[str] = ""
    kind: ClassVar[str] = "settings"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = kebab(cls.__name__)

    def __post_init__(self) -> None:
        for field, hint in field_types(type(self)):
            value = _check(self, field, hint, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    def spec(self) -> str:
        """The spec string that gives this object back: the name, then the settings that are not at their default."""
        own_first = sorted(dataclasses.fields(self), key=lambda field: bool(field.kw_only))
        parts = [
            f"{spec_key(field)}={_show(getattr(self, field.name))}"
            for field in own_first
            if field.default is _MISSING or getattr(self, field.name) != field.default
        ]
        return f"{self.name}:{','.join(parts)}" if parts else self.name

    def __str__(self) -> str:
        return self.spec()

    @classmethod
    def from_settings(cls, text: str) -> Self:
        """Build from the part of a spec after the name: ``"alpha=0.99,start=32"``."""
        return cls(**_parse_pairs(cls, text))


def spec_key(field: dataclasses.Field[Any]) -> str:
    """The word for a field in a spec string."""
    return str(field.metadata.get("key") or field.name)


def field_types(cls: type[Settings]) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a settings class, each with its resolved type."""
    hints = typing.get_type_hints(cls)
    return [(f, hints.get(f.name, Any)) for f in dataclasses.fields(cls)]


def split_spec(spec: str) -> tuple[str, str]:
    """``"d3:alpha=0.99"`` -> ``("d3", "alpha=0.99")``."""
    name, _, settings = spec.strip().partition(":")
    return name.strip(), settings.strip()


def _parse_pairs(cls: type[Settings], text: str) -> dict[str, Any]:
    known = {spec_key(f): (f.name, hint) for f, hint in field_types(cls)}
    values: dict[str, Any] = {}
    for pair in filter(None, (p.strip() for p in text.split(","))):
        key, equals, raw = (s.strip() for s in pair.partition("="))
        if not equals or not raw:
            raise SettingsError(f"{cls.kind} {cls.name!r}: {pair!r} is not key=value, for example {_example(cls)}")
        if key not in known:
            raise SettingsError(f"{cls.kind} {cls.name!r} has no setting {key!r}; {suggest(key, known)}")
        field_name, hint = known[key]
        if field_name in values:
            raise SettingsError(f"{cls.kind} {cls.name!r}: setting {key!r} is given twice")
        values[field_name] = _parse_value(cls, key, raw, hint)
    missing = [spec_key(f) for f in dataclasses.fields(cls) if _required(f) and f.name not in values]
    if missing:
        raise SettingsError(f"{cls.kind} {cls.name!r} needs {', '.join(missing)}, for example {_example(cls)}")
    return values


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is _MISSING and field.default_factory is _MISSING and field.init


def _example(cls: type[Settings]) -> str:
    for field, _ in field_types(cls):
        if _required(field):
            low = field.metadata.get("low")
            return f"{cls.name}:{spec_key(field)}={int(low) if low and low > 1 else 8}"
        if not field.kw_only and field.default is not None:
            return f"{cls.name}:{spec_key(field)}={_show(field.default)}"
    return cls.name


def _is_tuple(hint: Any) -> bool:
    origin: Any = typing.get_origin(hint)
    return origin is tuple


def _words(options: tuple[Any, ...]) -> tuple[Any, ...]:
    """The words that a ``Literal["one", "two"]`` allows."""
    return tuple(w for o in options if typing.get_origin(o) is typing.Literal for w in typing.get_args(o))


def _options(hint: Any) -> tuple[Any, ...]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def _parse_value(cls: type[Settings], key: str, raw: str, hint: Any) -> Any:
    options = _options(hint)
    if type(None) in options and raw.lower() == "none":
        return None
    if any(_is_tuple(o) for o in options):
        item = next(typing.get_args(o)[0] for o in options if _is_tuple(o))
        if raw.lower() == "none":
            return ()
        return tuple(_parse_value(cls, key, part.strip(), item) for part in raw.split("+"))
    if bool in options and raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    for kind in (int, float):
        if kind in options:
            try:
                return kind(raw)
            except ValueError:
                continue
    if str in options or raw in _words(options):
        return raw
    raise SettingsError(f"{cls.kind} {cls.name!r}: {key}={raw!r} is not {_describe(hint)}")


def _check(owner: Settings, field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """The value in its declared type, or an error that names the owner, the setting and the range."""
    options = _options(hint)
    where = f"{owner.kind} {owner.name!r}: {spec_key(field)}={_show(value)}"
    if value is None and type(None) in options:
        return None
    tuples = [o for o in options if _is_tuple(o)]
    if tuples:
        if isinstance(value, int | float):
            value = (value,)
        if not isinstance(value, tuple | list):
            raise SettingsError(f"{where} is not {_describe(hint)}")
        item = typing.get_args(tuples[0])[0]
        return tuple(_check_number(where, field, (item,), v) for v in value)
    if int in options or float in options:
        return _check_number(where, field, options, value)
    words = _words(options)
    if words and str not in options and value not in words:
        raise SettingsError(f"{where} is not {_describe(hint)}")
    return value


def _check_number(where: str, field: dataclasses.Field[Any], options: tuple[Any, ...], value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # numpy scalars are welcome, and printed as plain numbers
    if isinstance(value, bool) and bool in options:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{where} is not {_describe(options)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where} must be a finite number")
    if float not in options and isinstance(value, float):
        raise SettingsError(f"{where} must be a whole number")
    if int not in options:
        value = float(value)
    low, high = field.metadata.get("low"), field.metadata.get("high")
    too_low = low is not None and (value <= low if field.metadata["low_open"] else value < low)
    too_high = high is not None and (value >= high if field.metadata["high_open"] else value > high)
    if too_low or too_high:
        raise SettingsError(f"{where} must be {_range(field, too_low)}")
    return value


def _range(field: dataclasses.Field[Any], too_low: bool) -> str:
    low, high, meta = field.metadata.get("low"), field.metadata.get("high"), field.metadata
    if low is not None and high is not None and high <= 1:
        left, right = "(" if meta["low_open"] else "[", ")" if meta["high_open"] else "]"
        return f"in {left}{low}, {high}{right}"
    if too_low:
        return f"{'above' if meta['low_open'] else 'at least'} {low}"
    return f"{'below' if meta['high_open'] else 'at most'} {high}"


def _describe(hint: Any) -> str:
    options = hint if isinstance(hint, tuple) else _options(hint)
    if any(_is_tuple(o) for o in options):
        return "a list of numbers joined by '+', such as 32+64"
    if float in options:
        return "a number"
    if int in options:
        return "a whole number"
    if bool in options:
        return "true or false"
    if _words(options):
        return f"one of {', '.join(map(str, _words(options)))}"
    return str(hint)


def _show(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(_show(v) for v in value) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value).replace("e+", "e")  # the plus sign joins the numbers of a list
    return str(value)
