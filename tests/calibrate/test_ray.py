"""A calibration on a Ray cluster of two workers writes the profile of one process, also when one of them is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..plugins.distributions import ROOT, environment
from ..tiny import make_tiny

FILES = ("profile.json", "bridges.safetensors")


@pytest.fixture(scope="module")
def folder(small_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and prompts long enough for several batches to fit on and to judge on."""
    found = tmp_path_factory.mktemp("ray")
    model = make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer), max_position_embeddings=512)
    model.save_pretrained(found / "model")
    small_tokenizer.save_pretrained(found / "model")
    rows = [{"prompt": " ".join(f"{i} and {j} is {i + j}." for j in range(24 + i % 3))} for i in range(80)]
    (found / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return found


def words(folder: Path) -> list[str]:
    given = ["--model", folder / "model", "--prompts", folder / "prompts.jsonl", "--device", "cpu", "--raw"]
    given += ["-n", 24, "--min-depth", 3, "--target-speedup", 1.1, "--order", "block", "--corrections", 1]
    return [str(word) for word in given]


def run(folder: Path, cache: str, *command: str) -> subprocess.CompletedProcess[str]:
    variables = {"HOME": str(folder), "OMP_NUM_THREADS": "1", "DEPTHSCHED_CACHE": str(folder / cache)}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment(ROOT, **variables),
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.slow
def test_a_profile_is_the_same_on_two_workers_and_with_one_killed(folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'depthsched[ray]'")
    here = run(folder, "here", "depthsched", "calibrate", *words(folder), "--out", str(folder / "here"))
    assert here.returncode == 0, here.stderr
    assert "on workers" not in here.stderr
    evidence = json.loads((folder / "here" / "profile.json").read_text())["evidence"]
    assert evidence["corrections"]  # so that states go from one fit to the next
    there = run(folder, "there", "tests.calibrate.ray_cluster", str(folder), *words(folder))
    assert there.returncode == 0, there.stderr
    seen = json.loads(there.stdout.splitlines()[-1])
    for name in ("whole", "killed"):
        assert seen[name]["code"] == 0, seen[name]["said"]
        (line,) = [line for line in seen[name]["said"].splitlines() if "on workers: " in line]
        assert "fits (" in line.partition("in this process")[0]
        assert "judgement on held-out prompts (" in line.partition("in this process")[0]
        for file in FILES:
            assert (folder / name / file).read_bytes() == (folder / "here" / file).read_bytes(), (name, file)
    assert seen["finished_before"] >= 2
    assert f"Worker PID: {seen['victim']} " in seen["killed"]["said"]  # Ray's own report
    assert not (folder / "killed" / ".work").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--ray", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
        (["--ray", "somewhere"], "must be HOST:PORT"),
        (["--ray-cpus", "2"], "goes with --ray"),
    ],
)
def test_what_cannot_work_is_one_line(cli: Any, folder: Path, given: list[str], said: str) -> None:
    result = cli("calibrate", *words(folder), "--out", folder / "never", *given)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1
    assert not (folder / "never").exists()
