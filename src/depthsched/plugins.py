"""The plug-in manager: entry points, registration, spec strings."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

from . import hookspecs, order, schedules
from .errors import PluginError, SettingsError, UnknownNameError
from .files import digest
from .hookspecs import PROJECT, hookimpl
from .order import LayerOrder
from .schedule import DepthSchedule
from .settings import Settings, split_spec, suggest

GROUP = "depthsched"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("register_"))
DISABLE = "DEPTHSCHED_DISABLE_PLUGINS"
BUILTIN = "depthsched"


@dataclass(frozen=True)
class Origin:
    """Where a name comes from: the plug-in (its distribution) and its version."""

    plugin: str
    version: str

    def __str__(self) -> str:
        return f"{self.plugin} {self.version}".strip()


@dataclass(frozen=True)
class Entry:
    """One registered class and its origin."""

    value: Any
    origin: Origin


@dataclass
class Registry:
    """Every name that is known, built once from the built-ins and the installed plug-ins."""

    manager: pluggy.PluginManager
    origins: dict[str, Origin]
    schedules: dict[str, Entry] = field(default_factory=dict)
    orders: dict[str, Entry] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def schedule(self, name: str) -> type[DepthSchedule]:
        found: type[DepthSchedule] = self._get(self.schedules, "schedule", name)
        return found

    def order(self, name: str) -> type[LayerOrder]:
        found: type[LayerOrder] = self._get(self.orders, "order", name)
        return found

    def _get(self, entries: dict[str, Entry], kind: str, name: str) -> Any:
        if name in entries:
            return entries[name].value
        message = f"unknown {kind} {name!r}; {suggest(name, entries)}"
        if self.failures:
            message += f" (not loaded: {', '.join(self.failures)}; see depthsched doctor)"
        raise UnknownNameError(message)

    def call(self, hook: str, argument_for: Callable[[str], Any], argument: str = "register") -> None:
        """Call one hook plug-in by plug-in, so that one that fails is named and does not stop the rest."""
        for name, plugin in list(self.manager.list_name_plugin()):
            if plugin is None:
                continue
            others = [p for n, p in self.manager.list_name_plugin() if p is not None and n != name]
            caller = self.manager.subset_hook_caller(hook, remove_plugins=others)
            try:
                caller(**{argument: argument_for(name)})
            except PluginError:
                raise
            except (Exception, SystemExit) as error:  # a plug-in's own fault, reported under its name
                self.failures[name] = f"{hook} failed: {type(error).__name__}: {error}"


class _Builtins:
    @hookimpl
    def register_schedules(self, register: Callable[[type[DepthSchedule]], None]) -> None:
        for schedule in schedules.BUILTIN:
            register(schedule)

    @hookimpl
    def register_orders(self, register: Callable[[type[LayerOrder]], None]) -> None:
        for layer_order in order.BUILTIN:
            register(layer_order)

    @hookimpl
    def register_adapters(self, register: Callable[[Any], None]) -> None:
        from .adapters import BUILTIN as adapters

        for adapter in adapters:
            register(adapter)


def version() -> str:
    """The installed version of depthsched; ``"0+source"`` when it runs from a source tree."""
    try:
        return importlib.metadata.version("depthsched")
    except importlib.metadata.PackageNotFoundError:
        return "0+source"


@functools.cache
def registry() -> Registry:
    """The registry of this process. Entry points are loaded on the first call, not on import.

    Raises
    ------
    PluginError
        Two plug-ins register one name. A plug-in that fails to import raises nothing: it is recorded in
        ``failures`` under its name, and the rest work.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(_Builtins(), name=BUILTIN)
    result = Registry(manager, {BUILTIN: Origin(BUILTIN, version())})
    if os.environ.get(DISABLE, "0") in ("", "0"):
        _load_entry_points(result)
    result.call("register_schedules", lambda plugin: _adder(result, result.schedules, DepthSchedule, plugin))
    result.call("register_orders", lambda plugin: _adder(result, result.orders, LayerOrder, plugin))
    return result


@functools.cache
def adapter_classes() -> dict[str, Entry]:
    """Every registered adapter class by name."""
    from .adapters.base import Adapter

    entries: dict[str, Entry] = {}
    registry().call("register_adapters", lambda plugin: _adder(registry(), entries, Adapter, plugin))
    return entries


def _load_entry_points(result: Registry) -> None:
    for point in importlib.metadata.entry_points(group=GROUP):
        dist = point.dist
        origin = Origin(dist.name if dist else point.name, dist.version if dist else "")
        name = origin.plugin if origin.plugin not in result.origins else f"{origin.plugin}:{point.name}"
        try:
            _register(result.manager, point.load(), name)
        except (Exception, SystemExit) as error:  # whatever an import raises: this plug-in is out, the rest work
            result.failures[name] = f"{type(error).__name__}: {error}"
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
    origin = result.origins[plugin]

    def register(value: Any) -> None:
        if not isinstance(value, type) or not issubclass(value, base):
            raise TypeError(f"{value!r} is not a {base.__name__} class")
        name = value.name  # type: ignore[attr-defined]  # every base has one
        if name in entries:
            kind = getattr(value, "kind", "adapter")
            raise PluginError(
                f"two plug-ins register the {kind} {name!r}: {entries[name].origin} and {origin}; "
                f"uninstall one, or set {DISABLE}=1 to load none"
            )
        entries[name] = Entry(value, origin)

    return register


def parse_schedule(spec: str) -> DepthSchedule:
    """A schedule from ``name:key=value,...`` or ``path/to/file.py:Class:key=value,...``.

    A ``.py`` path runs that file: naming it is asking for it. Nothing else ever runs code.
    """
    if ".py:" in spec or spec.strip().endswith(".py"):
        return _from_file(spec)
    name, settings = split_spec(spec)
    if not name:
        raise SettingsError("the schedule is empty; give a name such as d3:alpha=0.995 (see depthsched list)")
    return registry().schedule(name).from_settings(settings)


def parse_order(spec: str) -> LayerOrder:
    """A layer order from ``name:key=value,...``."""
    name, settings = split_spec(spec)
    if not name:
        raise SettingsError("the order is empty; give a name such as middle-out (see depthsched list)")
    return registry().order(name).from_settings(settings)


def _from_file(spec: str) -> DepthSchedule:
    path_text, _, rest = spec.strip().partition(".py")
    path = Path(path_text + ".py").expanduser()
    class_name, settings = split_spec(rest.removeprefix(":"))
    module = _run_file(path)
    found = {k: v for k, v in vars(module).items() if _is_own_schedule(v, module.__name__)}
    if not class_name and len(found) == 1:
        class_name = next(iter(found))
    if class_name not in found:
        have = ", ".join(found) or "none"
        raise SettingsError(f"{path} has no schedule class {class_name!r}; it has {have}: use {path}:Class:key=value")
    schedule: DepthSchedule = found[class_name].from_settings(settings)
    # The spec of a schedule from a file must lead back to the file.
    return _with_file_name(schedule, f"{path}:{class_name}")


def _with_file_name(schedule: DepthSchedule, name: str) -> DepthSchedule:
    type(schedule).name = name
    return schedule


def _is_own_schedule(value: Any, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, DepthSchedule) and value.__module__ == module


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise SettingsError(f"no such file: {path}; give path/to/file.py:Class:key=value,...")
    name = "depthsched_user_" + digest(str(path.resolve()), 12)
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise SettingsError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise SettingsError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return module


def describe(cls: type[Settings] | type) -> str:
    """The first line of a class's docstring."""
    return (cls.__doc__ or "").strip().partition("\n")[0]
