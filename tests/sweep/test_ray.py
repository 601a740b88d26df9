"""A sweep on a Ray cluster of two workers, one of which is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from depthsched.sweep import Store, read_grid, run_sweep
from depthsched.sweep.expand import cells_of

from ..plugins.distributions import ROOT, environment
from .helpers import make_folder, write_grid


@pytest.mark.slow
def test_a_worker_dies_and_no_cell_is_lost(smollm2, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'depthsched[ray]'")
    folder = make_folder(tmp_path, smollm2[1])  # all its words: a cell must last until it is killed
    schedules = [
        "full",
        "constant:depth=7@list:layers=30",
        {"constant": {"depth": [4, 5, 6, 7]}},
        {"d3": {"alpha": [0.8, 0.9]}},
    ]
    grid = write_grid(folder, "ray.yaml", schedules=schedules, orders=[None, "early-exit"], max_new_tokens=48)
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweep.ray_cluster", str(grid), str(tmp_path / "out")],
        cwd=ROOT,
        env=environment(ROOT, OMP_NUM_THREADS="1", HOME=str(tmp_path), DEPTHSCHED_CACHE=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    rows = seen["sweep"]["rows"]
    assert 3 <= seen["finished_before"] < len(rows)
    assert all(row["ran"] for row in rows)
    # A plan that does not fit the model is a cell that fails, there as here.
    assert {row["plan"] for row in rows if row["status"] == "failed"} == {"constant:depth=7@list:layers=30"}
    assert seen["code"] == 2
    cells = cells_of(read_grid(grid))
    here, there = Store(tmp_path / "here"), Store(tmp_path / "out")
    here.prepare(cells, {})
    run_sweep(cells, here)
    assert [here.read(cell).result for cell in cells] == [there.read(cell).result for cell in cells]


def test_ray_without_its_extra_is_one_line(cli, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = cli("sweep", write_grid(folder), "--out", tmp_path / "out", "--ray")
    assert result.code == 2
    assert "pip install 'depthsched[ray]'" in result.err
