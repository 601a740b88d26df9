"""What a report says, from records on disk."""

from __future__ import annotations

import dataclasses
import json

import pytest

from depthsched.display.escape import visible_in
from depthsched.report.data import read_report
from depthsched.report.frontier import frontiers
from depthsched.report.html import fitting_maps, page, save_report
from depthsched.report.tables import curve, tables
from depthsched.sweep import Cell, Record, Store

EVAL = {
    "task": "boolean_expressions",
    "metric": "exact_match,get-answer",
    "n": 30,
    "score": 0.6,
    "full": 0.7,
    "diff": -0.1,
    "low": -0.25,
    "high": 0.05,
    "p_value": 0.25,
    "mean_depth": 20.0,
    "layer_speedup": 1.5,
    "bytes_speedup": 1.3,
    "speedup": 1.2,
    "verdict": "too small to say",
}


def cell(measure="eval", plan="constant:depth=20@middle-out", **changes):
    label = plan.partition("@")[0]
    return Cell(measure, "smollm2", "float32", "auto", "auto", plan, label, **{"options": {"task": "t"}, **changes})


def stored(folder, records, missing=()):
    store = Store(folder)
    store.prepare([*(record.cell for record in records), *missing], {})
    for record in records:
        store.write(record)
    return folder


def evaluated(plan, score, diff=-0.1, speedup=1.2, **changes):
    row = {**EVAL, "plan": plan, "score": score, "diff": diff, "full": score - diff, "speedup": speedup, **changes}
    result = {"eval": {"plan": plan, "rows": [row], "samples": [{"depths": [30, 20, 20]}, {"depths": [30, 20]}]}}
    return Record(cell(plan=plan), "done", result, None, 1.0, {"depthsched": "0"})


def test_tasks_are_shown_with_intervals_and_verdicts(tmp_path):
    records = [evaluated("constant:depth=20@middle-out", 0.6), evaluated("d3:alpha=0.9@middle-out", 0.65)]
    data = read_report(stored(tmp_path / "s", records))
    assert [row["plan"] for row in data["tasks"]] == ["constant:depth=20", "d3:alpha=0.9"]
    (frontier,) = data["frontiers"]
    assert frontier["quality"] == "score on boolean_expressions"
    assert [point["dominated"] for point in frontier["points"]] == [True, False]
    low = frontier["points"][0]["quality"]
    assert (low["low"], low["high"]) == (pytest.approx(0.45), pytest.approx(0.75))
    assert data["plans"][0]["depths"] == [30, 20, 20]
    assert data["plans"][0]["speed"]["how"] == "clock of the evaluation"
    text = page(data)
    for words in ("-0.100 (-0.250 to 0.050)", "too small to say", "Tasks: difference to full depth"):
        assert words in text
    files = save_report(data, tmp_path / "report")
    assert {path.name for path in files} == {"report.html", "frontier-tasks.png", "depth-curves.png", "tasks.png"}


def test_failures_and_what_is_missing_are_shown(tmp_path):
    error = {"type": "PlanError", "message": "too <deep>", "fault": False}
    failed = Record(cell(plan="full"), "failed", None, error, 0.1, {})
    data = read_report(
        stored(tmp_path / "s", [evaluated("d3@middle-out", 0.5), failed], [cell("bench", options={"backend": "eager"})])
    )
    assert data["cells"] == {"all": 3, "done": 1, "failed": 1, "missing": 1}
    text = page(data)
    assert "too &lt;deep&gt;" in text
    assert "bench, constant:depth=20, eager" in text


def point(plan, speed, quality, kind="measured"):
    score = {"on": "p", "intervals": {"agreement": {"mean": quality, "low": None, "high": None}}}
    return {
        "label": plan,
        "number": 1,
        "scores": [score],
        "tasks": [],
        "speed": {"value": speed, "kind": kind},
    }


