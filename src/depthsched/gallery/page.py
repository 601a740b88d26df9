"""A gallery as a page: ranked tables, a picture, and the line that reproduces each row."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..files import write_atomic, write_figure
from .run import CONSTANT, Measured, Row

PICTURE = "gallery.png"


def write_page(found: Measured, path: Path) -> None:
    """Write the page, and its picture beside it.

    Raises
    ------
    SettingsError
        The file cannot be written.
    """
    if found.rows:
        save_picture(found.rows, path.with_name(PICTURE))
    try:
        write_atomic(path, page(found).encode())
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def page(found: Measured) -> str:
    """The page as Markdown."""
    gallery = found.gallery
    text = [
        "# Gallery\n",
        f"{sentences(found)}\n",
        f"Every schedule at equal bytes on `{gallery.model}`, {gallery.dtype}, {gallery.limit} prompts of "
        f"`{Path(found.inputs.prompts).name}`, the model's own answers up to {gallery.max_new_tokens} tokens, "
        "teacher-forced. The least KL comes first. *Less constant* is the difference from constant depth of the same "
        "group at the bytes of the row, a mix of the two constant depths next to it, paired by prompt. In brackets: "
        "95% bootstrap intervals over prompts. Scores of tasks come with the bytes that the plan saved there: a task "
        "has its own length of answers, so that these are not equal.\n",
    ]
    if not found.rows:
        return "\n".join(text)
    text.append(f"![Quality against bytes saved]({PICTURE})\n")
    for budget in _budgets(found):
        rows = [row for row in found.rows if row.entry.budget == budget]
        text += [
            f"## {title(budget)}\n",
            _table(_columns(rows), [_cells(i, row, _tasks(rows)) for i, row in enumerate(rows, 1)]),
        ]
        text += ["```text", *(reproduce(found, row) for row in rows), "```\n"]
    if found.missing:
        cells = [[f"`{e.spec}`", e.group.label, title(e.budget), why] for e, why in found.missing]
        text += ["## Without a row\n", _table(["schedule", "layers", "bytes saved", "why"], cells)]
    return "\n".join(text)


def sentences(found: Measured) -> str:
    """What was found, in three sentences."""
    if not found.rows:
        return (
            "There are no results yet: the gallery was not measured. The page will rank schedules, orders and profiles "
            "at equal bytes. `depthsched gallery run` fills it."
        )
    judged = [row for row in found.rows if row.verdict and row.entry.spec.partition(":")[0] != CONSTANT]
    words = [verdict_of(row) for row in judged]
    least = {budget: next(row for row in found.rows if row.entry.budget == budget) for budget in _budgets(found)}
    first = "; ".join(f"{title(b)}: `{_schedule(row)}`, {row.entry.group.label}" for b, row in least.items())
    return (
        f"Of {len(words)} plans that are compared with constant depth at their own bytes, {words.count('better')} are "
        f"better and {words.count('worse')} worse by KL. The others are not distinguishable from it with "
        f"{found.gallery.limit} prompts. "
        f"The least KL at each saving has {first}."
    )


def _budgets(found: Measured) -> list[float | None]:
    return list(dict.fromkeys(row.entry.budget for row in found.rows))


def _schedule(row: Row) -> str:
    return (row.entry.plan or "").partition("@")[0].partition("+profile=")[0]


def title(budget: float | None) -> str:
    """What the rows of a budget have in common."""
    return "As given" if budget is None else f"{budget:g}x"


def reproduce(found: Measured, row: Row) -> str:
    """The command that measures a row again."""
    gallery = found.gallery
    words = ["depthsched", "score", "--model", gallery.model, "--prompts", found.inputs.prompts, "--limit",
             str(gallery.limit), "-n", str(gallery.max_new_tokens), "--dtype", gallery.dtype,
             "--plans", row.entry.plan or ""]  # fmt: skip
    return shlex.join(words)


def shown(value: Mapping[str, Any], sign: str = "") -> str:
    """``0.123 (0.100 to 0.150)``."""
    mean = f"{value['mean']:{sign}.3f}"
    return mean if value["low"] is None else f"{mean} ({value['low']:{sign}.3f} to {value['high']:{sign}.3f})"


def verdict_of(row: Row) -> str:
    """In words, against constant depth at these bytes."""
    if row.verdict is None:
        return row.unjudged
    if row.entry.spec.partition(":")[0] == CONSTANT:
        return "the reference"
    return row.verdict.word.rpartition(" ")[0]


def sentence(row: Row, peers: Sequence[Row]) -> str:
    """Where a row stands among those of its budget, and against constant depth."""
    same = [peer.entry for peer in peers if peer.entry.budget == row.entry.budget]
    stands = "" if row.entry.budget is None else f"; place {same.index(row.entry) + 1} of {len(same)} by KL"
    text = f"{_schedule(row)}, {row.entry.group.label}: {title(row.entry.budget)}, saves {row.saved:.3f}x{stands}"
    if row.verdict is None:
        return f"{text}; {row.unjudged}"
    beside = " and ".join(row.verdict.between)
    return f"{text}; {row.verdict.word} constant at these bytes ({beside}): KL {shown(row.verdict.kl.to_json(), '+')}"


def _columns(rows: Sequence[Row]) -> list[str]:
    return ["#", "schedule", "layers", "bytes saved", "KL", "agreement", "KL less constant", "verdict", *_tasks(rows)]


def _tasks(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(_task(task) for row in rows for task in row.tasks))


def _task(task: Mapping[str, Any]) -> str:
    return f"{task['task']}, {task['metric']}"


def _score(task: Mapping[str, Any]) -> str:
    beside = f"full {task['full']:.3f}, {task['low']:+.3f} to {task['high']:+.3f}"
    return f"{task['score']:.3f} at {task['bytes_speedup']:.2f}x ({beside})"


def _cells(place: int, row: Row, tasks: Sequence[str]) -> list[str]:
    less = shown(row.verdict.kl.to_json(), "+") if row.verdict else ""
    scores = {_task(t): _score(t) for t in row.tasks}
    return [
        str(place),
        f"`{_schedule(row)}`",
        row.entry.group.label,
        f"{row.saved:.3f}",
        shown(row.kl),
        shown(row.agreement),
        less,
        verdict_of(row),
        *(scores.get(name, "") for name in tasks),
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def save_picture(rows: Sequence[Row], path: Path) -> None:
    """KL against bytes saved, a colour for each schedule and a mark for each group."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    specs = list(dict.fromkeys(row.entry.spec for row in rows))
    groups = list(dict.fromkeys(row.entry.group.label for row in rows))
    for i, spec in enumerate(specs):
        for j, group in enumerate(groups):
            some = [row for row in rows if (row.entry.spec, row.entry.group.label) == (spec, group)]
            if some:
                axes.plot(
                    [row.saved for row in some],
                    [row.kl["mean"] for row in some],
                    linestyle="",
                    color=f"C{i % 10}",
                    marker="osD^vPX*<>"[j % 10],
                    label=f"{spec}, {group}",
                )
    axes.set(xlabel="bytes saved", ylabel="KL(full || scheduled), nats per token", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="xx-small", ncols=2)
    write_figure(path, figure)
