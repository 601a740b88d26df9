"""A cache folder that cannot be made or written: one line that names it and the variable that moves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..tiny import make_tiny

PLACES = {
    "a file": ("DEPTHSCHED_CACHE", "{d}/file"),
    "below a file": ("DEPTHSCHED_CACHE", "{d}/file/cache"),
    "a folder of the system": ("XDG_CACHE_HOME", "/proc"),
    "a file inside it": ("DEPTHSCHED_CACHE", "{d}/cache"),
}
# A model to convert, and the answers of one that needs no converting.
COMMANDS = {
    "generate": ["generate", "hi", "--model", "{d}/some.gguf", "-n", "2"],
    "bench": ["bench", "--model", "{d}/some.gguf"],
    "score": ["score", "--model", "{d}/model", "--prompts", "{d}/prompts.jsonl", "-n", "4"],
    "calibrate": ["calibrate", "--model", "{d}/model", "--prompts", "{d}/prompts.jsonl", "--out", "{d}/p", "-n", "4"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> Path:
    path = tmp_path_factory.mktemp("cache")
    make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer)).save_pretrained(path / "model")
    small_tokenizer.save_pretrained(path / "model")
    (path / "some.gguf").write_bytes(b"GGUF")
    (path / "file").write_text("")
    (path / "cache").mkdir()
    for name in ("models", "answers"):
        (path / "cache" / name).write_text("")
    rows = [{"prompt": f"How much is {i} plus {i}?"} for i in range(5)]
    (path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", PLACES)
def test_it_is_one_line(
    cli: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, command: str
) -> None:
    name, value = PLACES[place]
    monkeypatch.delenv("DEPTHSCHED_CACHE", raising=False)
    monkeypatch.setenv(name, value.format(d=folder))
    result = cli(*(word.format(d=folder) for word in COMMANDS[command]))
    assert (result.code, result.out) == (2, ""), result
    lines = [line for line in result.err.splitlines() if line.startswith("depthsched: ")]
    assert len(lines) == 1, result.err
    assert value.format(d=folder) in lines[0]
    assert "DEPTHSCHED_CACHE" in lines[0]
    assert "Traceback" not in result.err


def test_doctor_says_so(cli: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(folder / "file"))
    row = next(row for row in cli("doctor", "--json").json()["rows"] if row["name"] == "cache folder")
    assert not row["ok"]
    assert str(folder / "file") in row["detail"]
