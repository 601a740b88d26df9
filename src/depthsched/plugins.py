"""The plug-in manager: entry points, registration, spec strings."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

from . import hookspecs
from .classes import refuse
from .compatibility import SOURCE, refuse_other_api, refuse_other_version
from .errors import PluginError, ProfileError, SettingsError, UnknownNameError
from .hookspecs import PROJECT
from .order import LayerOrder
from .profile import JSON_NAME
from .ranker import LayerRanker
from .schedule import DepthSchedule
from .settings import Settings, split_spec, suggest
from .userfile import run_file, said

GROUP = "depthsched"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("register_"))
DISABLE = "DEPTHSCHED_DISABLE_PLUGINS"
BUILTIN = "depthsched"
# What depthsched itself brings: modules with hooks, as those of plug-ins. The adapters wait until one is asked for.
MODULES = ("depthsched.schedules", "depthsched.order", "depthsched.rankers")
ADAPTERS = "depthsched.adapters"
_PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")  # no slash and no @: those make a hub id


@dataclass(frozen=True)
class Origin:
    """Where a name comes from: the plug-in (its distribution) and its version."""

    plugin: str
    version: str

    def __str__(self) -> str:
        return f"{self.plugin} {self.version}".strip()


@dataclass(frozen=True)
class Entry:
    """One registered class, or folder of a profile, and its origin."""

    value: Any
    origin: Origin


@dataclass
class Registry:
    """Every name that is known, built once from the built-ins and the installed plug-ins."""

    manager: pluggy.PluginManager
    origins: dict[str, Origin]
    schedules: dict[str, Entry] = field(default_factory=dict)
    orders: dict[str, Entry] = field(default_factory=dict)
    rankers: dict[str, Entry] = field(default_factory=dict)
    profiles: dict[str, Entry] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def schedule(self, name: str) -> type[DepthSchedule]:
        found: type[DepthSchedule] = self._get(self.schedules, "schedule", name)
        return found

    def order(self, name: str) -> type[LayerOrder]:
        found: type[LayerOrder] = self._get(self.orders, "order", name)
        return found

    def ranker(self, name: str) -> type[LayerRanker]:
        found: type[LayerRanker] = self._get(self.rankers, "ranker", name)
        return found

    def _get(self, entries: dict[str, Entry], kind: str, name: str) -> Any:
        if name in entries:
            return entries[name].value
        message = f"unknown {kind} {name!r}; {suggest(name, entries)}"
        if name in self.rankers:
            message = f"{name!r} is a ranker and no {kind}; rank with it: depthsched calibrate --order {name}"
        if self.failures:
            message += f" (not loaded: {', '.join(self.failures)}; see depthsched doctor)"
        raise UnknownNameError(message)

    def call(self, hook: str, argument_for: Callable[[str], Any], argument: str = "register") -> None:
        """Call one hook plug-in by plug-in, so that one that fails is named and does not stop the rest."""
        found = {name: plugin for name, plugin in self.manager.list_name_plugin() if plugin is not None}
        for name in sorted(found, key=lambda name: name != ADAPTERS):  # its names are taken before any plug-in's
            others = [plugin for other, plugin in found.items() if other != name]
            caller = self.manager.subset_hook_caller(hook, remove_plugins=others)
            try:
                caller(**{argument: argument_for(name)})
            except PluginError:
                raise
            except (Exception, SystemExit) as error:  # a plug-in's own fault, reported under its name
                self.failures[name] = f"{hook} failed: {said(error)}"

    def origin(self, plugin: str) -> Origin:
        """Where the names of a registered plug-in come from."""
        return self.origins.get(plugin, self.origins[BUILTIN])


def version() -> str:
    """The installed version of depthsched; ``"0+source"`` when it runs from a source tree."""
    try:
        return importlib.metadata.version("depthsched")
    except importlib.metadata.PackageNotFoundError:
        return SOURCE


@functools.cache
def registry() -> Registry:
    """The registry of this process. Entry points are loaded on the first call, not on import.

    Raises
    ------
    PluginError
        Two plug-ins register one name. A plug-in that fails to import raises nothing: it is recorded in
        ``failures`` under its name, and the rest work. So is one for another version of depthsched.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    for module in MODULES:
        manager.register(importlib.import_module(module), name=module)
    result = Registry(manager, {BUILTIN: Origin(BUILTIN, version())})
    if os.environ.get(DISABLE, "0") in ("", "0"):
        _load_entry_points(result)
    result.call("register_schedules", lambda plugin: _adder(result, result.schedules, DepthSchedule, plugin))
    result.call("register_orders", lambda plugin: _adder(result, result.orders, LayerOrder, plugin))
    result.call("register_rankers", lambda plugin: _adder(result, result.rankers, LayerRanker, plugin))
    result.call("register_profiles", lambda plugin: _profile_adder(result, plugin))
    return result


@functools.cache
def adapter_classes() -> dict[str, Entry]:
    """Every registered adapter class by name."""
    module = importlib.import_module(ADAPTERS)
    entries: dict[str, Entry] = {}
    registry().manager.register(module, name=ADAPTERS)
    registry().call("register_adapters", lambda plugin: _adder(registry(), entries, module.Adapter, plugin))
    return entries


