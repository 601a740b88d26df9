"""What the report of a sweep shows, as data: read from its folder, nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..sweep import Cell, Record, Store
from .frontier import frontiers

Plans = dict[tuple[str, str, str], dict[str, Any]]


def read_report(folder: str | Path) -> dict[str, Any]:
    """Everything that the page of a sweep shows, as one JSON object.

    Parameters
    ----------
    folder : str or Path
        What ``depthsched sweep --out`` wrote. A sweep that still runs can be read.

    Returns
    -------
    dict
        ``plans`` (curves, qualities and speed of each), ``frontiers``, ``scores``, ``tasks``, ``benches``, ``maps``,
        ``failed``, ``missing``, ``cells`` (counts) and ``versions``.

    Raises
    ------
    SettingsError
        There is no sweep, or none of its cells is finished.
    """
    store = Store(folder)
    cells = store.cells()
    records = {cell.id: store.read(cell) for cell in cells}
    found = [record for record in records.values() if record is not None]
    done = [record for record in found if record.status == "done"]
    if not found:
        raise SettingsError(f"no cell of the sweep in {folder} is finished yet; wait, or run depthsched sweep again")
    plans = _plans(done)
    for record in done:
        _READERS[record.cell.measure](record, plans[_key(record.cell)])
    rows = list(plans.values())
    for number, row in enumerate(rows, start=1):
        row["number"] = number
        row["speed"] = _speed(row)
    failed = [record for record in found if record.status == "failed"]
    return {
        "cells": {"all": len(cells), "done": len(done), "failed": len(failed), "missing": len(cells) - len(found)},
        "seconds": sum(record.seconds for record in found),
        "models": sorted({_name(cell.model) for cell in cells}),
        "versions": dict(found[-1].versions),
        "frontiers": frontiers(rows),
        "plans": [{k: v for k, v in row.items() if k not in ("scores", "tasks", "benches", "maps")} for row in rows],
        **{kind: [item for row in rows for item in row[kind]] for kind in ("scores", "tasks", "benches", "maps")},
        "failed": [{**_about(record.cell), "error": dict(record.error or {})} for record in failed],
        "missing": [_about(cell) for cell in cells if records[cell.id] is None],
    }


def _key(cell: Cell) -> tuple[str, str, str]:
    return cell.model, cell.dtype, cell.plan_key


def _name(model: str) -> str:
    """A model for people: the last part of a folder."""
    return Path(model).name if "/" in model and Path(model).is_absolute() else model


def _about(cell: Cell) -> dict[str, Any]:
    where = cell.options.get("task") or cell.options.get("backend") or Path(cell.paths.get("prompts", "")).stem
    return {"measure": cell.measure, "plan": cell.label, "on": where, "model": _name(cell.model), "dtype": cell.dtype}


def _plans(done: Iterable[Record]) -> Plans:
    """One row for each plan on each model in each dtype, its label unique."""
    cells = {_key(record.cell): record.cell for record in reversed(list(done))}
    cells = dict(reversed(cells.items()))
    several = len({key[:2] for key in cells}) > 1
    labels: dict[str, int] = {}
    plans: Plans = {}
    for key, cell in cells.items():
        label = f"{cell.label} ({_name(cell.model)}, {cell.dtype})" if several else cell.label
        labels[label] = labels.get(label, 0) + 1
        if labels[label] > 1:  # two profiles of one name
            label += f" #{labels[label]}"
        plans[key] = {
            "label": label,
            "plan": cell.plan,
            "model": _name(cell.model),
            "dtype": cell.dtype,
            "num_layers": None,
            "mean_depth": None,
            "depths": [],
            "adaptive": False,
            "scores": [],
            "tasks": [],
            "benches": [],
            "maps": [],
        }
    return plans


def _curve(row: dict[str, Any], plan: Mapping[str, Any]) -> None:
    if len(plan["depths"]) > len(row["depths"]):
        row |= {"num_layers": plan["num_layers"], "depths": list(plan["depths"]), "adaptive": plan["adaptive"]}
        steps = row["depths"][1:] or row["depths"]
        row["mean_depth"] = sum(steps) / len(steps)


def _read_score(record: Record, row: dict[str, Any]) -> None:
    result = record.result or {}
    score, cell = result["score"], record.cell
    _curve(row, result["plan"])
    prompts = Path(cell.paths["prompts"]).stem
    own = {k: v for k, v in score.items() if k not in ("schedule", "order", "profile")}
    row["scores"].append({"plan": row["label"], "on": prompts, **own})
    row["maps"] += [{"plan": row["label"], "on": prompts, **answer} for answer in result["maps"]]
    if row["adaptive"] and result["maps"]:  # what it decided, and not the curve of a model that is always sure
        row["depths"] = list(result["maps"][0]["depths"])
    row["mean_depth"] = score["mean_depth"]


def _read_bench(record: Record, row: dict[str, Any]) -> None:
    result = record.result or {}
    _curve(row, result["plan"])
    row["benches"].append({**result["bench"], "plan": row["label"]})


def _read_eval(record: Record, row: dict[str, Any]) -> None:
    found = (record.result or {})["eval"]
    row["tasks"] += [{**task, "plan": row["label"]} for task in found["rows"]]
    curves: list[list[int]] = [sample["depths"] for sample in found.get("samples", ())]
    longest = max(curves, key=len, default=[])
    if len(longest) > len(row["depths"]):
        row |= {"num_layers": longest[0], "depths": list(longest)}  # the prefill runs every layer
    if row["mean_depth"] is None and found["rows"]:
        row["mean_depth"] = found["rows"][0]["mean_depth"]


_READERS = {"score": _read_score, "bench": _read_bench, "eval": _read_eval}


def _speed(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The best evidence there is: paired runs, then the evaluation's own clock, then bytes on paper."""
    if row["benches"]:
        best = max(row["benches"], key=lambda bench: bench["tokens_per_second"]["median"])
        found = best["speedup_vs_full"]
        span = {"value": found["median"], "low": found["low"], "high": found["high"]}
        return {"kind": "measured", "how": f"paired runs, {best['backend']}", **span}
    if row["tasks"]:
        tasks = {task["task"]: task for task in reversed(row["tasks"])}.values()
        value = sum(task["speedup"] for task in tasks) / len(tasks)
        return {"kind": "measured", "how": "clock of the evaluation", "value": value, "low": None, "high": None}
    if row["scores"]:
        value = row["scores"][0]["bytes_speedup"]
        return {"kind": "theoretical", "how": "bytes moved, on paper", "value": value, "low": None, "high": None}
    return None
