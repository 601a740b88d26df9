"""Loading the library: another ABI is made again; what cannot be had is an error where asked for, and eager in auto."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.errors import DepthschedWarning, ModelError
from depthsched.files import digest
from depthsched.native import build, library

from ..tiny import make_tiny, prompt
from .compilers import Fake, compiler, copies, fresh, links, made, needs_compiler

__all__ = ["compiler", "copies", "fresh", "made"]
pytestmark = [needs_compiler, pytest.mark.usefixtures("fresh")]

OTHER = """
extern "C" {
int depthsched_abi() { return 999; }
float depthsched_probe(float x) { return x * x; }
void depthsched_run() {}
void depthsched_product() {}
void *depthsched_scratch() { return nullptr; }
void depthsched_free() {}
}
"""


def plant(source: str, folder: Path) -> None:
    """Put another library in place, with a manifest that vouches for it."""
    (folder / "other.cpp").write_text(source)
    program = shutil.which("g++") or "clang++"
    target = build.folder() / "engine.so"
    target.unlink()  # not written over: it may be loaded
    subprocess.run([program, "-shared", "-fPIC", "-o", target, folder / "other.cpp"], check=True)
    target.chmod(0o700)
    manifest = build.folder() / "manifest.json"
    known = json.loads(manifest.read_text()) | {"sha256": digest(target.read_bytes(), 64)}
    manifest.write_text(json.dumps(known))


@pytest.mark.parametrize("source", [OTHER, "int nothing;", OTHER.replace("999", "1").replace("x * x", "x")])
def test_a_library_that_answers_wrongly_is_made_again(copies: Path, tmp_path: Path, source: str) -> None:
    build.build()
    plant(source, tmp_path)
    assert build.ready() is not None
    loaded, seconds = library.load()
    assert loaded.probe(2.0) == 4.0
    assert seconds > 0
    assert links(copies) == 2
    assert library.load() == (loaded, 0.0)  # told once


def test_one_that_is_wrong_when_new_is_an_error(compiler: Fake) -> None:
    compiler('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && echo no library >"$2"; shift; done')
    with pytest.raises(ModelError, match="cannot load the compiled decoder step"):
        library.load()


def test_compiling_says_one_line_once(copies: Path, caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    library.load()
    library.load()
    (record,) = caplog.records
    assert (record.name, "once on this machine" in record.getMessage()) == ("depthsched", True)
    assert capsys.readouterr().out == ""


def test_auto_runs_eager_and_says_why(compiler: Fake) -> None:
    compiler("#!/bin/sh\necho 'error: broken compiler' >&2; exit 1")
    model, inputs = make_tiny("llama"), prompt()
    with pytest.warns(DepthschedWarning, match="broken compiler"):
        run = ds.generate(model, inputs, max_new_tokens=4)
    assert run.trace.backend == "eager"
    assert "broken compiler" in run.trace.reason
    again = ds.generate(model, inputs, max_new_tokens=4)  # no second warning, which would be an error here
    assert "broken compiler" in again.trace.reason
    assert torch.equal(run.tokens, again.tokens)
    with pytest.raises(ModelError, match="broken compiler"):
        ds.generate(model, inputs, max_new_tokens=4, backend="compiled")


def test_auto_makes_the_library_and_counts_the_seconds(copies: Path) -> None:
    model, inputs = make_tiny("llama"), prompt()
    first = ds.generate(model, inputs, max_new_tokens=4).trace
    second = ds.generate(model, inputs, max_new_tokens=4).trace
    assert (first.backend, second.backend) == ("compiled", "compiled")
    assert first.compile_seconds > 0 == second.compile_seconds


@pytest.fixture
def folder(tmp_path: Path, smollm2: Any) -> Path:
    _, tokenizer = smollm2
    make_tiny("llama", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_command_fills_the_cache_folder(cli: Callable[..., Any], copies: Path, folder: Path) -> None:
    row = "not there yet"
    assert row in library_row(cli)["detail"]
    first = cli("compile", "--json").json()
    assert Path(first["path"]) == build.ready()
    assert first["seconds"] > 0
    assert first["check"] is None
    assert library_row(cli) == {"name": "compiled library", "ok": True, "detail": str(build.folder())}
    result = cli("compile", "--model", folder, "--dtype", "bfloat16", "--batch", 3, "--json").json()
    assert result["seconds"] == 0
    assert result["check"] | {"dtype": "bfloat16", "batch": 3, "backend": "compiled"} == result["check"]
    assert "there already" in cli("compile").out
    assert cli("compile", "--again", "--json").json()["seconds"] > 0
    assert links(copies) == 2


def test_the_command_says_why_a_model_runs_eager(cli: Callable[..., Any], copies: Path, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    make_tiny("mistral-sliding", vocab_size=config["vocab_size"]).save_pretrained(folder)
    result = cli("compile", "--model", folder)
    assert result.code == 2
    assert "does not run compiled: " in result.err
    assert result.out == ""


def test_the_command_without_a_compiler(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = cli("compile", "--json")
    assert (result.code, result.out) == (2, "")
    assert result.err == "depthsched: there is no C++ compiler; install g++, or use backend='eager'\n"
    assert not library_row(cli)["ok"]


def test_the_first_generate_says_what_it_waits_for(cli: Callable[..., Any], copies: Path, folder: Path) -> None:
    first = cli("generate", "hi", "--model", folder, "-n", 2, "--json")
    assert first.json()["backend"] == "compiled"
    assert first.err.count("compiling the decoder step, once on this machine") == 1
    assert "compiling" not in cli("generate", "hi", "--model", folder, "-n", 2, "--json").err


def library_row(cli: Callable[..., Any]) -> dict[str, Any]:
    return next(row for row in cli("doctor", "--json").json()["rows"] if row["name"] == "compiled library")
