"""A folder of results, one file for each finished cell. A file is there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..files import write_json
from .cells import FORMAT, Cell

_CELLS, _LOCKS, _GRID = "cells", "locks", "sweep.json"


@dataclass(frozen=True)
class Record:
    """What became of a cell.

    Attributes
    ----------
    cell : Cell
    status : str
        ``done`` or ``failed``.
    result : mapping or None
        What the measure found; the same in every run for ``score`` and greedy ``eval``.
    error : mapping or None
        ``type``, ``message`` and whether it is a ``fault`` of depthsched and not of the input.
    seconds : float
        Wall clock of the cell.
    versions : mapping
    """

    cell: Cell
    status: str
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    seconds: float
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {"format": FORMAT, "id": self.cell.id, **asdict(self), "cell": self.cell.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read a record back."""
        names = ("status", "result", "error", "seconds", "versions")
        return cls(Cell.from_json(data["cell"]), **{name: data[name] for name in names})


class Store:
    """The folder of a sweep.

    ``cells/ID.json`` holds a finished cell, ``locks/ID.lock`` is held by the process that works on it, and
    ``sweep.json`` lists the cells of the grid that was last started.

    Parameters
    ----------
    folder : str or Path

    Raises
    ------
    SettingsError
        The folder cannot be made or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    def prepare(self, cells: Sequence[Cell], source: Mapping[str, Any]) -> None:
        """Make the folder and note the cells of this grid."""
        content = {"format": FORMAT, "grid": source, "cells": [{"id": c.id, **c.to_json()} for c in cells]}
        try:
            for name in (_CELLS, _LOCKS):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            write_json(self.folder / _GRID, content, indent=1)
        except OSError as error:
            raise SettingsError(f"cannot write the sweep to {self.folder}: {error.strerror}") from error

    def cells(self) -> list[Cell]:
        """The cells of the grid that was last started here.

        Raises
        ------
        SettingsError
            There is no sweep in the folder.
        """
        try:
            rows = json.loads((self.folder / _GRID).read_text(encoding="utf-8"))["cells"]
            return [Cell.from_json({k: v for k, v in row.items() if k != "id"}) for row in rows]
        except FileNotFoundError:
            raise SettingsError(
                f"no sweep in {self.folder}: it has no {_GRID}; write one: depthsched sweep GRID.yaml --out DIR"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(f"{self.folder / _GRID} cannot be read: {error}; start the sweep again") from error

    def path(self, cell: Cell) -> Path:
        """The file of a cell."""
        return self.folder / _CELLS / f"{cell.id}.json"

    def read(self, cell: Cell) -> Record | None:
        """The record of a cell; None where it is not finished, or its file was damaged since."""
        try:
            return Record.from_json(json.loads(self.path(cell).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def finished(self, cell: Cell) -> bool:
        """Whether there is a record, also one of a failure."""
        return self.read(cell) is not None

    def write(self, record: Record) -> None:
        """Write the record of a cell that this process has claimed."""
        write_json(self.path(record.cell), record.to_json())

    def forget(self, cell: Cell) -> None:
        """Remove the record of a cell, so that it runs again."""
        self.path(cell).unlink(missing_ok=True)

    @contextmanager
    def claim(self, cell: Cell) -> Iterator[bool]:
        """Whether this process may work on a cell; the system frees the claim when the process dies."""
        claim = self.lock(cell)
        if claim is None:
            yield False
            return
        try:
            yield True
        finally:
            claim.release()

    def lock(self, cell: Cell) -> Any:
        """The held lock of a cell, or None where another process holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / _LOCKS / f"{cell.id}.lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            return None
        for scratch in self.path(cell).parent.glob(f".writing-{cell.id}-*"):
            scratch.unlink(missing_ok=True)  # of a process that was killed while it wrote
        return lock
