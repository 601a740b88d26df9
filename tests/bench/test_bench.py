"""The comparison's arithmetic and its shape as data; what the clock says is nobody's assertion."""

import json
from pathlib import Path

import pytest

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bench import BenchResult, Interval, compare, known_shape, random_model, shapes
from depthsched.bench.chart import save_chart
from depthsched.cli import main as command_line
from depthsched.errors import DepthschedError, SettingsError

from ..tiny import LAYERS, make_tiny, prompt

PROMISED = {
    "plan", "backend", "batch", "mean_depth", "theoretical_layers", "theoretical_bytes", "tokens_per_second",
    "speedup_vs_full", "realised", "vs_transformers", "gb_per_s", "peak_memory_bytes", "compile_seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> BenchResult:
    model = make_tiny("llama")
    plans = {s: ds.plan(s, num_layers=LAYERS, horizon=8) for s in ("full", "constant:depth=5")}
    return compare(model, prompt(2, 6), plans, ["eager"], tokens=8, repeats=3, command="made here")


def test_every_row_has_the_promised_fields(result: BenchResult) -> None:
    data = json.loads(json.dumps(result.to_json()))
    assert [(r["plan"], r["backend"]) for r in data["rows"]] == [
        ("full", "transformers"), ("full", "eager"), ("constant:depth=5", "eager"),
    ]  # fmt: skip
    for row in data["rows"]:
        assert row.keys() >= PROMISED
        for name in ("tokens_per_second", "speedup_vs_full", "vs_transformers"):
            assert row[name].keys() == {"median", "low", "high"}
            assert row[name]["low"] <= row[name]["median"] <= row[name]["high"]


def test_theory_and_what_arrived_of_it(result: BenchResult) -> None:
    base, full, five = result.rows
    assert base.speedup_vs_full.median == full.speedup_vs_full.median == full.theoretical_bytes == 1.0
    assert five.mean_depth == 5
    assert five.theoretical_layers == LAYERS / 5
    shape = adapter_for(make_tiny("llama")).shape()
    per_token = 2 * shape.kv_values * shape.kv_bytes  # two rows
    moved = [
        sum(
            (d * shape.layer_params + shape.head_params) * shape.weight_bytes + d * (6 + i) * per_token
            for i in range(1, 8)
        )
        for d in (LAYERS, 5)
    ]
    assert five.theoretical_bytes == pytest.approx(moved[0] / moved[1])
    assert five.realised == pytest.approx(five.speedup_vs_full.median / five.theoretical_bytes)
    assert full.equal_tokens == 1.0
    seconds = 2 * 7 / five.tokens_per_second.median
    assert five.gb_per_s == pytest.approx(moved[1] / seconds / 1e9, rel=1e-6)


def test_a_result_reads_back_and_becomes_a_chart(result: BenchResult, tmp_path: Path) -> None:
    text = json.dumps({**result.to_json(), "model": "tiny", "note": "three rounds"})
    again = BenchResult.from_json(text)
    assert again.rows == result.rows
    assert (again.command, again.context["note"]) == ("made here", "three rounds")
    save_chart(again, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SettingsError, match="not a result"):
        BenchResult.from_json("{}")


def test_scheduling_is_measured_against_the_step(result: BenchResult) -> None:
    base, full, five = result.rows
    assert base.overhead is None
    assert full.overhead is not None
    assert five.overhead is not None
    assert 0 < five.overhead < 1


def test_rows_that_draft_stand_beside_the_plain_ones() -> None:
    model = make_tiny("llama", "sdpa")
    plans = {s: ds.plan(s, num_layers=LAYERS, horizon=24) for s in ("full", "constant:depth=7")}
    result = compare(model, prompt(2, 6), plans, ["eager"], tokens=24, repeats=2, draft_tokens=2)
    base, _, plain, drafts = result.rows
    assert base.drafts is plain.drafts is None
    assert drafts.plan == plain.plan
    assert drafts.equal_tokens == 1.0
    assert drafts.drafts is not None
    assert drafts.drafts["draft_tokens"] == "2"
    assert 0 < drafts.drafts["acceptance"] <= 1
    assert 1 <= drafts.drafts["mean_drafted"] <= 2
    found = {name: drafts.drafts[name] for name in ("draft_cost", "verify_cost", "predicted", "measured")}
    assert min(found.values()) > 0
    assert BenchResult.from_json(json.dumps(result.to_json())).rows == result.rows


def test_bootstrap_interval() -> None:
    assert Interval.of([2.0] * 5) == Interval(2.0, 2.0, 2.0)
    some = Interval.of([1.0, 2.0, 3.0, 4.0, 50.0])
    assert some.median == 3.0
    assert 1.0 <= some.low < 3.0 < some.high <= 50.0
    assert some == Interval.of([1.0, 2.0, 3.0, 4.0, 50.0])


def test_a_model_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setitem(shapes.SHAPES, "toy", (32, 64, 3, 4, 2, 50, True))
    model = random_model("toy", torch.bfloat16, torch.device("cpu"))
    assert (model.config.num_hidden_layers, model.dtype) == (3, torch.bfloat16)
    known, real = known_shape("toy"), adapter_for(model).shape()
    for depth, context, batch in ((3, 0, 1), (2, 10, 1), (1, 100, 4)):
        assert known.step_bytes(depth, context, batch) == real.step_bytes(depth, context, batch)
    with pytest.raises(DepthschedError, match="unknown shape 'lama-2-7b'"):
        known_shape("lama-2-7b")
    with pytest.raises(DepthschedError, match="unknown shape 'lama-2-7b'"):
        random_model("lama-2-7b", torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tokens", "1"], "at least 2"),
        (["--repeats", "0"], "at least 1"),
        (["--baseline", "vllm"], "transformers or none"),
        (["--plans", "nope"], "unknown schedule"),
        (["--random", "llama-9"], "unknown shape"),
        (["--draft-tokens", "3", "--model", "/no/such/model"], "or --lossless"),
        (["--lossless", "--draft-tokens", "99", "--model", "/no/such/model"], "must be auto, a whole number"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line(["bench", *arguments])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert words in error.splitlines()[-1]


def test_json_on_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(shapes.SHAPES, "toy", (32, 64, 4, 4, 2, 1100, True))
    arguments = ["bench", "--random", "toy", "--plans", "constant:depth=4", "--backends", "eager", "--tokens", "4"]
    with pytest.raises(SystemExit) as left:
        command_line([*arguments, "--repeats", "2", "--batch", "2", "--json"])
    assert left.value.code == 0
    data = json.loads(capsys.readouterr().out)
    assert data["command"].startswith("depthsched bench --plans constant:depth=4")
    assert data["model"] == "toy"
    assert len(data["rows"]) == 3


def test_drafts_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(shapes.SHAPES, "toy", (32, 64, 4, 4, 2, 1100, True))
    arguments = ["bench", "--random", "toy", "--plans", "constant:depth=3", "--backends", "eager", "--tokens", "12"]
    with pytest.raises(SystemExit) as left:
        command_line([*arguments, "--repeats", "2", "--baseline", "none", "--lossless", "--draft-tokens", "2"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "lossless" in printed
    assert "predicted 0" in printed or "predicted 1" in printed
