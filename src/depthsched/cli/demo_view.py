"""How ``depthsched demo`` looks to a person."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from .generate_view import colour, coloured, depth_strip
from .output import console, table

if TYPE_CHECKING:
    from ..demo import DemoResult, DemoText

FIRST_TUTORIAL = "docs/tutorials/first-schedule.md"
# The first three that exist here: the command, its arguments, and what it is for.
NEXT = (
    ("studio", "", "the same on a page of your own: drag the depth, watch the text"),
    ("new", " half-life", "an idea of your own, as a plug-in with its test"),
    ("chat", "", "talk to it, and change the schedule between two answers"),
)
TUTORIALS = f"in the repository: {FIRST_TUTORIAL} and those beside it, from ten lines to a plug-in"


def print_demo(result: DemoResult, about: Mapping[str, Any], tokenizer: Any, commands: Collection[str]) -> None:
    """The table, two texts in the colours of their depth, and what to try next."""
    out = console()
    for note in result.context["notes"]:
        out.print(note, style="yellow", markup=False, soft_wrap=True)
    for line in _conditions(result, str(about["model"])):
        out.print(line, markup=False)
    out.print()
    out.print(_rows(result))
    out.print()
    for line in _meaning(result):
        out.print(line, style="dim", markup=False)
    if about["no_profile"]:
        for line in without_profile(about["no_profile"]):
            out.print(line, style="yellow", markup=False, soft_wrap=True)
    out.print()
    out.print(f"> {result.context['prompts'][0]}", style="bold", markup=False)
    for text in result.texts:
        out.print(_panel(text, tokenizer, strip=text is not result.texts[0]))
    if out.is_terminal:
        out.print(_legend(result.texts))
    out.print("\nWhat to try next:")
    for line in next_steps(commands):
        out.print(f"  {line}", markup=False, soft_wrap=True)


def _conditions(result: DemoResult, model: str) -> list[str]:
    about = result.context
    ours = result.rows[1]
    others = [row for row in result.rows[2:] if row.backend != ours.backend]
    kept = "native, the blocks of its file" if about["weights"] == "native" else "dense"
    threads = "1 thread" if about["threads"] == 1 else f"{about['threads']} threads"
    return [
        f"{model} on {about['machine']}, {threads}: {len(about['prompts'])} questions, {about['tokens']} tokens each, "
        f"{about['rounds']} alternating rounds, greedy; medians.",
        f"transformers {about['versions']['transformers']}: dense weights in {about['transformers_dtype']}.",
        f"depthsched: weights {kept}, in {about['dtype']}; backend {ours.backend} ({ours.reason}). "
        f"D³ is {about['d3']}, and the constant depth its mean.",
        *(f"{row.name}: backend {row.backend} ({row.reason})." for row in others),
    ]


def _rows(result: DemoResult) -> Any:
    heads = ("", ">layers\na token", ">tokens/s", ">times\ntransformers", ">same next\ntoken", ">same\ntext")
    rows = table(*heads)
    for row in result.rows:
        rows.add_row(
            row.name,
            f"{row.mean_depth:.1f}",
            f"{row.tokens_per_second.median:.0f}",
            f"{row.vs_transformers.median:.1f}",
            f"{row.same_token:.0%}",
            f"{row.same_text:.0%}",
        )
    return rows


def _meaning(result: DemoResult) -> list[str]:
    lossless = next(row for row in result.rows if row.lossless)
    said = [
        f"same next token: how often a way goes on as full depth does, asked after each of {result.context['places']} "
        "tokens of full depth's own answers. same text: share of an answer before its first other token. "
        "Of a lossless run the layers count drafts and checks.",
        "What leaving layers out brings is what the rows below full depth have more than it; the rest is compiled code "
        "and the form of the weights.",
    ]
    if result.context["transformers_dtype"] != result.context["dtype"]:
        rounded = f"rounds in {result.context['transformers_dtype']}, depthsched in {result.context['dtype']}"
        said.append(f"transformers {rounded}: that alone makes other texts.")
    if lossless.same_text < 1:
        said.append(
            "The lossless run wrote another text than full depth: in half precision near ties can fall either way."
        )
    return said


def without_profile(reason: str) -> list[str]:
    """That the calibrated rows are left out, why, and how to get them."""
    return [
        f"The two rows with calibrated layers are left out: {reason}.",
        "To have them: depthsched calibrate --prompts FILE --out my-profile, then depthsched demo --profile my-profile",
    ]


def _panel(text: DemoText, tokenizer: Any, strip: bool) -> Panel:
    mean = sum(text.depths) / len(text.depths)
    depths = list(text.depths)
    body = [coloured({"tokens": list(text.tokens), "depths": depths, "num_layers": text.num_layers}, tokenizer)]
    if strip:
        body += [Text(), depth_strip(depths, text.num_layers)]
    title = f"{text.name}: {mean:.1f} of {text.num_layers} layers"
    return Panel(Group(*body), title=title, title_align="left", border_style="cyan" if strip else "dim")


def _legend(texts: Sequence[DemoText]) -> Text:
    """Which colour stands for which depths, of those that occur."""
    layers = texts[0].num_layers
    shades: dict[str, list[int]] = {}
    for depth in sorted({depth for text in texts for depth in text.depths}, reverse=True):
        shades.setdefault(colour(depth, layers), []).append(depth)
    legend = Text("layers: ")
    for shade, depths in shades.items():
        legend.append(f"{depths[-1]}" if len(depths) == 1 else f"{depths[-1]}-{depths[0]}", style=shade)
        legend.append("  ")
    return legend


def next_steps(commands: Collection[str]) -> list[str]:
    """Three things to do, of commands that exist."""
    here = program()
    typed = [(f"{here} {name}{words}", meaning) for name, words, meaning in NEXT if name in commands][:2]
    width = max((len(line) for line, _ in typed), default=0)
    return [*(f"{line:{width}}  {meaning}" for line, meaning in typed), TUTORIALS]


def program() -> str:
    """How this program is typed from here: its name where the shell finds it, else its path."""
    here, found = Path(sys.argv[0]), shutil.which("depthsched")
    if here.name != "depthsched" or (found and Path(found).resolve() == here.resolve()):
        return "depthsched"
    return str(here.relative_to(Path.cwd()) if here.is_absolute() and here.is_relative_to(Path.cwd()) else here)
