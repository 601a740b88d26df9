"""Scores on a Ray cluster are those of one process, and what cannot work is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import depthsched as ds
from depthsched.errors import ModelError
from depthsched.score import Sample, score
from depthsched.work.cluster import Cluster

from ..plugins.distributions import ROOT, environment
from ..tiny import LAYERS, make_tiny


def test_scores_on_workers_are_those_of_one_process(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'depthsched[ray]'")
    call = ["score", "--prompts", folder / "prompts.jsonl", "--model", folder / "model", "-n", "12", "--json"]
    call += ["--plans", "constant:depth=5;confidence:depth=5", "--device", "cpu"]
    found = []
    for name, extra in (("here", []), ("there", ["--ray", "local"])):
        done = subprocess.run(
            [sys.executable, "-m", "depthsched", *map(str, call), *extra],
            cwd=ROOT,
            env=environment(ROOT, OMP_NUM_THREADS="1", HOME=str(tmp_path), DEPTHSCHED_CACHE=str(tmp_path / name)),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["rows"])
    for rows in found:
        for row in rows:
            assert row.pop("seconds") > 0
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--ray", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
        (["--ray", "somewhere"], "must be HOST:PORT"),
        (["--ray-cpus", "2"], "goes with --ray"),
        (["--ray", "auto", "--ray-cpus", "0"], "must be above 0"),
    ],
)
def test_what_cannot_work_is_one_line(cli: Any, folder: Path, given: list[str], said: str) -> None:
    result = cli("score", "--prompts", folder / "prompts.jsonl", "--model", folder / "model", *given)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_a_model_without_a_name_is_refused() -> None:
    plan = ds.plan("constant:depth=5", num_layers=LAYERS, horizon=4)
    with pytest.raises(ModelError, match="by its name"):
        score(make_tiny("llama"), [plan], [Sample((1, 2), (3, 4, 5))], cluster=Cluster("local"))
