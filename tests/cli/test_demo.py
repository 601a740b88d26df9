"""``depthsched demo``: rows that are what they say, whatever the clock says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import depthsched as ds
from depthsched.cli import build_app
from depthsched.cli.demo_view import FIRST_TUTORIAL, next_steps
from depthsched.demo import for_transformers
from depthsched.demo.run import PROMPTS
from depthsched.encoding import encode, model_inputs
from depthsched.score import Sample, score

from ..commands import Result
from ..tiny import LAYERS, make_tiny
from .test_profile_option import save

Cli = Callable[..., Result]
TOKENS = 16
PLAIN = ["transformers' generate", "full depth", "D³, plain", "lossless, drafts at 7"]
CALIBRATED = ["D³, calibrated", "constant 7, calibrated"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> Path:
    """A tiny model in a folder, and a profile ``p`` for it, its bridges drawn at random."""
    path = tmp_path_factory.mktemp("demo")
    model = make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer))
    model.save_pretrained(path / "model")
    small_tokenizer.save_pretrained(path / "model")
    save(path / "p", model)
    return path


def words(home: Path, *more: Any) -> list[Any]:
    return ["demo", "--model", home / "model", "--tokens", TOKENS, "--rounds", 1, *more]


@pytest.fixture
def found(cli: Cli, home: Path) -> Any:
    return cli(*words(home, "--profile", home / "p", "--backend", "eager", "--json")).json()


def test_rows_and_texts_are_those_of_the_plans(found: Any, home: Path) -> None:
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [*PLAIN[:3], *CALIBRATED, PLAIN[3]]
    assert [row["lossless"] for row in found["rows"]] == [False] * 5 + [True]
    profile = str(home / "p")
    assert [row["profile"] for row in found["rows"]] == [None, None, None, profile, profile, profile]
    assert [row["mean_depth"] for row in found["rows"]][:5] == [8, 8, 7, 7, 7]
    assert (found["no_profile"], found["transformers_dtype"]) == (None, "float32")
    assert {row["backend"] for row in found["rows"]} == {"transformers", "eager"}
    model, tokenizer = ds.load_model(str(home / "model"), dtype="float32")
    inputs = model_inputs([encode(tokenizer, PROMPTS[0])])
    for text, schedule, its in zip(found["texts"], ("full", "d3:alpha=0.995"), (None, profile), strict=True):
        options: dict[str, Any] = {"max_new_tokens": TOKENS, "do_sample": False, "backend": "eager"}
        run = ds.generate(model, inputs, schedule, profile=its, **options)
        assert text["tokens"] == run.tokens[0].tolist()
        assert text["depths"] == run.trace.depths


def test_what_is_equal_to_full_depth(found: Any, home: Path) -> None:
    rows = {row["name"]: row for row in found["rows"]}
    for name in ("transformers' generate", "full depth", "lossless, drafts at 7"):
        assert (rows[name]["same_token"], rows[name]["same_text"]) == (1.0, 1.0), name
    assert found["places"] == len(PROMPTS) * (TOKENS - 1)
    model, tokenizer = ds.load_model(str(home / "model"), dtype="float32")
    samples = []
    for prompt in PROMPTS:
        ids = encode(tokenizer, prompt)
        run = ds.generate(model, model_inputs([ids]), "full", max_new_tokens=TOKENS, do_sample=False)
        samples.append(Sample(ids, tuple(run.tokens[0].tolist())))
    for name, spec, profile in (
        ("D³, plain", "d3", None),
        ("D³, calibrated", "d3", home / "p"),
        ("constant 7, calibrated", "constant:depth=7", home / "p"),
    ):
        plan = ds.plan(spec, num_layers=LAYERS, horizon=TOKENS, profile=profile)
        [one] = score(model, [plan], samples, method="step-by-step")
        assert rows[name]["same_token"] == pytest.approx(one.agreement.mean), name
        assert rows[name]["same_token"] < 1, name  # a tiny model's layers all matter
        assert rows[name]["same_text"] < 1, name


def test_speeds_are_paired(found: Any) -> None:
    base = found["rows"][0]
    assert base["vs_transformers"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert found["rows"][1]["vs_full"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    for row in found["rows"]:
        for name in ("tokens_per_second", "vs_transformers", "vs_full"):
            assert 0 < row[name]["low"] <= row[name]["median"] <= row[name]["high"]


def test_without_a_profile_two_rows_are_left_out_and_a_line_says_so(cli: Cli, home: Path) -> None:
    done = cli(*words(home))
    assert done.code == 0, done.err
    assert not any(name in done.out for name in CALIBRATED)
    assert "two rows with calibrated layers are left out:" in done.out
    assert "depthsched calibrate --prompts" in done.out
    found = cli(*words(home, "--json")).json()
    assert [row["name"] for row in found["rows"]] == PLAIN
    assert found["no_profile"]
    assert found["rows"][-1]["same_text"] == 1.0


def test_plain_text_where_there_is_no_terminal(cli: Cli, home: Path) -> None:
    done = cli(*words(home, "--profile", home / "p"))
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "left out" not in done.out
    for name in (*PLAIN, *CALIBRATED):
        assert done.out.count(name) >= 1, name
    assert re.search(r"transformers \S+: dense weights in float32", done.out)
    assert re.search(r"weights dense, in float32; backend\s+\w+", done.out)
    assert re.search(r"full depth +8.0 +\d+ +\d+\.\d +100% +100%", done.out)
    assert "D³, calibrated: 7.1 of 8 layers" in done.out


def test_what_to_try_next_exists() -> None:
    root: Any = typer.main.get_command(build_app())
    commands = set(root.commands)
    steps = next_steps(commands)
    assert len(steps) == 3
    for step in steps[:2]:
        assert re.match(r"depthsched (\S+)", step)[1] in commands  # type: ignore[index]
    assert (ROOT / FIRST_TUTORIAL).is_file()
    assert FIRST_TUTORIAL in steps[2]
    assert "studio" in next_steps({"studio", "new", "chat"})[0]
    assert not any("studio" in step for step in next_steps({"new", "chat"}))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--tokens", 1], "at least 2"),
        (["--rounds", 0], "at least 1"),
        (["--profile", "absent"], "no profile in absent"),
        (["--backend", "nope"], "nope"),
        (["--dtype", "int3"], "unknown dtype"),
    ],
)
def test_wrong_input_is_one_line(cli: Cli, home: Path, more: list[Any], says: str) -> None:
    done = cli(*words(home), *more)
    assert (done.code, done.out) == (2, "")
    assert says in done.err.splitlines()[-1]


def test_a_profile_of_another_model_is_refused(cli: Cli, home: Path, tmp_path: Path) -> None:
    other = make_tiny("llama", "sdpa", vocab_size=ds.load_model(str(home / "model"))[0].config.vocab_size)
    with torch.no_grad():
        other.model.layers[2].mlp.up_proj.weight.mul_(1.02)
    save(tmp_path / "other", other)
    done = cli(*words(home, "--profile", tmp_path / "other"))
    assert (done.code, done.out) == (2, "")
    assert "weights differ" in done.err


def test_transformers_runs_the_model_in_the_dtype_of_its_folder(home: Path) -> None:
    name = str(home / "model")
    same, _ = ds.load_model(name, dtype="float32")
    assert for_transformers(name, same, "auto") is same
    half, _ = ds.load_model(name, dtype="bfloat16")
    assert for_transformers(name, half, "cpu").dtype == torch.float32


@pytest.mark.slow
def test_the_embedded_model(cli: Cli, smollm2: Any) -> None:
    found = cli("demo", "--tokens", 12, "--rounds", 1, "--device", "cpu", "--json").json()
    rows = {row["name"].partition(",")[0]: row for row in found["rows"]}
    assert found["transformers_dtype"] == "bfloat16"
    assert rows["full depth"]["mean_depth"] == 30
    assert rows["lossless"]["same_text"] == 1.0
    assert 0.8 < rows["transformers' generate"]["same_token"] <= 1
    if found["weights"] == "native":
        assert rows["full depth"]["backend"] == "compiled"
    else:
        assert rows["full depth"]["reason"]
    assert len(found["texts"][0]["tokens"]) == 12
