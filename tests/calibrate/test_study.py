"""The study of position, and the paired timing of the scorers: what they print."""

import json
from pathlib import Path

import pytest

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.calibrate import study as module
from depthsched.calibrate.study import study
from depthsched.plans import plan
from depthsched.score import Sample, paired

from ..tiny import LAYERS, tiny


def test_every_arm_moves_the_bytes_of_its_constant_plan(profile: ds.Profile, samples: list[Sample]) -> None:
    found = study(tiny("llama", "sdpa"), profile, samples, [7], 24, tolerance=0.03)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for bridges in (True, False):
        rows = [row for row in found["rows"] if row["bridges"] is bridges]
        constant = rows[0]
        assert constant["family"] == "constant"
        assert constant["kl_less_constant"]["mean"] == 0
        assert len(rows) > 1
        for row in rows[1:]:
            assert row["bytes_speedup"] == pytest.approx(constant["bytes_speedup"], rel=0.03)
            difference = row["kl"]["mean"] - constant["kl"]["mean"]
            assert row["kl_less_constant"]["mean"] == pytest.approx(difference)
            assert row["kl_less_constant"]["low"] <= difference <= row["kl_less_constant"]["high"]


def test_bytes_count_bridges(profile: ds.Profile, samples: list[Sample]) -> None:
    adapter = adapter_for(tiny("llama", "sdpa"))
    bridged, plain = (
        module._bytes(adapter, plan("constant:depth=6", order, num_layers=LAYERS, horizon=24, profile=profile), samples)
        for order in ("ranked", "ranked:bridges=false")
    )
    assert 1 < bridged < plain


def test_the_paired_timing_scores_the_same_both_ways(profile: ds.Profile, samples: list[Sample]) -> None:
    resolved = plan("linear:end=4", num_layers=LAYERS, horizon=24, profile=profile)
    found = paired.paired(tiny("llama", "sdpa"), resolved, samples[:3], repeats=2)
    assert (found["prompts"], found["tokens"]) == (3, 3 * 23)
    assert found["kl_difference"] < 1e-4
    assert found["kl"]["staircase"] > 1e-3
    assert [len(values) for values in found["seconds"].values()] == [2, 2]
    assert found["ratio"]["low"] <= found["ratio"]["median"] <= found["ratio"]["high"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "absent.jsonl", "--profile", "absent"], "no profile in absent"),
        (["--prompts", "absent.jsonl", "--profile", "P"], "no such prompt file"),
        (["--prompts", "absent.jsonl", "--profile", "P", "--depths", "x"], "names no depth"),
    ],
)
def test_wrong_input_to_the_study_is_one_line(
    profile: ds.Profile, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [str(profile.folder) if word == "P" else word for word in arguments]
    assert module.main(given) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_wrong_input_to_the_timing_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert paired.main(["--prompts", str(tmp_path / "absent.jsonl")]) == 2
    assert "no such prompt file" in capsys.readouterr().err
