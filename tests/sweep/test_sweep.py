"""Sweeps on a tiny model: what is stored, what runs again, and what does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depthsched.sweep import Store, read_grid, run_sweep
from depthsched.sweep.expand import cells_of

from ..plugins.distributions import environment
from .helpers import write_grid


def sweep(grid, out, *options):
    """A sweep in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "depthsched", "sweep", str(grid), "--out", str(out), *options],
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)


def test_every_cell_has_its_file_and_runs_once(cli, folder, tmp_path):
    grid = write_grid(folder, orders="default")
    first = cli("sweep", grid, "--out", tmp_path / "out", "--json").json()
    assert (first["cells"], first["failed"]) == (6, 0)
    assert all(row["ran"] and row["status"] == "done" for row in first["rows"])
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    assert {row["file"].rpartition("/")[2] for row in first["rows"]} == set(files)
    second = cli("sweep", grid, "--out", tmp_path / "out", "--json").json()
    assert not any(row["ran"] for row in second["rows"])
    assert files == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    # A grown grid runs what is new.
    grown = write_grid(folder, orders="default", schedules=["full", "constant:depth=4"])
    third = cli("sweep", grown, "--out", tmp_path / "out", "--json").json()
    assert [row["ran"] for row in third["rows"]] == [False, True]


def test_a_score_cell_holds_what_score_prints(cli, folder, tmp_path):
    grid = write_grid(folder, schedules="constant:depth=6", orders="default")
    row = cli("sweep", grid, "--out", tmp_path / "out", "--json").json()["rows"][0]
    common = ["--model", folder / "model", "--prompts", folder / "prompts.jsonl", "-n", 8, "--json"]
    expected = cli("score", *common, "--schedule", "constant:depth=6").json()
    found = json.loads(Path(row["file"]).read_text())["result"]
    assert found["score"]["kl"] == pytest.approx(expected["kl"])
    assert found["score"]["intervals"] == expected["intervals"]
    (answer,) = found["maps"]
    assert answer["depths"] == [8, *[6] * 7]
    assert {len(answer[key]) for key in ("tokens", "pieces", "top", "full", "full_probability", "agree")} == {8}


def test_a_bench_cell_is_paired_with_full_depth(cli, folder, tmp_path):
    grid = write_grid(
        folder,
        measure="bench",
        schedules=["full", "constant:depth=5"],
        orders="default",
        backends="eager",
        tokens=4,
        repeats=2,
    )
    rows = cli("sweep", grid, "--out", tmp_path / "out", "--json").json()["rows"]
    full, half = (json.loads(Path(row["file"]).read_text())["result"]["bench"] for row in rows)
    assert full["speedup_vs_full"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert half["mean_depth"] == 5
    assert half["speedup_vs_full"]["low"] <= half["speedup_vs_full"]["median"] <= half["speedup_vs_full"]["high"]


def test_a_failing_cell_is_recorded_and_the_rest_goes_on(cli, folder, tmp_path):
    grid = write_grid(
        folder, schedules=["constant:depth=7@list:layers=30", "full", "constant:depth=6"], orders="default"
    )
    result = cli("sweep", grid, "--out", tmp_path / "out", "--json")
    assert result.code == 2
    rows = result.json()["rows"]
    assert [row["status"] for row in rows] == ["failed", "done", "done"]
    assert "not in 0..7" in rows[0]["error"]["message"]
    assert not rows[0]["error"]["fault"]
    again = cli("sweep", grid, "--out", tmp_path / "out", "--json")
    assert [row["ran"] for row in again.json()["rows"]] == [False, False, False]
    retried = cli("sweep", grid, "--out", tmp_path / "out", "--retry", "--json")
    assert [row["ran"] for row in retried.json()["rows"]] == [True, False, False]
    text = cli("sweep", grid, "--out", tmp_path / "out").out
    assert "1 failed" in text


def test_on_a_terminal_there_is_a_bar_with_the_time_left(cli, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    result = cli("sweep", write_grid(folder, orders="default"), "--out", tmp_path / "out", "--json")
    assert "6/6" in result.err
    assert "left" in result.err
    assert result.json()["cells"] == 6, "the bar stays off stdout"


def test_a_fault_of_ours_leaves_with_1(cli, folder, tmp_path, monkeypatch):
    from depthsched.sweep import measure

    def broken(cell):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(measure, "measure", broken)
    result = cli("sweep", write_grid(folder, schedules="full", orders="default"), "--out", tmp_path / "out", "--json")
    assert result.code == 1
    assert result.json()["rows"][0]["error"] == {"type": "ZeroDivisionError", "message": "by zero", "fault": True}


def test_what_a_killed_writer_left_is_cleared_and_never_read(folder, tmp_path):
    cells = cells_of(read_grid(write_grid(folder, schedules=["full", "constant:depth=6"], orders="default")))
    store = Store(tmp_path / "out")
    store.prepare(cells, {})
    scratch = store.path(cells[0]).parent / f".writing-{cells[0].id}-abc"
    scratch.write_text('{"format": 1, "cell"')
    store.path(cells[1]).write_text('{"format": 1, "cell"')  # as a failing disk could leave it
    assert [store.finished(cell) for cell in cells] == [False, False]
    assert all(outcome.ran for outcome in run_sweep(cells, store))
    assert not scratch.exists()
    assert all(store.finished(cell) for cell in cells)


def test_a_cell_that_another_process_holds_is_left_to_it(folder, tmp_path):
    (cell,) = cells_of(read_grid(write_grid(folder, schedules="full", orders="default")))
    store, other = Store(tmp_path / "out"), Store(tmp_path / "out")
    store.prepare([cell], {})
    with store.claim(cell) as mine, other.claim(cell) as theirs:
        assert (mine, theirs) == (True, False)
    with other.claim(cell) as theirs:
        assert theirs


@pytest.mark.slow
def test_two_processes_on_one_folder_do_no_cell_twice(folder, tmp_path):
    grid = write_grid(folder, "two.yaml", schedules={"constant": {"depth": [4, 5, 6, 7]}, "d3": {"alpha": [0.8, 0.9]}})
    both = [sweep(grid, tmp_path / "out", "--json") for _ in range(2)]
    results = [finish(process) for process in both]
    ran = [{row["id"] for row in result["rows"] if row["ran"]} for result in results]
    everything = {row["id"] for row in results[0]["rows"]}
    assert ran[0] & ran[1] == set()
    assert ran[0] | ran[1] == everything
    assert len(everything) == 12


@pytest.mark.slow
def test_a_killed_command_goes_on_where_it_stopped(folder, tmp_path):
    grid = write_grid(folder, "killed.yaml")
    process = sweep(grid, tmp_path / "out")
    cells = tmp_path / "out" / "cells"
    while process.poll() is None and len(list(cells.glob("*.json"))) < 2:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    there = {path.stem for path in cells.glob("*.json")}
    rows = finish(sweep(grid, tmp_path / "out", "--json"))["rows"]
    assert {row["id"] for row in rows if not row["ran"]} == there
    assert 2 <= len(there) < len(rows)