def _load_entry_points(result: Registry) -> None:
    for point in importlib.metadata.entry_points(group=GROUP):
        dist = point.dist
        origin = Origin(dist.name if dist else point.name, dist.version if dist else "")
        name = origin.plugin if origin.plugin not in result.origins else f"{origin.plugin}:{point.name}"
        try:
            refuse_other_version(dist, version())
            plugin = point.load()
            refuse_other_api(plugin, version())
            _register(result.manager, plugin, name)
        except (Exception, SystemExit) as error:  # whatever an import raises: this plug-in is out, the rest work
            result.failures[name] = said(error)
        else:
            result.origins[name] = origin


def _register(manager: pluggy.PluginManager, plugin: Any, name: str) -> None:
    """Register, or leave nothing behind: pluggy keeps a plug-in whose hooks it refuses."""
    try:
        manager.register(plugin, name=name)
        unknown = [caller.name for caller in manager.get_hookcallers(plugin) or () if not caller.has_spec()]
        if unknown:
            raise PluginError(f"there is no hook {unknown[0]!r}; {suggest(unknown[0], HOOKS)}")
    except BaseException:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        raise


def _adder(result: Registry, entries: dict[str, Entry], base: type, plugin: str) -> Callable[[Any], None]:
    origin = result.origin(plugin)

    def register(value: Any) -> None:
        if not isinstance(value, type) or not issubclass(value, base):
            raise TypeError(f"{value!r} is not a {base.__name__} class")
        refuse(value)
        name = value.name  # type: ignore[attr-defined]  # every base has one
        _add(entries, getattr(value, "kind", "adapter"), name, Entry(value, origin))

    return register


def _profile_adder(result: Registry, plugin: str) -> Callable[[str, str | Path], None]:
    origin = result.origin(plugin)

    def register(name: str, folder: str | Path) -> None:
        if not isinstance(name, str) or not _PROFILE_NAME.fullmatch(name):
            raise ProfileError(f"{name!r} is no name for a profile; use a-z, 0-9, '.', '_' and '-', such as smollm2")
        path = Path(folder).absolute()
        if not (path / JSON_NAME).is_file():
            raise ProfileError(f"profile {name!r}: {path} has no {JSON_NAME}; give the folder that calibrate wrote")
        _add(result.profiles, "profile", name, Entry(path, origin))

    return register


def _add(entries: dict[str, Entry], kind: str, name: str, entry: Entry) -> None:
    if name in entries:
        raise PluginError(
            f"two plug-ins register the {kind} {name!r}: {entries[name].origin} and {entry.origin}; "
            f"uninstall one, or set {DISABLE}=1 to load none"
        )
    entries[name] = entry


def parse_schedule(spec: str) -> DepthSchedule:
    """A schedule from ``name:key=value,...`` or ``path/to/file.py:Class:key=value,...``.

    A ``.py`` path runs that file: naming it is asking for it. Nothing else ever runs code.
    """
    file = _names_file(spec)
    found: DepthSchedule = _from_file(spec, DepthSchedule) if file else _named(spec, "schedule", "d3:alpha=0.995")
    return found


def parse_order(spec: str) -> LayerOrder:
    """A layer order from ``name:key=value,...``."""
    found: LayerOrder = _named(spec, "order", "middle-out")
    return found


def parse_ranker(spec: str) -> LayerRanker:
    """A ranker from ``name:key=value,...`` or, as :func:`parse_schedule`, from a file."""
    found: LayerRanker = _from_file(spec, LayerRanker) if _names_file(spec) else _named(spec, "ranker", "block")
    return found


def _named(spec: str, kind: str, example: str) -> Any:
    name, settings = split_spec(spec)
    if not name:
        raise SettingsError(f"the {kind} is empty; give a name such as {example} (see depthsched list)")
    return getattr(registry(), kind)(name).from_settings(settings)


def split_rankers(text: str) -> tuple[str, ...]:
    """Several specs joined by commas: ``"block,swift:steps=200,ratio=0.4"`` has two, for a setting has a ``=``."""
    found: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, _ = part.partition("=")
        if found and equals and ":" not in name:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return tuple(found)


def _names_file(spec: str) -> bool:
    return ".py:" in spec or spec.strip().endswith(".py")


def _from_file(spec: str, base: type[Any]) -> Any:
    path_text, _, rest = spec.strip().partition(".py")
    path = Path(path_text + ".py").expanduser()
    class_name, settings = split_spec(rest.removeprefix(":"))
    module = run_file(path)
    refuse_other_api(module, version(), f"{path} ")
    found = {k: v for k, v in vars(module).items() if _is_own(v, base, module.__name__)}
    if not class_name and len(found) == 1:
        class_name = next(iter(found))
    if class_name not in found:
        have = ", ".join(found) or "none"
        raise SettingsError(
            f"{path} has no {base.kind} class {class_name!r}; it has {have}: use {path}:Class:key=value"
        )
    made = found[class_name].from_settings(settings)
    type(made).name = f"{path}:{class_name}"  # its spec must lead back to the file
    return made


def _is_own(value: Any, base: type, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, base) and value.__module__ == module


def describe(cls: type[Settings] | type) -> str:
    """The first line of a class's docstring."""
    return (cls.__doc__ or "").strip().partition("\n")[0]
