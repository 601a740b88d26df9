"""A grid as cells: every plan with every measure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DepthschedError, SettingsError
from ..files import digest
from ..planspec import PlanSpec, PlanText
from ..profiles import find_profile
from .cells import Cell
from .grid import Grid

MOST_CELLS = 100_000
_DATA = (".json", ".jsonl", ".txt", ".yaml")


def cells_of(grid: Grid) -> list[Cell]:
    """Every cell of a grid, each once, cells of one model together.

    Raises
    ------
    SettingsError
        A plan cannot be read, or a file is missing; the message names the key.
    """
    plans = list(_plans(grid))
    measures = list(_measures(grid))
    count = len(grid.model) * len(grid.dtype) * len(plans) * len(measures)
    if count > MOST_CELLS:
        raise SettingsError(f"the grid has {count} cells; keep it below {MOST_CELLS}")
    cells: dict[str, Cell] = {}
    for model in grid.model:
        weights = digest_model(Path(model))
        for dtype in grid.dtype:
            for measure, options, paths, digests in measures:
                for plan in plans:
                    cell = Cell(
                        measure=measure,
                        model=model,
                        dtype=dtype,
                        device=grid.device,
                        weights=grid.weights,
                        plan="full" if plan.is_full else str(plan),  # no order and no bridge ever acts on it
                        label=plan.label,
                        options=options,
                        paths=paths,
                        digests=digests | weights | _profile_digest(plan),
                    )
                    cells.setdefault(cell.id, cell)
    return list(cells.values())


def _plans(grid: Grid) -> Iterator[PlanSpec]:
    """Every plan; what its own text says wins over the keys of the grid."""
    load = functools.cache(find_profile)
    for profile in grid.profiles:
        for order in grid.orders:
            for schedule in grid.schedules:
                text = PlanText.of(schedule)
                key = "orders" if order and not text.order else "schedules"
                text = text._replace(order=text.order or order or "")
                try:
                    spec = PlanSpec.parse(str(text), None, profile, load=load)
                except DepthschedError as error:
                    raise SettingsError(f"key {key!r}, plan {str(text)!r}: {error}") from error
                yield dataclasses.replace(spec, label=_label(text, spec))


def _label(text: PlanText, spec: PlanSpec) -> str:
    """The plan as its author wrote it, the profile by the name of its folder."""
    return "full" if spec.is_full else str(text._replace(profile=spec.profile.label if spec.profile else ""))


_Measure = tuple[str, dict[str, Any], dict[str, str], dict[str, str]]


def _measures(grid: Grid) -> Iterator[_Measure]:
    """Measure, options, paths and digests of everything that a plan goes through."""
    for measure in grid.measure:
        yield from {"score": _score, "bench": _bench, "eval": _eval}[measure](grid)


def _score(grid: Grid) -> Iterator[_Measure]:
    for file in grid.prompts:
        options = {
            "limit": grid.limit,
            "max_new_tokens": grid.max_new_tokens or 128,
            "raw": grid.raw,
            "maps": grid.maps,
        }
        yield "score", options, {"prompts": file}, {"prompts": digest_file("prompts", Path(file))}


def _bench(grid: Grid) -> Iterator[_Measure]:
    for backend in grid.backends:
        options = {"backend": backend, "tokens": grid.tokens, "repeats": grid.repeats, "batch": grid.batch}
        yield "bench", options, {}, {}


def _eval(grid: Grid) -> Iterator[_Measure]:
    paths = {"data": grid.data} if grid.data else {}
    digests = {"data": digest_folder(Path(grid.data))} if grid.data else {}
    for backend in grid.backends:
        for task in grid.tasks:
            options = {
                "task": task,
                "limit": grid.limit,
                "max_new_tokens": grid.max_new_tokens,
                "backend": backend,
                "batch": grid.batch,
            }
            yield "eval", options, paths, digests


def _profile_digest(plan: PlanSpec) -> dict[str, str]:
    return {"profile": plan.profile.digest} if plan.profile and not plan.is_full else {}


def digest_model(path: Path) -> dict[str, str]:
    """The digest of a model's files; nothing for one without a path.

    A model on disk may be trained on; then its name and size stay, and the time of its files does not.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        return {}  # the embedded model or a hub id
    stats = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return {"model": digest("\n".join(stats))}


def digest_file(key: str, file: Path) -> str:
    """The digest of a file that a key names."""
    try:
        return digest(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"key {key!r}: cannot read {file}: {error.strerror}") from error


def digest_folder(folder: Path) -> str:
    """The digest of the data files of a folder."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in _DATA and file.is_file())
    if not files:
        raise SettingsError(f"key 'data': no data files in {folder}")
    names = [f"{file.relative_to(folder).as_posix()} {digest_file('data', file)}" for file in files]
    return digest("\n".join(names))
