"""Scores of plans: what they count, and how they are read and cached."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.encoding import left_padded
from depthsched.errors import PlanError, SettingsError
from depthsched.score import Interval, Prompt, Sample, own_answers, read_prompts, score
from depthsched.score.metrics import compare_logits
from depthsched.score.result import interval

from ..tiny import LAYERS, tiny
from .test_staircase import samples

ROWS = samples([(3, 9), (5, 7), (2, 2), (4, 1)])


def plan(spec: str, order: str | None = None) -> ds.DepthPlan:
    return ds.plan(spec, order, num_layers=LAYERS, horizon=9)


def test_metrics_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
    found = compare_logits(p.log() + 3, q.log() - 1, torch.tensor([1]))
    assert found.kl.item() == pytest.approx(0.25 * np.log(2), abs=1e-6)
    assert found.agree.item() == 0
    assert found.nll_full.item() == pytest.approx(np.log(4), abs=1e-6)
    assert found.nll.item() == pytest.approx(np.log(2), abs=1e-6)
    same = compare_logits(p.log(), p.log(), torch.tensor([0]))
    assert same.kl.item() == 0
    assert same.agree.item() == 1


def test_full_depth_costs_nothing() -> None:
    result = score(tiny("llama", "sdpa"), [plan("full")], ROWS)[0]
    assert result.kl.mean < 1e-9
    assert result.agreement.mean == 1
    assert result.perplexity == pytest.approx(result.perplexity_full)
    assert (result.prompts, result.tokens, result.mean_depth) == (3, 8 + 6 + 1, LAYERS)


@pytest.mark.parametrize("spec", ["constant:depth=5", "linear:end=3", "step:at=2+5,drop=2+4"])
def test_one_pass_equals_step_by_step(spec: str) -> None:
    model = tiny("qwen2", "sdpa")
    one, other = (score(model, [plan(spec)], ROWS, method=m)[0] for m in ("staircase", "step-by-step"))
    assert one.method == "staircase"
    assert other.method == "step-by-step"
    for name in ("kl", "agreement", "nll_full", "nll"):
        assert getattr(one, name).mean == pytest.approx(getattr(other, name).mean, abs=1e-4)
    assert [(g.first, g.tokens) for g in one.per_depth] == [(g.first, g.tokens) for g in other.per_depth]
    assert one.bytes_speedup == other.bytes_speedup > 1


def test_small_batches_give_the_same_score() -> None:
    model = tiny("llama", "sdpa")
    one, other = (score(model, [plan("d3:alpha=0.8")], ROWS, batch_tokens=n)[0] for n in (6144, 1))
    assert one.kl.mean == pytest.approx(other.kl.mean, abs=1e-6)
    assert one.tokens == other.tokens


def test_an_adaptive_plan_is_scored_step_by_step() -> None:
    result = score(tiny("llama", "sdpa"), [plan("confidence:depth=4,margin=0.1")], ROWS)[0]
    assert result.method == "step-by-step"
    assert {group.first for group in result.per_depth} <= {4, LAYERS}
    with pytest.raises(PlanError, match="no staircase"):
        score(tiny("llama", "sdpa"), [plan("confidence:depth=4")], ROWS, method="staircase")


def test_groups_add_up_and_json_is_json() -> None:
    result = score(tiny("llama", "sdpa"), [plan("linear:end=3")], ROWS)[0]
    for groups in (result.per_depth, result.per_step):
        assert sum(g.tokens for g in groups) == result.tokens
        assert sum(g.tokens * g.kl for g in groups) == pytest.approx(result.tokens * result.kl.mean)
    assert sum(p.kl for p in result.per_prompt) == pytest.approx(result.tokens * result.kl.mean)
    assert result.kl.low is not None
    assert result.kl.low <= result.kl.mean <= (result.kl.high or 0)
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["intervals"]["kl"]["mean"] == data["kl"]


def test_an_interval_is_that_of_whole_prompts() -> None:
    assert interval([2.0], [4]) == Interval(0.5, None, None, "mean")
    rng = np.random.default_rng(0)
    counts = rng.integers(50, 100, 40)
    wide = interval((counts * rng.normal(1, 0.5, 40)).tolist(), counts.tolist())
    assert wide.low is not None
    assert wide.high is not None
    assert 0.2 < wide.high - wide.low < 0.5  # 2 * 1.96 * 0.5 / sqrt(40) = 0.31


def test_own_answers_are_greedy_full_depth_and_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(tmp_path))
    model = tiny("llama", "sdpa")

    def tokenizer(text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(c) % 100 for c in text]}

    prompts = [Prompt("ab"), Prompt("abcd", "xyz"), Prompt("c")]
    first = own_answers(model, tokenizer, prompts, max_new_tokens=5)
    assert first[1] == Sample((3 + 97, 3 + 98, 3 + 99, 3), (3 + 20, 3 + 21, 3 + 22))
    for i in (0, 2):
        ids, mask = left_padded([first[i].prompt])
        want = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
        assert first[i].completion == tuple(want[0, ids.shape[1] :].tolist())
    files = [path for path in tmp_path.rglob("*.json") if path.parent.parent.name == "answers"]
    assert len(files) == 2
    for path in files:
        path.write_text("[7, 8]")
    assert own_answers(model, tokenizer, prompts, max_new_tokens=5)[0].completion == (7, 8)
    files[0].write_text("broken")
    files[1].write_text("broken")
    assert own_answers(model, tokenizer, prompts, max_new_tokens=5) == first


def test_no_decode_steps_is_an_error() -> None:
    with pytest.raises(PlanError, match="no decode step"):
        score(tiny("llama"), [plan("full")], [ROWS[3]])
    assert adapter_for(tiny("llama")).num_layers == LAYERS


def test_prompt_files(tmp_path: Path) -> None:
    lines = tmp_path / "p.jsonl"
    lines.write_text('{"prompt": "a", "completion": "b"}\n\n{"question": "c", "answer": "not used"}\n{"input": "d"}\n')
    assert read_prompts(lines) == [Prompt("a", "b"), Prompt("c"), Prompt("d")]
    assert read_prompts(lines, 1) == [Prompt("a", "b")]
    examples = tmp_path / "p.json"
    examples.write_text('{"examples": [{"input": "x", "target": "y"}]}')
    assert read_prompts(examples) == [Prompt("x")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no prompts"),
        ("{", "row 1 is not JSON"),
        ("[1]", "not an object"),
        ('{"text": "a"}', "has no prompt"),
        ('{"prompt": " "}', "has no prompt"),
        ('{"prompt": "a", "completion": 3}', "completion must be text"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_prompts(file)
    with pytest.raises(SettingsError, match="no such prompt file"):
        read_prompts(tmp_path / "absent")
