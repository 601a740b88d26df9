"""Nothing that a user can reach is missing from the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

import depthsched as ds
from depthsched import adapters, hookspecs, testing
from depthsched.cli import build_app

from .pages import DOCS


def _page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def _section(text: str, heading: str) -> str:
    """From a heading of the second level to the next one."""
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return match[1] if match else ""


HOOKS = [name for name in vars(hookspecs) if name.startswith("register_")]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_with_an_example(hook: str) -> None:
    section = _section(_page("plugins/hooks.md"), hook)
    assert f"{hook}(" in section, f"docs/plugins/hooks.md has no section '## {hook}' with its signature"
    assert f"def {hook}(" in section, f"docs/plugins/hooks.md shows no example of {hook}"


def test_the_hooks_are_all_that_pluggy_knows() -> None:
    manager = ds.registry().manager
    assert set(HOOKS) == {name for name in vars(manager.hook) if not name.startswith("_")}


def _commands() -> Iterator[tuple[str, Any]]:
    root: Any = typer.main.get_command(build_app())
    for name, command in root.commands.items():
        if _module(command).startswith("depthsched."):  # plug-ins document their own
            yield from _tree(f"depthsched {name}", command)
    yield "depthsched", root


def _module(command: Any) -> str:
    """Where a command, or the first of a group, is written."""
    while getattr(command, "commands", None):
        command = next(iter(command.commands.values()))
    return str(command.callback.__module__)


def _tree(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from _tree(f"{name} {word}", below)


@pytest.mark.parametrize(("name", "command"), [pytest.param(n, c, id=n) for n, c in _commands()])
def test_every_command_and_option_is_documented(name: str, command: Any) -> None:
    section = _section(_page("reference/cli.md"), name)
    assert section, f"docs/reference/cli.md has no section '## {name}'"
    if command is not None and name != "depthsched":
        assert command.help, f"{name} has no help text"
    for param in command.params:
        words = [param.name.upper()] if param.param_type_name == "argument" else [*param.opts, *param.secondary_opts]
        for word in words:
            assert f"`{word}`" in section, f"docs/reference/cli.md: {word} of {name} is missing"
        assert param.help, f"{name}: {' '.join(words)} has no help text"


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(n, id=f"depthsched.{n}") for n in ds.__all__),
        *(pytest.param(n, id=f"testing.{n}") for n in testing.__all__),
        *(pytest.param(n, id=f"adapters.{n}") for n in adapters.__all__),
    ],
)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    page = _page("reference/api.md")
    shown = re.search(rf"^(::: depthsched\.([\w.]+\.)?|### `){name}\b", page, re.MULTILINE)
    assert shown, f"docs/reference/api.md does not show {name}; add '::: <module>.{name}'"


def test_every_check_of_the_conformance_kit_is_explained() -> None:
    page = _page("plugins/conformance.md")
    for kit in (testing.ScheduleConformance, testing.OrderConformance, testing.RankerConformance):
        for test in (name for name in dir(kit) if name.startswith("test_")):
            assert f"`{test.removeprefix('test_')}`" in page, f"docs/plugins/conformance.md does not explain {test}"


def test_environment_variables_are_documented() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "src").rglob("*.py"))
    for variable in sorted(set(re.findall(r'"(DEPTHSCHED_[A-Z_]+)"', sources))):
        assert f"`{variable}`" in _page("reference/cli.md"), f"docs/reference/cli.md does not name {variable}"
