"""A calibration that is killed and started again writes the profile of one that was left alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import depthsched as ds

from ..tiny import make_tiny


@pytest.fixture
def command(tmp_path: Path, small_tokenizer: Any) -> Callable[[str], list[str]]:
    """``command(out)``: the words that calibrate a tiny model with a chat template."""
    make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer)).save_pretrained(tmp_path / "model")
    small_tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"How much is {i} plus {i * i}?"} for i in range(16)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    common = ["--model", tmp_path / "model", "--prompts", tmp_path / "prompts.jsonl", "-n", 32, "--min-depth", 3]
    common += ["--max-kl", 30]
    return lambda out: [
        sys.executable,
        "-m",
        "depthsched",
        "calibrate",
        *map(str, common),
        "--out",
        str(tmp_path / out),
    ]


def test_killed_and_resumed(command: Callable[[str], list[str]], tmp_path: Path) -> None:
    environment = {**os.environ, "DEPTHSCHED_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    for pattern in ("held/0/done", "rank-*", "steps-5*"):
        with subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not list((tmp_path / "killed" / ".work").glob(pattern)):
                time.sleep(0.005)
            process.kill()
        assert process.returncode != 0, "it finished before it could be killed"
        assert not (tmp_path / "killed" / "profile.json").exists()
    for out in ("killed", "whole"):
        subprocess.run(command(out), env=environment, check=True, capture_output=True)
    for name in ("profile.json", "bridges.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "killed" / ".work").exists()
    assert ds.Profile.load(tmp_path / "killed").depths == (3, 4, 5, 6, 7)
