"""Read prompt files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError

_KEYS = ("prompt", "question", "input")


@dataclass(frozen=True)
class Prompt:
    """One row of a prompt file.

    Attributes
    ----------
    text : str
    completion : str or None
        A given answer; ``None`` means the model's own greedy answer at full depth.
    """

    text: str
    completion: str | None = None


def read_prompts(path: str | Path, limit: int | None = None) -> list[Prompt]:
    """Read a prompt file.

    Parameters
    ----------
    path : str or Path
        JSON lines ``{"prompt": ..., "completion": ...}`` with the completion optional, or one JSON object
        whose ``examples`` are such rows. ``question`` (GSM8K) and ``input`` (BBH) also name the prompt.
    limit : int, optional
        Read only so many rows.

    Raises
    ------
    SettingsError
        No such file, a row that is not an object with a prompt, or no rows.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise SettingsError(f"no such prompt file: {path}")
    if limit is not None and limit < 1:
        raise SettingsError(f"limit={limit} must be at least 1")
    prompts: list[Prompt] = []
    for number, row in _rows(file):
        prompts.append(_prompt(row, f"{path}, row {number}"))
        if len(prompts) == limit:
            break
    if not prompts:
        raise SettingsError(f'{path} holds no prompts; give rows such as {{"prompt": "..."}}')
    return prompts


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {file}: {error}") from error
    if file.suffix == ".json":
        data = _parse(text, str(file))
        rows = data.get("examples") if isinstance(data, Mapping) else data
        if not isinstance(rows, list):
            raise SettingsError(f"{file} is neither a list of rows nor an object with a list of examples")
        yield from enumerate(rows, start=1)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, _parse(line, f"{file}, row {number}")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{where} is not JSON: {error}") from error


def _prompt(row: Any, where: str) -> Prompt:
    if not isinstance(row, Mapping):
        raise SettingsError(f'{where} is not an object; give rows such as {{"prompt": "..."}}')
    text = next((row[key] for key in _KEYS if key in row), None)
    if not isinstance(text, str) or not text.strip():
        raise SettingsError(f'{where} has no prompt; give rows such as {{"prompt": "..."}}')
    completion = row.get("completion")
    if completion is not None and (not isinstance(completion, str) or not completion):
        raise SettingsError(f"{where}: the completion must be text; leave it out for the model's own answer")
    return Prompt(text, completion)
