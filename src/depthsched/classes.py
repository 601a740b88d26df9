"""What a class of settings must look like. What is wrong with one is a line with its file and line number."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import re
import typing
from typing import Any

from .errors import DepthschedError, SettingsError
from .text import one_line

DECORATOR = "@dataclass(frozen=True)"


class SettingsClass(abc.ABCMeta):
    """The class of settings classes: refuses what Python lets pass, or refuses in words that name no remedy."""

    def __setattr__(cls, name: str, value: Any) -> None:
        # The first thing that @dataclass does to a class, before Python's own error about frozen bases.
        if name == "__dataclass_params__" and not value.frozen:
            raise SettingsError(f"{_class(cls)} is a dataclass that is not frozen; write {DECORATOR} above it")
        super().__setattr__(name, value)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        refuse(cls)
        for key in kwargs:
            if problem := untyped(cls, key):
                raise SettingsError(problem)
        return super().__call__(*args, **kwargs)


def place(made: Any) -> str:
    """Where a class or function was written: ``half_life.py, line 5``, or its module where there is no source."""
    try:
        return f"{inspect.getsourcefile(made)}, line {inspect.getsourcelines(made)[1]}"
    except (OSError, TypeError):
        return f"module {made.__module__}"


def refuse(cls: type) -> None:
    """Refuse a class whose settings would be ignored: not a dataclass, or one that hides a setting.

    Raises
    ------
    SettingsError
    """
    for at, klass in enumerate(cls.__mro__):
        bases = [base for base in cls.__mro__[at + 1 :] if "__dataclass_fields__" in vars(base)]
        inherited = {field.name: field for base in bases for field in dataclasses.fields(base)}
        typed = inspect.get_annotations(klass)
        for name, value in vars(klass).items():
            if name in inherited and name not in typed and not inspect.ismemberdescriptor(value):  # those of slots=True
                raise SettingsError(_hides(klass, inherited[name]))
        if not isinstance(klass, SettingsClass) or "__dataclass_params__" in vars(klass):
            continue
        if own := _own_settings(klass):
            raise SettingsError(
                f"{_class(klass)} has settings ({', '.join(own)}) and is not a dataclass; write {DECORATOR} above it"
            )
        if "__init__" in vars(klass):
            raise SettingsError(
                f"{_class(klass)} has an __init__ of its own; write {DECORATOR} above it "
                f"and fields instead of __init__, such as {_as_fields(vars(klass)['__init__'])}"
            )


def untyped(cls: type, name: str) -> str:
    """Why ``name`` cannot be set: it is an attribute of the class without a type. Empty where it is none."""
    value = getattr(cls, name, None)
    if not isinstance(value, int | float | str | tuple) or name in {f.name for f in dataclasses.fields(cls)}:
        return ""
    owner = next(klass for klass in cls.__mro__ if name in vars(klass))
    if name in inspect.get_annotations(owner):  # a ClassVar, such as monotone: meant to be no setting
        return ""
    return (
        f"{_class(owner)}: {name} has no type and so is not a setting; "
        f"write {name}: {type(value).__name__} = {value!r} under {DECORATOR}"
    )


def check_method(owner: Any, name: str, *arguments: str, error: type[DepthschedError]) -> None:
    """Check that a method of a settings object can be called with these arguments."""
    method = getattr(owner, name)
    written = getattr(type(owner), name, method)
    has = f"{name} = {one_line(repr(method), 40)}"
    if callable(method):
        try:
            # What a decorator hides is not followed: whatever takes the arguments is right.
            inspect.signature(method, follow_wrapped=False).bind(*arguments)
            return
        except ValueError:  # written in C, with no signature
            return
        except TypeError:
            has = f"def {name}{one_line(inspect.signature(written), 80)}"
    raise error(
        f"{place(written if callable(written) else type(owner))}: {owner.kind} {owner.name!r} "
        f"needs def {name}(self, {', '.join(arguments)}) and has {has}"
    )


def ranked_by(owner: Any, parameter: str, given: Any, shown: str) -> tuple[Any, ...]:
    """What the ``rank`` method of a settings object returns; whatever it raises becomes one line that names it.

    Raises
    ------
    SettingsError
    """
    check_method(owner, "rank", parameter, error=SettingsError)
    try:
        return tuple(owner.rank(given))
    except DepthschedError:
        raise
    except Exception as error:
        raise SettingsError(
            f"{owner.kind} {owner.name!r} failed: rank({shown}) raised {type(error).__name__}: {one_line(error)}"
        ) from error


def _class(cls: type) -> str:
    return f"{place(cls)}: class {cls.__name__}"


def _own_settings(cls: type) -> list[str]:
    """What would be a field of the class if it were a dataclass."""
    typed = [name for name, hint in inspect.get_annotations(cls).items() if not _is_class_var(hint)]
    return typed + [n for n, v in vars(cls).items() if isinstance(v, dataclasses.Field) and n not in typed]


def _is_class_var(hint: Any) -> bool:
    if isinstance(hint, str):
        return re.match(r"([\w.]+\.)?ClassVar\b", hint) is not None
    return hint is typing.ClassVar or typing.get_origin(hint) is typing.ClassVar


def _hides(cls: type, field: dataclasses.Field[Any]) -> str:
    value = vars(cls)[field.name]
    shown = repr(value) if isinstance(value, int | float | str | tuple) else "..."
    limits = {k: v for k, v in field.metadata.items() if k in ("low", "high", "low_open", "high_open")}
    options = {k: v for k, v in limits.items() if v is not None and v is not False}
    words = "".join(f", {k}={v!r}" for k, v in {**options, **({"kw_only": True} if field.kw_only else {})}.items())
    hint = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    return (
        f"{_class(cls)}: {field.name} has no type, so it does not change the setting {field.name}; "
        f"write {field.name}: {hint} = ds.setting({shown}{words}) under {DECORATOR}"
    )


def _as_fields(init: Any) -> str:
    """The parameters of an ``__init__``, written as fields."""
    fields = []
    for parameter in [*inspect.signature(init).parameters.values()][1:]:
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        hint = type(parameter.default).__name__ if default and parameter.default is not None else "float"
        if parameter.annotation is not parameter.empty:
            hint = inspect.formatannotation(parameter.annotation).strip("'")
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            fields.append(f"{parameter.name}: {hint}{default}")
    return ", ".join(fields) or "half_life: float = 64.0"
