"""A grid as cells: every plan with every measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DepthschedError, SettingsError
from ..files import digest
from ..planspec import parse_plan
from ..schedules import Full
from .cells import Cell
from .grid import Grid

MOST_CELLS = 100_000
_DATA = (".json", ".jsonl", ".txt", ".yaml")


@dataclass(frozen=True)
class _Plan:
    spec: str
    label: str
    digests: dict[str, str]


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
        weights = _digest_model(Path(model))
        for dtype in grid.dtype:
            for measure, options, paths, digests in measures:
                for plan in plans:
                    cell = Cell(
                        measure=measure,
                        model=model,
                        dtype=dtype,
                        device=grid.device,
                        plan=plan.spec,
                        label=plan.label,
                        options=options,
                        paths=paths,
                        digests=digests | weights | plan.digests,
                    )
                    cells.setdefault(cell.id, cell)
    return list(cells.values())


def _plans(grid: Grid) -> Iterator[_Plan]:
    for profile in grid.profiles:
        for order in grid.orders:
            for schedule in grid.schedules:
                yield _plan(schedule, order, profile)


def _plan(text: str, order: str | None, profile: str | None) -> _Plan:
    """A plan with everything written out; what its own text says wins over the keys of the grid."""
    base, plus, own_profile = text.partition("+profile=")
    if order is not None and "@" not in base:
        base = f"{base}@{order}"
    try:
        schedule, ranking, used = parse_plan(base + plus + own_profile, None, profile)
    except DepthschedError as error:
        key = "orders" if order and "@" not in text else "schedules"
        raise SettingsError(f"key {key!r}, plan {base + plus + own_profile!r}: {error}") from error
    if isinstance(schedule, Full):
        return _Plan("full", "full", {})  # every layer runs: no order and no bridge ever acts
    place = f"+profile={used.folder}" if used else ""
    named = f"+profile={used.folder.name}" if used else ""
    label = f"{base.strip()}{named}"
    spec = f"{schedule.spec()}@{ranking.spec()}{place}"
    return _Plan(spec, label, {"profile": used.digest} if used else {})


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
        yield "score", options, {"prompts": file}, {"prompts": _digest("prompts", Path(file))}


def _bench(grid: Grid) -> Iterator[_Measure]:
    for backend in grid.backends:
        options = {"backend": backend, "tokens": grid.tokens, "repeats": grid.repeats, "batch": grid.batch}
        yield "bench", options, {}, {}


def _eval(grid: Grid) -> Iterator[_Measure]:
    paths = {"data": grid.data} if grid.data else {}
    digests = {"data": _digest_folder(Path(grid.data))} if grid.data else {}
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


def _digest_model(path: Path) -> dict[str, str]:
    """A model on disk may be trained on; then its name and size stay, and the time of its files does not."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        return {}  # the embedded model or a hub id
    stats = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return {"model": digest("\n".join(stats))}


def _digest(key: str, file: Path) -> str:
    try:
        return digest(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"key {key!r}: cannot read {file}: {error.strerror}") from error


def _digest_folder(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.suffix in _DATA and file.is_file())
    if not files:
        raise SettingsError(f"key 'data': no data files in {folder}")
    names = [f"{file.relative_to(folder).as_posix()} {_digest('data', file)}" for file in files]
    return digest("\n".join(names))
