"""Write the generated parts of the reference: ``python docs/make_tables.py`` (``--check`` only compares).

Tables of schedules, orders and rankers come from the registry, the table of families from the adapters, and the options
of each command from the command line itself. Only what depthsched itself brings is written.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["DEPTHSCHED_DISABLE_PLUGINS"] = "1"  # the pages must not depend on what else is installed

import typer

import depthsched as ds
from depthsched.adapters import REFUSED
from depthsched.plugins import adapter_classes, describe
from depthsched.settings import field_types, spec_key
from depthsched.signals import SIGNALS

REFERENCE = Path(__file__).parent / "reference"
LAYERS, TOKENS = 32, 128
NOTE = "<!-- Written by `python docs/make_tables.py`; edit the docstrings and settings it reads, not this page. -->\n"
ABSENT = "–"


def schedules_page() -> str:
    entries = ds.registry().schedules
    text = [
        "# Schedules, orders and rankers\n",
        NOTE,
        "What depthsched brings. `depthsched list` shows these and whatever the installed plug-ins add.\n",
        "## Schedules\n",
        f"The curve is the depth over {TOKENS} tokens on {LAYERS} layers, for the spec above it.\n",
        _table(
            ["name", "what it does", "example", "depth may rise", "paper"],
            [_schedule_row(entry.value) for entry in entries.values()],
        ),
        "### Settings of every schedule\n",
        _settings_table(ds.DepthSchedule),
    ]
    shared = {field.name for field in dataclasses.fields(ds.DepthSchedule)}
    for name, entry in entries.items():
        text += [f"### `{name}`\n", _doc(entry.value), _settings_table(entry.value, leave_out=shared)]
    text += [
        "## Orders\n",
        f"Which layers go first. The layers shown are those left out at depth 24 of {LAYERS}.\n",
        _table(
            ["name", "what it does", "left out at depth 24", "paper"],
            [_order_row(entry.value) for entry in ds.registry().orders.values()],
        ),
    ]
    for name, entry in ds.registry().orders.items():
        text += [f"### `{name}`\n", _doc(entry.value), _settings_table(entry.value)]
    text += [
        "## Rankers\n",
        "What ranks the layers of one model in a calibration: `depthsched calibrate --order NAME`.\n",
        _table(
            ["name", "what it does", "paper"],
            [
                [f"[`{name}`](#{name}-ranker)", _code(describe(entry.value)), _paper(entry.value)]
                for name, entry in ds.registry().rankers.items()
            ],
        ),
    ]
    for name, entry in ds.registry().rankers.items():
        text += [f"### `{name}` (ranker)\n", _doc(entry.value), _settings_table(entry.value)]
    return "\n".join(text)


def _schedule_row(cls: type[ds.DepthSchedule]) -> list[str]:
    if cls.from_profile:
        return [f"[`{cls.name}`](#{cls.name})", _code(describe(cls)), "from a profile", "no", _paper(cls)]
    budget = any(field.metadata.get("budget") for field in dataclasses.fields(cls))
    schedule = ds.schedule_for_budget(cls.name, 24, num_layers=LAYERS, horizon=TOKENS) if budget else cls()
    plan = ds.plan(schedule, num_layers=LAYERS, horizon=TOKENS)
    rises = "no" if cls.monotone else "yes"
    curve = f'<span class="curve">{plan.to_text(24)}</span>'
    example = f"`{schedule.spec()}`<br>{curve}"
    return [f"[`{cls.name}`](#{cls.name})", _code(describe(cls)), example, rises, _paper(cls)]


def _order_row(cls: type[ds.LayerOrder]) -> list[str]:
    required = any(field.default is dataclasses.MISSING for field in dataclasses.fields(cls))
    order = cls.from_settings("layers=" + "+".join(str(i) for i in range(3, 11)) if required else "")
    kept = order.keep(24, LAYERS)
    left_out = _runs([layer for layer in range(LAYERS) if layer not in kept])
    return [f"[`{cls.name}`](#{cls.name})", _code(describe(cls)), f"{left_out} (`{order.spec()}`)", _paper(cls)]


def _runs(layers: list[int]) -> str:
    """``[3, 4, 5, 9]`` -> ``3-5, 9``."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _doc(cls: type) -> str:
    return _code(" ".join(_paragraphs(cls))).replace(" ¶ ", "\n\n") + "\n"


def _code(text: str) -> str:
    """reStructuredText's double back quotes as Markdown's single ones."""
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _paragraphs(cls: type) -> list[str]:
    lines = [line.strip() for line in (cls.__doc__ or "").strip().splitlines()]
    return ["¶" if not line else re.sub(r"(https://[^\s)]*[^\s).,;:])", r"<\1>", line) for line in lines]


def _paper(cls: type) -> str:
    found = re.search(r"arxiv\.org/abs/([\d.]+\d)", cls.__doc__ or "")
    return f"[arXiv {found[1]}](https://arxiv.org/abs/{found[1]})" if found else ABSENT


