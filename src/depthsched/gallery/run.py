"""Measure a gallery: cells of a sweep, and what they say about each other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..sweep import Cell, Record, Store, run_sweep
from ..text import one_line
from .entries import Answers, Entry, Group, entries_of, joined
from .file import Gallery, Inputs
from .judge import Verdict, judge, neighbours
from .state import STATE, Cells, State

CONSTANT = "constant"
Notice = Callable[[Record, bool], None]


@dataclass(frozen=True)
class Row:
    """One measured plan of a gallery.

    Attributes
    ----------
    entry : Entry
    saved, mean_depth : float
        Over the scored answers.
    kl, agreement : mapping
        Means with their intervals.
    verdict : Verdict or None
    unjudged : str
        Why there is no verdict.
    tasks : tuple of mapping
        Rows of ``eval``, where tasks were measured.
    """

    entry: Entry
    saved: float
    mean_depth: float
    kl: Mapping[str, Any]
    agreement: Mapping[str, Any]
    verdict: Verdict | None
    unjudged: str = ""
    tasks: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            **self.entry.to_json(),
            "group": self.entry.group.label,
            "saved": self.saved,
            "mean_depth": self.mean_depth,
            "kl": dict(self.kl),
            "agreement": dict(self.agreement),
            "verdict": self.verdict.to_json() if self.verdict else None,
            **({"unjudged": self.unjudged} if self.unjudged else {}),
            "tasks": [dict(task) for task in self.tasks],
        }


@dataclass(frozen=True)
class Measured:
    """A gallery as it stands in its folder.

    Attributes
    ----------
    gallery : Gallery
    inputs : Inputs
    rows : tuple of Row
        Of each budget, the least KL first.
    missing : tuple of (Entry, str)
        What has no row, and why.
    """

    gallery: Gallery
    inputs: Inputs
    rows: tuple[Row, ...]
    missing: tuple[tuple[Entry, str], ...]


def groups_of(gallery: Gallery, inputs: Inputs) -> list[Group]:
    """Every order, and every profile with and without its bridges."""
    ranked = {True: "ranked", False: "ranked:bridges=false"}
    with_profiles = [Group(ranked[bridged], folder) for folder in inputs.profiles for bridged in gallery.bridges]
    return [*(Group(order) for order in gallery.orders), *with_profiles]


def run_gallery(
    gallery: Gallery,
    inputs: Inputs,
    out: str | Path,
    *,
    versions: Mapping[str, str] | None = None,
    notice: Notice = lambda record, ran: None,
) -> Measured:
    """Measure a gallery, or finish one that was begun; what is in the folder is not measured again.

    What was added by hand stays in a folder whose answers are the same.

    Raises
    ------
    DepthschedError
        A schedule cannot be read, or an input is missing.
    """
    folder = Path(out).expanduser()
    answers = _answers(gallery, inputs)
    groups = groups_of(gallery, inputs)
    entries = [entry for spec in gallery.schedules for entry in entries_of(spec, groups, gallery.budgets, answers)]
    if (folder / STATE).is_file():
        before = State.load(folder)
        if before.answers == answers:
            entries += [entry for entry in before.entries if entry.added]
    state = State(gallery, inputs, answers, joined(entries))
    state.save(folder)
    _measure(state, folder, state.entries, versions, notice)
    return load_gallery(folder)


def add_to_gallery(
    spec: str,
    folder: str | Path,
    *,
    versions: Mapping[str, str] | None = None,
    notice: Notice = lambda record, ran: None,
) -> Measured:
    """Measure one more schedule; the result holds its rows only.

    Raises
    ------
    DepthschedError
        The schedule cannot be read, or there is no gallery.
    """
    place = Path(folder).expanduser()
    state = State.load(place)
    found = entries_of(spec, groups_of(state.gallery, state.inputs), state.gallery.budgets, state.answers)
    new = [dataclasses.replace(entry, added=True) for entry in found]
    kept = State(state.gallery, state.inputs, state.answers, joined(state.entries, new))
    kept.save(place)
    _measure(kept, place, new, versions, notice)
    whole = load_gallery(place)
    rows = tuple(row for row in whole.rows if row.entry in new)
    return Measured(whole.gallery, whole.inputs, rows, tuple(pair for pair in whole.missing if pair[0] in new))


def load_gallery(folder: str | Path) -> Measured:
    """What a gallery has measured so far.

    Raises
    ------
    SettingsError
        There is none in the folder.
    """
    place = Path(folder).expanduser()
    state, store = State.load(place), Store(place)
    cells = Cells(state)
    rows, missing = [], []
    for entry in state.entries:
        if entry.plan is None:
            missing.append((entry, entry.reason))
            continue
        record = store.read(cells.score(entry.plan))
        if record is None or record.result is None:
            missing.append((entry, _why_not(record)))
            continue
        rows.append(_row(state, store, cells, entry, record.result))
    rows.sort(key=lambda row: (row.entry.budget or np.inf, row.kl["mean"], row.entry.plan or ""))
    return Measured(state.gallery, state.inputs, tuple(rows), tuple(missing))


def _answers(gallery: Gallery, inputs: Inputs) -> Answers:
    from ..adapters import adapter_for
    from ..score import load_samples

    model, _, samples = load_samples(
        gallery.model, inputs.prompts, gallery.limit, gallery.max_new_tokens, dtype=gallery.dtype
    )
    lengths = tuple((len(s.prompt), len(s.completion) - 1) for s in samples if len(s.completion) > 1)
    return Answers(adapter_for(model).shape(), lengths, gallery.max_new_tokens)


def _measure(
    state: State,
    folder: Path,
    entries: Sequence[Entry],
    versions: Mapping[str, str] | None,
    notice: Notice,
) -> None:
    """Plans first, then the constant depths next to what they saved; what failed before is done again."""
    store, cells = Store(folder), Cells(state)
    plans = [(entry, entry.plan) for entry in entries if entry.plan is not None]
    whole = [cell for entry in state.entries if entry.plan for cell in cells.of(entry.plan)]
    store.prepare(_once(whole), {})
    first = _once([cell for _, plan in plans for cell in cells.of(plan)])
    run_sweep(first, store, retry=True, versions=versions, notice=notice)
    beside = []
    for entry, plan in plans:
        record = store.read(cells.score(plan))
        if record is not None and record.result is not None:
            depths = neighbours(record.result["score"]["bytes_speedup"], _constants(state.answers, entry.group))
            beside += [cells.score(_constant(entry.group, d)) for d in depths if d < state.answers.shape.num_layers]
    tried = {cell.id for cell in first}
    beside = [cell for cell in _once(beside) if cell.id not in tried and not _done(store.read(cell))]
    run_sweep(beside, store, retry=True, versions=versions, notice=notice)


def _done(record: Record | None) -> bool:
    return record is not None and record.result is not None


def _once(cells: Sequence[Cell]) -> list[Cell]:
    return list({cell.id: cell for cell in cells}.values())


def _constant(group: Group, depth: int) -> str:
    return group.plan(f"{CONSTANT}:depth={depth}")


@functools.lru_cache(maxsize=64)
def _constants(answers: Answers, group: Group) -> dict[int, float]:
    """What constant depths save; kept, for every row of a group asks."""
    return answers.constants(group)


def _row(state: State, store: Store, cells: Cells, entry: Entry, result: Mapping[str, Any]) -> Row:
    score = result["score"]
    saved, sums = score["bytes_speedup"], np.asarray(result["per_prompt"], dtype=np.float64)
    verdict, unjudged = _verdict(state, store, cells, entry, saved, sums)
    found = [store.read(cell) for cell in cells.tasks(entry.plan or "")]
    tasks = [
        row for done in found if done is not None and done.result is not None for row in done.result["eval"]["rows"]
    ]
    intervals = score["intervals"]
    return Row(
        entry, saved, score["mean_depth"], intervals["kl"], intervals["agreement"], verdict, unjudged, tuple(tasks)
    )


def _verdict(
    state: State, store: Store, cells: Cells, entry: Entry, saved: float, sums: np.ndarray[Any, Any]
) -> tuple[Verdict | None, str]:
    """The verdict, or why there is none."""
    ends, names = [], []
    for depth in neighbours(saved, _constants(state.answers, entry.group)):
        if depth == state.answers.shape.num_layers:  # full depth has no KL and agrees everywhere
            ends.append((1.0, np.stack([sums[:, 0], np.zeros(len(sums)), sums[:, 0]], axis=1)))
            names.append("full")
            continue
        record = store.read(cells.score(_constant(entry.group, depth)))
        if record is None or record.result is None:
            return None, f"constant depth {depth}, beside it: {_why_not(record)}"
        rows = np.asarray(record.result["per_prompt"], dtype=np.float64)
        ends.append((record.result["score"]["bytes_speedup"], rows))
        names.append(f"{CONSTANT}:depth={depth}")
    verdict = judge(sums, saved, ends, names)
    return verdict, "" if verdict else "no constant depth at these bytes"


def _why_not(record: Record | None) -> str:
    """Why a cell has no result."""
    return (
        one_line(record.error["message"], 100) if record and record.error else "not measured yet; run the gallery again"
    )
