"""kill -9 at ten random moments, and the results are those of a sweep that nobody disturbed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ..plugins.distributions import ROOT, environment
from .helpers import write_grid

KILLS = 10


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_ten_kills_change_nothing(folder, tmp_path):
    grid = write_grid(
        folder,
        "storm.yaml",
        schedules=["full", {"constant": {"depth": [4, 5, 6, 7]}}, {"d3": {"alpha": [0.8, 0.85, 0.9, 0.95]}}],
        orders=[None, "early-exit", "strided"],
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweep.kill_nine", str(grid), str(tmp_path), "0", str(KILLS)],
        cwd=ROOT,
        env=environment(ROOT, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    print(seen)  # what pytest -s shows
    assert len(seen["finished_at_each_kill"]) == KILLS
    assert seen["finished_at_each_kill"][-1] > 0
    for problem in ("unreadable", "done_twice", "left_over", "different"):
        assert seen[problem] == [], problem
