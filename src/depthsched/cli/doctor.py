"""``depthsched doctor``."""

from __future__ import annotations

import importlib.util
import platform
from typing import Annotated, NamedTuple

import typer
from rich.markup import escape

from .. import models, plugins
from ..environment import BROWSERS, installed, machine, program, versions
from ..errors import ModelError, SettingsError
from ..files import cache_folder
from ..hookspecs import API
from .doctor_check import check_backends
from .output import DeviceOption, DtypeOption, JsonOption, WeightsOption, console, print_json, table


class Finding(NamedTuple):
    """One thing that doctor looked at."""

    name: str
    ok: bool
    detail: str


def add_to(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    check: Annotated[
        str | None, typer.Option("--check", help="Compare every fast backend with eager on this model, and time both.")
    ] = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    json: JsonOption = False,
) -> None:
    """What is installed, what is missing, and what to do about it."""
    if check is not None:
        check_backends(check, dtype, device, weights, as_json=json)
        return
    findings = [*_packages(), *_plugins(), _embedded(), _cache(), _library(), _gpu(), *_programs(), *_extras()]
    if json:
        print_json({"rows": [f._asdict() for f in findings], "versions": versions()})
        return
    rows = table("", "what", "detail")
    for finding in findings:
        rows.add_row("[green]ok[/]" if finding.ok else "[yellow]--[/]", finding.name, escape(finding.detail))
    console().print(rows)


def _packages() -> list[Finding]:
    found = [Finding(name, version != "missing", version) for name, version in versions().items()]
    return [*found, Finding("platform", True, f"{machine()}, {platform.system()}")]


def _plugins() -> list[Finding]:
    registry = plugins.registry()
    plugins.adapter_classes()
    good = [Finding(f"plug-in {name}", True, origin.version) for name, origin in registry.origins.items()]
    api = Finding("plug-in API", True, str(API))
    return [api, *good[1:], *(Finding(f"plug-in {name}", False, text) for name, text in registry.failures.items())]


def _embedded() -> Finding:
    try:
        return Finding("model smollm2", True, models.embedded_gguf().name)
    except ModelError as error:
        return Finding("model smollm2", False, str(error))


def _cache() -> Finding:
    try:
        return Finding("cache folder", True, str(cache_folder()))
    except SettingsError as error:
        return Finding("cache folder", False, str(error))


def _library() -> Finding:
    """Looks only: nothing is built."""
    from ..native import build, toolchain

    found = build.about()
    if found:
        one = "" if "-fopenmp" in found["flags"] else "; one thread, since its compiler knows no OpenMP"
        return Finding("compiled library", True, f"{build.folder()}{one}")
    try:
        if toolchain.compiler():
            wait = f"the first run makes it, in about {build.ABOUT_SECONDS} s: depthsched compile"
            return Finding("compiled library", True, f"not there yet; {wait}")
        return Finding("compiled library", False, "no C++ compiler to make it: install g++ for fast decoding on a CPU")
    except ModelError as error:
        return Finding("compiled library", False, str(error))


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, torch.cuda.get_device_name(0))
    return Finding("GPU", False, "none; everything runs on the CPU")


def _programs() -> list[Finding]:
    browser = program(*BROWSERS)
    advice = "only the tests of reports need it: apt-get install chromium"
    return [_compiler(), Finding("Chromium", browser is not None, browser or advice)]


def _compiler() -> Finding:
    from ..native import toolchain

    try:
        command = toolchain.compiler()
    except ModelError as error:  # $CXX names no program
        return Finding("C++ compiler", False, str(error))
    found = " ".join(command or []) or "install g++ for compiled backends"
    return Finding("C++ compiler", command is not None, found)


def _extras() -> list[Finding]:
    """Packages of the optional extras, and the command that needs them."""
    needs = {"eval": ("lm_eval", "depthsched eval"), "ray": ("ray", "depthsched sweep --ray")}
    found = []
    for extra, (package, command) in needs.items():
        there = installed(package) if importlib.util.find_spec(package) else None
        advice = f"{command} needs it: pip install 'depthsched[{extra}]'"
        found.append(Finding(f"extra {extra}", there is not None, f"{package} {there}" if there else advice))
    return found
