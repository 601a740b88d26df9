"""Finished units of work on disk, so that an interrupted calibration goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bridge import Bridge
from ..files import json_digest, write_atomic, write_json

_LAYOUT = 3  # of the folder; another one is thrown away


class Units:
    """A folder with one file for every finished unit.

    Parameters
    ----------
    folder : Path
        Kept inside the calibration's output until it is done.
    key : mapping
        Everything the units depend on. Units of another key are thrown away.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = folder
        digest = json_digest([_LAYOUT, key], 64)
        marker = folder / "key"
        if not marker.is_file() or marker.read_text() != digest:
            shutil.rmtree(folder, ignore_errors=True)
            write_atomic(marker, digest.encode())

    def value(self, name: str, compute: Callable[[], Any]) -> Any:
        """A JSON value, computed only if it is not there."""
        path = self.folder / f"{name}.json"
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError):
            value = json.loads(json.dumps(compute()))  # what a resumed run would read
            write_json(path, value)
            return value

    def bridges(
        self, name: str, compute: Callable[[], tuple[Mapping[int, Bridge], Any]]
    ) -> tuple[dict[int, Bridge], Any]:
        """Numbered bridges, the lowest first, and a JSON value about them, computed only if they are not there."""
        from safetensors import safe_open
        from safetensors.torch import save

        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            found, about = compute()
            parts = ((f"{i}.{part}", getattr(b, part)) for i, b in found.items() for part in ("weight", "bias"))
            tensors = {key: tensor.contiguous() for key, tensor in parts}
            write_atomic(path, save(tensors, metadata={"about": json.dumps(about)}))
        with safe_open(path, framework="pt") as file:
            numbers = sorted({int(key.partition(".")[0]) for key in file.keys()})  # noqa: SIM118
            read = {i: Bridge(file.get_tensor(f"{i}.weight"), file.get_tensor(f"{i}.bias")) for i in numbers}
            return read, json.loads(file.metadata()["about"])

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
