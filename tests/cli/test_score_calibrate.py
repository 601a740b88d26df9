"""``depthsched score`` and ``depthsched calibrate``."""

import json
import shlex

import pytest
from transformers import AutoTokenizer

import depthsched as ds

from ..tiny import make_tiny

KEYS = ["kl", "agreement", "perplexity_full", "perplexity", "mean_depth", "tokens", "intervals", "per_depth", "seconds"]


@pytest.fixture
def folder(tmp_path, small_tokenizer, monkeypatch):
    """A tiny model and its tokenizer, and prompts."""
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(tmp_path / "cache"))
    make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer)).save_pretrained(tmp_path / "model")
    small_tokenizer.save_pretrained(tmp_path / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template
    rows = [{"prompt": f"How much is {i} plus {i * i}?"} for i in range(8)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def test_calibrate_then_score(cli, folder):
    common = ["--model", folder / "model", "--prompts", folder / "prompts.jsonl", "-n", 12, "--json"]
    target = ["--target-speedup", 1.001, "--min-depth", 5, "--orders", "block"]
    made = cli("calibrate", *common, *target, "--out", folder / "p")
    assert made.code == 0, made.err
    assert made.json()["seconds"] > 0
    assert made.json()["peak_memory_bytes"] > 10**8
    assert made.json()["schedule"] == ds.Profile.load(folder / "p").schedule
    spec = "constant:depth=6;constant:depth=6@ranked:bridges=false;constant:depth=6@middle-out"
    rows = cli("score", *common, "--schedule", spec, "--profile", folder / "p").json()["rows"]
    assert [bool(row["profile"]) for row in rows] == [True, False, False]
    assert rows[0]["kl"] != rows[1]["kl"]
    one = cli("score", *common, "--schedule", "constant:depth=6", "--limit", 2).json()
    assert all(key in one for key in KEYS)
    assert set(one["intervals"]["kl"]) == {"mean", "low", "high"}
    text = cli("score", *common[:-1], "--schedule", "constant:depth=6", "--limit", 2).out
    assert "constant:depth=6" in text


def test_calibrate_for_drafting_prints_the_command_that_uses_it(cli, folder):
    words = ["--model", folder / "model", "--prompts", folder / "prompts.jsonl", "-n", 12, "--min-depth", 5]
    words += ["--for", "drafting", "--verify-cost", 1.25, "--order", "block", "--corrections", 0]
    made = cli("calibrate", *words, "--out", folder / "d", "--json").json()
    assert made["drafting"]["check"] == {"verify": 1.25, "row": 0.0}
    shown = cli("calibrate", *words, "--out", folder / "d").out
    command = next(line for line in shown.splitlines() if line.startswith("depthsched generate"))
    schedule = f"--profile {folder / 'd'} --schedule {made['schedule']} --lossless --draft-tokens"
    assert f"{schedule} {made['drafting']['draft_tokens']}" in command
    run = cli(*shlex.split(command)[1:], "-n", 8, "--json").json()
    assert run["lossless"]["drafted"] > 0
    assert set(run["depths"]) == {8}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["score", "--prompts", "absent.jsonl"], "no such prompt file"),
        (["score", "--prompts", "absent.jsonl", "--schedule", "d4"], "did you mean"),
        (["score", "--prompts", "absent.jsonl", "--profile", "absent"], "no profile in absent"),
        (["score", "--prompts", "absent.jsonl", "--schedule", "d3@ranked"], "comes from a profile"),
        (["score"], "--prompts"),
        (["calibrate", "--prompts", "absent.jsonl", "--out", "x"], "no such prompt file"),
        (["calibrate", "--prompts", "a", "--out", "x", "--max-kl", "1", "--target-speedup", "2"], "exactly one target"),
        (["calibrate", "--prompts", "a", "--out", "x", "--orders", "best"], "unknown ranker 'best'"),
        (["calibrate", "--prompts", "a", "--out", "x", "--order", "block,block"], "each once"),
        (["calibrate", "--prompts", "a", "--out", "x", "--order", ""], "orders none: give one or more rankers"),
        (["calibrate", "--prompts", "a", "--out", "x", "--order", "block:size=3"], "has no setting 'size'"),
        (["calibrate", "--prompts", "a", "--out", "x", "--verify-cost", "1"], "add --for drafting"),
        (["calibrate", "--prompts", "a", "--out", "x", "--for", "drafting", "--verify-cost", "0"], "verify-cost=0"),
        (["calibrate", "--prompts", "a", "--out", "x", "--for", "drafting", "--max-kl", "1"], "takes no target"),
        (["calibrate", "--prompts", "a", "--out", "x", "--for", "speed"], "drafting"),
        (["calibrate", "--prompts", "a", "--out", "x", "--corrections", "-1"], "at least 0"),
    ],
)
def test_bad_input_is_one_line(cli, args, message):
    done = cli(*args)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
