"""Scoring, calibration and the command line on native weights give what they give on the dense copy."""

from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched import files
from depthsched.calibrate import Options, calibrate
from depthsched.score import Sample, score

from .files import LAYERS, write_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("judged")
    write_gguf(found / "tiny.gguf")
    return found


@pytest.fixture
def pair(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.setenv(files.CACHE, str(folder / "cache"))
    file = str(folder / "tiny.gguf")
    return tuple(ds.load_model(file, "float32", "cpu", weights=form)[0] for form in ("native", "dense"))  # type: ignore[return-value]


def samples(model: Any) -> list[Sample]:
    rows = []
    for seed in range(12):
        torch.manual_seed(seed)
        ids = torch.randint(3, 60, (1, 5))
        run = ds.generate(model, ids, max_new_tokens=16, do_sample=True, backend="eager")
        rows.append(Sample(tuple(ids[0].tolist()), tuple(run.tokens[0].tolist())))
    return rows


def test_scores_are_those_of_the_dense_model(pair: tuple[Any, Any]) -> None:
    native, dense = pair
    rows = samples(dense)
    plans = [ds.plan("constant:depth=4", num_layers=LAYERS, horizon=16)]
    for method in ("staircase", "step-by-step"):
        found, want = (score(model, plans, rows[:4], method=method)[0] for model in (native, dense))
        assert found.kl.mean == pytest.approx(want.kl.mean, rel=1e-4, abs=1e-6)
        assert found.agreement.mean == want.agreement.mean
        assert found.perplexity == pytest.approx(want.perplexity, rel=1e-4)
        assert found.bytes_speedup != want.bytes_speedup  # each by its own bytes


def test_calibration_and_bridges(pair: tuple[Any, Any], tmp_path: Path) -> None:
    dense = pair[1]
    rows, options = samples(dense), Options(min_depth=4, corrections=1)
    made = [calibrate(model, "tiny", rows, tmp_path / str(i), options=options) for i, model in enumerate(pair)]
    assert made[0].model == made[1].model
    assert made[0].drop_order == made[1].drop_order
    inputs = torch.tensor([[5, 17, 60, 33]])
    for profile in made:
        runs = [
            ds.generate(model, inputs, "constant:depth=4", profile=profile, max_new_tokens=12, backend="eager")
            for model in pair
        ]
        assert torch.equal(runs[0].tokens, runs[1].tokens)
    found, want = (profile.bridges(profile.depths) for profile in made)
    assert found.keys() == want.keys() != set()
    for depth, row in found.items():
        for layer, bridge in row.items():
            assert torch.allclose(bridge.weight, want[depth][layer].weight, atol=1e-3)


def test_commands_say_which_weights_ran(
    cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(files.CACHE, str(folder / "cache"))
    model = ["--model", folder / "tiny.gguf", "--device", "cpu"]
    for form in ("native", "dense"):
        common = [*model, "--weights", form, "--json"]
        made = cli("generate", "abcd", "-n", 4, "-s", "constant:depth=4", "--raw", "--backend", "eager", *common)
        assert (made.code, made.json()["weights"]) == (0, form)
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text('{"prompt": "abcd"}\n{"prompt": "dcba"}\n')
        scored = cli("score", "--prompts", prompts, "-s", "constant:depth=4", "-n", 4, "--raw", *common)
        assert (scored.code, scored.json()["weights"]) == (0, form)
    for command in ("generate x", "score --prompts p", "calibrate --prompts p --out o", "bench --random llama-2-7b"):
        refused = cli(*command.split(), "--weights", "packed")
        assert refused.code == 2, command
