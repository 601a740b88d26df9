"""How ``depthsched generate`` looks to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..text import block
from .output import console, table

# From few layers (warm) to all of them (cool): one colour for each share of the depth.
_COLOURS = ("#dc2626", "#ea580c", "#d97706", "#65a30d", "#0891b2", "#2563eb")


class _TokenBar:
    """A streamer that moves a progress bar by one for every token."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self.bar, self.task, self.prompt_seen = bar, task, False

    def put(self, value: Any) -> None:
        if self.prompt_seen:
            self.bar.advance(self.task)
        self.prompt_seen = True

    def end(self) -> None:
        self.bar.refresh()


@contextmanager
def progress(out: Console, title: str, total: int) -> Iterator[_TokenBar]:
    """A progress bar over tokens, gone when the run ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        yield _TokenBar(bar, bar.add_task(title, total=total))


def print_result(result: dict[str, Any], tokenizer: Any) -> None:
    """The text with every token in the colour of its depth, the depth of every token, and the numbers."""
    out = console()
    if "full" in result:
        out.print(Panel(result["full"]["text"].strip(), title="full depth", title_align="left", border_style="dim"))
    depth = f"{result['mean_depth']:.1f} of {result['num_layers']} layers"
    how = ", lossless" if "lossless" in result else ""
    title = f"{result['schedule']} @ {result['order']}{how}: mean depth {depth}"
    body = Group(coloured(result, tokenizer), Text(), depth_strip(result["depths"], result["num_layers"]))
    out.print(Panel(body, title=title, title_align="left", border_style="cyan"))
    out.print(numbers(result))
    if "renewal" in result:
        from ..runtime.trace import renewal_line

        out.print(renewal_line(result["renewal"]).capitalize() + ".")
    for line in result["_run"].drafting:
        out.print(line, markup=False, soft_wrap=True)
    if "full" in result:
        share = result["equal_prefix_share"]
        same = round(share * max(result["num_tokens"], result["full"]["num_tokens"]))
        out.print(f"Equal to full depth before the first difference: {same} tokens, {share:.0%}.")


def coloured(result: dict[str, Any], tokenizer: Any) -> Text:
    """The text, token by token in the colour of its depth."""
    text, done = Text(), ""
    tokens = result["tokens"]
    for end, depth in enumerate(result["depths"][: len(tokens)], start=1):
        now = tokenizer.decode(tokens[:end], skip_special_tokens=True)
        if now.endswith("�"):
            continue  # a character that needs its next tokens
        text.append(now[len(done) :], style=colour(depth, result["num_layers"]))
        done = now
    return text


def colour(depth: int, num_layers: int) -> str:
    return _COLOURS[min(int((depth - 1) / num_layers * len(_COLOURS)), len(_COLOURS) - 1)]


def depth_strip(depths: list[int], num_layers: int) -> Text:
    """One block for every token, and the same as numbers: ``30x3 29x5`` is three tokens at 30, five at 29."""
    strip, lowest = Text("depth "), min(depths)
    for depth in depths:
        share = (depth - lowest) / max(num_layers - lowest, 1)  # the blocks span the depths that occur
        strip.append(block(share), style=colour(depth, num_layers))
    strip.append("\n      " + " ".join(f"{d}x{len(list(group))}" for d, group in groupby(depths)), style="dim")
    return strip


def numbers(result: dict[str, Any]) -> Any:
    """Tokens, depth, savings and speed, a row for each run."""
    # Short heads: the table fits 80 columns.
    rows = table("run", ">tokens", ">depth", ">layers", ">bytes", ">prefill", ">decode", ">tokens/s")
    rows.columns[0].no_wrap = True
    for name, run in (("full depth", result.get("full")), (result["schedule"], result)):
        if run is not None:
            rows.add_row(
                name,
                str(run["num_tokens"]),
                f"{run['mean_depth']:.1f}",
                f"÷{run['layer_speedup']:.2f}",
                f"÷{run['bytes_speedup']:.2f}",
                f"{run['prefill_seconds']:.2f} s",
                f"{run['decode_seconds']:.2f} s",
                f"{run['tokens_per_second']:.1f}",
            )
    return rows
