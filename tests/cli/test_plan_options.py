"""Every command reads plans the same way, and says what a plan had to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import depthsched as ds
from depthsched.cli.app import build_app
from depthsched.planspec import SYNTAX

from ..tiny import LAYERS, make_tiny

NOTE = f"depth clipped from 40 to {LAYERS}: the model has {LAYERS} layers"
CORE = "depth clipped from 2 to 4: order middle-out keeps 4 core layers"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> Path:
    path = tmp_path_factory.mktemp("home")
    make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer)).save_pretrained(path / "model")
    small_tokenizer.save_pretrained(path / "model")
    (path / "prompts.jsonl").write_text(json.dumps({"prompt": "How much is 2 plus 3?", "completion": " 2 and 3 is 5"}))
    return path


def command(name: str, home: Path, plan: str) -> list[Any]:
    model = ["--model", home / "model", "--dtype", "float32"]
    return {
        "generate": ["generate", "Hello", *model, "-n", 4, "--backend", "eager", "--schedule", plan],
        "bench": [
            *["bench", *model, "--plans", plan, "--backends", "eager", "--baseline", "none", "--tokens", 4],
            *["--repeats", 1],
        ],
        "show": ["show", plan, "--layers", LAYERS],
        "score": ["score", *model, "--prompts", home / "prompts.jsonl", "-n", 8, "--plans", plan],
    }[name]


@pytest.mark.parametrize("name", ["generate", "bench", "show", "score"])
@pytest.mark.parametrize(("plan", "note"), [("constant:depth=40", NOTE), ("constant:depth=2", CORE)])
def test_what_a_plan_changed_is_said(cli: Callable[..., Any], home: Path, name: str, plan: str, note: str) -> None:
    data = cli(*command(name, home, plan), "--json")
    assert data.code == 0, data.err
    found = data.json()["notes"]
    assert len(found) == 1
    assert found[0].endswith(note)
    shown = cli(*command(name, home, plan))
    assert shown.code == 0
    assert note in " ".join((shown.out + shown.err).split())
    assert cli(*command(name, home, "constant:depth=6"), "--json").json()["notes"] == []


@pytest.mark.parametrize("name", ["generate", "bench", "show", "score", "eval"])
def test_help_shows_the_whole_syntax(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert SYNTAX in cli(name, "--help").out


def test_every_command_shows_its_help(cli: Callable[..., Any]) -> None:
    """Brackets in a help text are markup, and a wrong one ends the command with a traceback."""
    for name in typer.main.get_command(build_app()).commands:  # type: ignore[attr-defined]
        result = cli(name, "--help")
        assert (result.code, result.err, "Usage" in result.out) == (0, "", True), name


@pytest.mark.parametrize("option", ["--plans", "--schedule", "-s"])
def test_score_takes_plans_under_each_name(cli: Callable[..., Any], home: Path, option: str) -> None:
    words = command("score", home, "constant:depth=6;full")
    words[words.index("--plans")] = option
    assert [row["schedule"] for row in cli(*words, "--json").json()["rows"]] == ["constant:depth=6", "full"]


def test_generate_and_attach_take_a_spec(home: Path) -> None:
    model, tokenizer = ds.load_model(str(home / "model"), dtype="float32")
    inputs = tokenizer("Hello", return_tensors="pt")
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    spec = ds.PlanSpec.parse("linear:end=4@strided")
    run = ds.generate(model, inputs, spec, **options)
    assert run.plan == spec.resolve(LAYERS, 6)
    with ds.attach(model, spec, horizon=6):
        attached = model.generate(**inputs, **options)
    assert attached[:, inputs["input_ids"].shape[1] :].tolist() == run.tokens.tolist()
    with pytest.raises(ds.errors.PlanError, match="already"):
        ds.generate(model, inputs, spec, order="early-exit")
