"""Where the arrays of a batch lie: in a folder that stays, or in a file that goes with its process."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..files import write_atomic

Array = np.ndarray[Any, Any]


class Store(Protocol):
    """Arrays by name, and a mark that those of full depth are all there."""

    @property
    def whole(self) -> bool:
        """Whether the mark is set."""

    def save(self, name: str, array: Array) -> None:
        """Keep an array; one of the same name is gone."""

    def load(self, name: str) -> Array:
        """An array that was kept."""

    def finish(self) -> None:
        """Set the mark."""


class Folder:
    """A file for each array. What an interrupted calibration kept is there when it goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def whole(self) -> bool:
        return (self.folder / "done").is_file()

    def save(self, name: str, array: Array) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / f"{name}.npy", array)

    def load(self, name: str) -> Array:
        array: Array = np.load(self.folder / f"{name}.npy")
        return array

    def finish(self) -> None:
        write_atomic(self.folder / "done", b"")


class Scratch:
    """One temporary file without a name: of a worker that is killed nothing is left on its disk."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="depthsched-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._places: dict[str, tuple[int, int]] = {}
        self.whole = False

    def save(self, name: str, array: Array) -> None:
        place, size = self._places.get(name, (0, -1))
        if size != array.nbytes:
            place = self._file.seek(0, os.SEEK_END)
        self._file.seek(place)
        np.save(self._file, array, allow_pickle=False)
        self._places[name] = place, array.nbytes

    def load(self, name: str) -> Array:
        self._file.seek(self._places[name][0])
        array: Array = np.load(self._file, allow_pickle=False)
        return array

    def finish(self) -> None:
        self.whole = True
