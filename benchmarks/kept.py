"""Finished answers of a long measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depthsched.errors import SettingsError


class Kept:
    """Answers in a file, so that a run that was cut off goes on."""

    def __init__(self, path: Path | None, options: Mapping[str, str]) -> None:
        self.path, self.found = path, dict[tuple[int, int], dict[str, Any]]()
        if path is None:
            return
        if path.exists():
            first, *rest = path.read_text(encoding="utf-8").splitlines() or ["{}"]
            if json.loads(first) != options:
                raise SettingsError(f"{path} holds answers of other options; remove it or name another file")
            lines = [json.loads(line) for line in rest if line.endswith("}")]  # the last may have been cut off
            self.found = {(line["turn"], line["index"]): line["answers"] for line in lines}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = [{"turn": turn, "index": index, "answers": some} for (turn, index), some in self.found.items()]
        path.write_text("".join(json.dumps(line) + "\n" for line in [options, *whole]), encoding="utf-8")

    def add(self, turn: int, index: int, answers: Mapping[str, Any]) -> None:
        """One line for a question that every arm has answered; the answers as JSON."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"turn": turn, "index": index, "answers": answers}) + "\n")
