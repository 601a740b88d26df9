"""Cells that evaluate tasks, and what a report makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .helpers import write_grid

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'depthsched[eval]'")
rows = pytest.importorskip("tests.evaluate.rows", reason="the tests of depthsched.evaluate are not here")


@pytest.mark.slow
def test_a_cell_for_each_task_and_plan(cli, folder, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = rows.write_data(tmp_path / "data")
    grid = write_grid(
        folder,
        "eval.yaml",
        measure=["eval", "score"],
        tasks=["bbh_cot_fewshot_boolean_expressions"],
        data=str(data),
        schedules=["full", "constant:depth=6"],
        orders="default",
        backends="eager",
        limit=3,
        batch=3,
    )
    result = cli("sweep", grid, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    cells = [row for row in result.json()["rows"] if row["measure"] == "eval"]
    assert [row["plan"] for row in cells] == ["full", "constant:depth=6"]
    full, half = (json.loads(Path(row["file"]).read_text())["result"]["eval"] for row in cells)
    assert full["rows"][0]["diff"] == 0
    assert half["rows"][0]["mean_depth"] == 6
    shown = cli("report", tmp_path / "out", "--json").json()
    assert [row["plan"] for row in shown["tasks"]] == ["full", "constant:depth=6"]
    assert {frontier["name"] for frontier in shown["frontiers"]} == {"agreement-prompts", "tasks"}
    assert shown["plans"][1]["depths"][:2] == [8, 6]