@pytest.mark.parametrize(
    ("plans", "dominated"),
    [
        ([("a", 1.0, 1.0), ("b", 1.2, 0.9), ("c", 1.1, 0.8)], [False, False, True]),
        ([("a", 1.0, 1.0), ("b", 1.0, 1.0)], [False, False]),
        ([("a", 1.0, 0.9), ("b", 1.0, 1.0)], [True, False]),
        ([("a", 1.2, 0.9), ("b", 1.0, 0.9)], [False, True]),
        # What is on paper neither beats nor loses to what was measured.
        ([("a", 1.2, 0.9), ("b", 1.0, 0.8, "theoretical")], [False, False]),
        ([("a", 1.2, 0.9, "theoretical"), ("b", 1.0, 0.8, "theoretical")], [False, True]),
    ],
)
def test_a_plan_is_dominated_when_another_is_no_worse_and_better_in_one(plans, dominated):
    (frontier,) = frontiers([point(*plan) for plan in plans])
    assert [found["dominated"] for found in frontier["points"]] == dominated


def test_without_a_bench_cell_the_speed_is_on_paper_and_says_so(sweep, tmp_path):
    cells = [c for c in Store(sweep).cells() if c.measure == "score"]
    records = [Store(sweep).read(c) for c in cells]
    data = read_report(stored(tmp_path / "s", records))
    assert {plan["speed"]["kind"] for plan in data["plans"]} == {"theoretical"}
    text = page(data)
    assert "theoretical: bytes moved, on paper" in text


def test_plans_join_their_cells_and_two_dtypes_stay_apart(sweep, tmp_path):
    cells = Store(sweep).cells()
    records = [Store(sweep).read(c) for c in cells]
    data = read_report(sweep)
    assert len(data["plans"]) == 15
    assert all(plan["speed"]["kind"] == "measured" for plan in data["plans"])
    again = [dataclasses.replace(r, cell=dataclasses.replace(r.cell, dtype="bfloat16")) for r in records]
    both = read_report(stored(tmp_path / "s", [*records, *again]))
    assert len(both["plans"]) == 30
    assert "full (model, bfloat16)" in {plan["label"] for plan in both["plans"]}


def test_the_page_shows_what_json_has(cli, sweep, tmp_path):
    result = cli("report", sweep, "--out", tmp_path / "r", "--json")
    assert result.code == 0, result.err
    data = result.json()
    text = (tmp_path / "r" / "report.html").read_text()
    for table in tables(data):
        for row in table["rows"]:
            assert all(f">{cell}<" in text for cell in row["cells"] if "&" not in cell and "<" not in cell)
    assert json.dumps(visible_in(data["maps"])).replace("<", "\\u003c") in text
    from matplotlib.image import imread

    pictures = [path for path in data["files"] if path.endswith(".png")]
    assert len(pictures) == 2
    assert all(imread(path).shape[1] > 800 for path in pictures)
    assert "best for agreement" in cli("report", sweep, "--out", tmp_path / "r").out


def test_pictures_are_the_same_for_the_same_data(data):
    assert page(data) == page(data)


def test_a_curve_is_the_mean_of_its_steps():
    assert curve({"depths": [8, 8, 4, 4], "num_layers": 8}) == "██▅▅"
    assert len(curve({"depths": [8] * 100, "num_layers": 8})) == 24
    assert curve({"depths": [], "num_layers": None}) == "–"


def test_first_answers_stay_when_there_is_no_room_for_all():
    maps = [{"plan": plan, "turn": turn, "text": "x" * 100} for plan in "ab" for turn in (1, 2)]
    assert fitting_maps(maps) == maps
    size = len(json.dumps(maps[0]))
    assert [(m["plan"], m["turn"]) for m in fitting_maps(maps, 2 * size)] == [("a", 1), ("b", 1)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: None, "no sweep in"),
        (lambda d: Store(d).prepare([cell()], {}), "no cell of the sweep"),
        (lambda d: (d.mkdir(), (d / "sweep.json").write_text("{")), "cannot be read"),
    ],
)
def test_nothing_to_report_is_one_line(cli, tmp_path, make, words):
    make(tmp_path / "s")
    result = cli("report", tmp_path / "s")
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert result.err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(cli, sweep, tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("report", sweep, "--out", tmp_path / "file" / "r")
    assert result.code == 2
    assert "cannot write the report" in result.err