def _settings_table(cls: Any, leave_out: set[str] | frozenset[str] = frozenset()) -> str:
    rows = [
        [f"`{spec_key(field)}`", _type(hint), _range(field), _default(field), field.metadata.get("help") or ABSENT]
        for field, hint in field_types(cls)
        if field.name not in leave_out
    ]
    return _table(["setting", "type", "range", "default", "meaning"], rows) if rows else "No settings of its own.\n"


def _type(hint: Any) -> str:
    text = str(getattr(hint, "__name__", hint)) if isinstance(hint, type) else str(hint)
    names = {
        "int": "whole number",
        "float": "number",
        "int | float": "number",
        "tuple[int, ...]": "numbers joined by +",
    }
    text = text.removesuffix(" | None")
    return names.get(text, text)


def _range(field: dataclasses.Field[Any]) -> str:
    low, high, meta = field.metadata.get("low"), field.metadata.get("high"), field.metadata
    if low is None and high is None:
        return ABSENT
    if high is None:
        return f"{'above' if meta['low_open'] else 'from'} {low}"
    if low is None:
        return f"{'below' if meta['high_open'] else 'to'} {high}"
    if meta["low_open"] or meta["high_open"]:
        left, right = "(" if meta["low_open"] else "[", ")" if meta["high_open"] else "]"
        return f"{left}{low}, {high:,}{right}"
    return f"{low} to {high:,}"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    value = "+".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
    return f"`{value.lower() if field.default is None else value}`"


def families_page() -> str:
    text = [
        "# Model families\n",
        NOTE,
        "The family is `config.model_type` of a model. A family that is in neither table is refused because nobody has "
        "checked it; `force=True` in Python drives it as if it were a Llama.\n",
        "## Driven\n",
    ]
    for name, entry in adapter_classes().items():
        rows = [[f"`{family}`", note] for family, note in sorted(entry.value.families.items())]
        text += [f"Adapter `{name}`: {describe(entry.value)}\n", _table(["family", "what is special about it"], rows)]
    rows = [[f"`{family}`", reason] for family, reason in sorted(REFUSED.items())]
    text += ["## Refused\n", _table(["family", "why"], rows)]
    return "\n".join(text)


def command_tables() -> dict[str, str]:
    """The table of arguments and options of every command."""
    from depthsched.cli import build_app

    root: Any = typer.main.get_command(build_app())
    return {name: _options_table(command) for name, command in _tree("depthsched", root)}


def _tree(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and everything under it."""
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from _tree(f"{name} {word}", below)


def _options_table(command: Any) -> str:
    rows = []
    for param in command.params:
        if param.param_type_name == "argument":
            name = f"`{(param.name or '').upper()}`"
        else:
            name = ", ".join(f"`{opt}`" for opt in [*param.opts, *param.secondary_opts])
        plain = (getattr(param, "help", None) or ABSENT).replace("\\[", "[")
        meaning = plain.replace("[", "\\[")  # or "a[b][c]" reads as a link
        rows.append([name, _param_type(param), _param_default(param), meaning])
    return _table(["argument or option", "takes", "default", "meaning"], rows) if rows else "No options.\n"


def _param_type(param: Any) -> str:
    if getattr(param, "is_flag", False):
        return "nothing"
    names = {"int": "whole number", "float": "number", "str": "text", "Path": "file"}
    name = param.type_descriptor.annotation.__name__
    return names.get(name, name)


def _param_default(param: Any) -> str:
    if param.required:
        return "required"
    if getattr(param, "is_flag", False):
        return "on" if param.default is True else "off"
    return ABSENT if param.default is None else f"`{param.default}`"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cli_page() -> str:
    """The hand-written page of commands with the tables between its markers written anew."""
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    for name, table in command_tables().items():
        head, begin, rest = text.partition(f"<!-- options: {name} -->")
        _, end, tail = rest.partition("<!-- end -->")
        if not end:
            raise SystemExit(
                f"docs/reference/cli.md has no table for {name!r}; add <!-- options: {name} --><!-- end -->"
            )
        text = f"{head}{begin}\n\n{table}\n{end}{tail}"
    return text


def signals_page() -> str:
    """The hand-written page on adaptive schedules with its table of signals written anew."""
    text = (REFERENCE.parent / "how-to" / "adaptive.md").read_text(encoding="utf-8")
    head, begin, rest = text.partition("<!-- table: signals -->")
    _, end, tail = rest.partition("<!-- end -->")
    if not end:
        raise SystemExit("docs/how-to/adaptive.md has no table of signals; add <!-- table: signals --><!-- end -->")
    rows = [[f"`{name}`", s.meaning, s.unit, s.values, s.cost, s.where] for name, s in SIGNALS.items()]
    table = _table(["signal", "meaning", "unit", "values", "costs, each step", "where"], rows)
    return f"{head}{begin}\n\n{table}\n{end}{tail}"


PAGES = {
    "schedules.md": schedules_page,
    "families.md": families_page,
    "cli.md": cli_page,
    "../how-to/adaptive.md": signals_page,
}


def main(arguments: list[str]) -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = REFERENCE / name, make()
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"stale: {', '.join(stale)}; run python docs/make_tables.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
