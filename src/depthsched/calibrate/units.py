"""Finished units of work on disk, so that an interrupted calibration goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bridge import Bridge
from ..files import digest, write_atomic, write_json


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
        text = json.dumps(key, sort_keys=True)
        key_digest = digest(text, 64)
        marker = folder / "key"
        if not marker.is_file() or marker.read_text() != key_digest:
            shutil.rmtree(folder, ignore_errors=True)
            write_atomic(marker, key_digest.encode())

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
        self, name: str, compute: Callable[[], tuple[Mapping[str, Bridge], Any]]
    ) -> tuple[dict[str, Bridge], Any]:
        """Named bridges and a JSON value about them."""
        from safetensors.torch import load, save

        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            found, about = compute()
            data = save(
                {
                    f"{key}.{part}": getattr(bridge, part).contiguous()
                    for key, bridge in found.items()
                    for part in ("weight", "bias")
                }
            )
            write_json(self.folder / f"{name}.about.json", about)
            write_atomic(path, data)
        tensors = load(path.read_bytes())
        about = json.loads((self.folder / f"{name}.about.json").read_text())
        names = dict.fromkeys(key.rpartition(".")[0] for key in tensors)
        return {key: Bridge(tensors[f"{key}.weight"], tensors[f"{key}.bias"]) for key in names}, about

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
