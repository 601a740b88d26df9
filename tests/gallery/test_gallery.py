"""A gallery on a tiny model, from the command line."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from depthsched.gallery import load_gallery
from depthsched.gallery.entries import Entry, Group, joined
from depthsched.gallery.page import verdict_of
from depthsched.gallery.state import Cells, State
from depthsched.sweep import Store

FILE = {
    "schedules": ["constant", "d3", "optimal", "linear:end=5"],
    "orders": ["middle-out"],
    "bridges": [True],
    "budgets": [1.2, 4.0],
    "max_new_tokens": 12,
    "limit": 3,
}


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "gallery.yaml"
    file.write_text(json.dumps({**FILE, "model": str(folder / "model"), **changes}))
    return file


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out") / "gallery"


@pytest.fixture
def command(folder: Path, profile: Any, out: Path) -> list[object]:
    common = ["--prompts", folder / "prompts.jsonl", "--profile", profile.folder]
    return ["gallery", "run", write(folder), "--out", out, *common, "--json"]


@pytest.fixture
def found(cli: Any, command: list[object], out: Path) -> Any:
    """What the gallery says: measured by the first test that asks, read afterwards."""
    return cli(*command).json() if not out.exists() else cli("gallery", "show", out, "--json").json()


def test_every_schedule_is_ranked_at_the_bytes_of_the_budget(found) -> None:
    rows = found["rows"]
    assert {row["group"] for row in rows} == {"middle-out", "profile, bridges"}
    here = [row for row in rows if row["budget"] is not None]
    assert {row["spec"] for row in here} == {"constant", "d3", "optimal"}
    assert [row["kl"]["mean"] for row in here] == sorted(row["kl"]["mean"] for row in here)
    for row in here:
        room = 0.06 if row["spec"] == "constant" else 0.03  # of 8 layers each is a tenth
        assert row["saved"] == pytest.approx(1.2, rel=room), row["plan"]
        assert row["verdict"]["between"]
    as_given = [row["spec"] for row in rows if row["budget"] is None]
    assert as_given == ["linear:end=5"] * 2
    reasons = {(row["spec"], row["group"], row["budget"]): row["reason"] for row in found["missing"]}
    assert "so not 4x" in reasons["d3", "middle-out", 4.0]
    assert "out of reach" in reasons["optimal", "profile, bridges", 4.0]
    assert "no other order" in reasons["optimal", "middle-out", 1.2]
    for row in rows:
        if row["spec"] == "constant":
            assert row["verdict"]["kl"]["mean"] == pytest.approx(0, abs=1e-9)


def test_again_nothing_runs_and_a_lost_cell_is_measured_anew(cli, command, found, out) -> None:
    cells = sorted((out / "cells").iterdir())
    before = {path.name: path.stat().st_mtime_ns for path in cells}
    cells[0].unlink()
    assert cli(*command).json() == found
    after = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert {name for name, when in after.items() if before[name] != when} == {cells[0].name}


@pytest.mark.parametrize("which", ["of a row", "beside a row"])
def test_what_failed_is_measured_again(cli, command, found, out, which: str) -> None:
    cells, store = Cells(State.load(out)), Store(out)
    rows = load_gallery(out).rows
    plans = [row.entry.plan for row in rows]
    beside = (row.entry.group.plan(name) for row in rows if row.verdict for name in row.verdict.between)
    plan = plans[0] if which == "of a row" else next(name for name in beside if name not in plans)
    record = store.read(cells.score(plan))
    error = {"type": "OutOfMemoryError", "message": "no memory " * 99, "fault": False}
    store.write(dataclasses.replace(record, status="failed", result=None, error=error))
    missing = load_gallery(out)
    said = [text for _, text in missing.missing] + [row.unjudged for row in missing.rows if row.unjudged]
    assert any("no memory" in text and len(text) < 150 for text in said)
    assert cli(*command).json() == found


def test_one_more_is_measured_and_compared(cli, command, found, out) -> None:
    text = cli("gallery", "add", "step:at=4,drop=2@middle-out", "--gallery", out).out
    assert "from constant at these bytes" in text or "than constant at these bytes" in text
    assert "As given, saves" in text
    rows = cli("gallery", "add", "d3:start=4", "--gallery", out, "--json").json()["rows"]
    assert {row["spec"] for row in rows} == {"d3:start=4"}
    assert {row["budget"] for row in rows} == {1.2}
    whole = load_gallery(out)
    assert {"step:at=4,drop=2", "d3:start=4", "d3"} <= {row.entry.spec for row in whole.rows}
    assert {"d3:start=4"} <= {entry.spec for entry, _ in whole.missing}
    kept = cli(*command).json()  # the file again forgets nothing that was added
    assert "step:at=4,drop=2" in {row["spec"] for row in kept["rows"]}


IDEA = """
from dataclasses import dataclass
import depthsched as ds


@dataclass(frozen=True)
class Idea(ds.DepthSchedule):
    \"\"\"An idea.\"\"\"

    def depth(self, step, num_layers):
        return num_layers - {drop}
"""


def test_an_idea_in_a_file_is_measured_again_when_its_code_changes(folder, profile, out, found) -> None:
    cells = Cells(State.load(out))
    file = folder / "idea.py"
    ids = set()
    for drop in (1, 2):
        file.write_text(IDEA.format(drop=drop))
        ids.add(cells.score(f"{file}:Idea@middle-out").id)
    assert len(ids) == 2


def test_what_was_added_by_hand_stays_and_what_left_the_file_goes() -> None:
    group = Group("middle-out")
    of_file = Entry("d3", group, 1.2, "d3:alpha=0.9@middle-out")
    by_hand = dataclasses.replace(of_file, added=True)
    assert of_file == by_hand
    assert [entry.added for entry in joined([of_file], [by_hand])] == [True]
    assert [entry.added for entry in joined([by_hand], [of_file])] == [True]
    assert Entry.from_json(by_hand.to_json()).added


def test_a_rerun_keeps_a_schedule_of_the_file_that_was_also_added_in_one_order(
    cli, command, found, out, folder
) -> None:
    cli("gallery", "add", "constant@early-exit", "--gallery", out)
    kept = cli(*command).json()
    assert ("constant", "early-exit") in {(row["spec"], row["group"]) for row in kept["rows"]}
    write(folder, schedules=["constant", "d3", "optimal"])  # one schedule less
    fewer = cli(*command).json()
    assert "linear:end=5" not in {row["spec"] for row in fewer["rows"]}
    assert ("constant", "early-exit") in {(row["spec"], row["group"]) for row in fewer["rows"]}
    write(folder)
    cli(*command)


def test_without_its_constant_depths_a_row_says_that_they_are_not_measured(cli, found, out) -> None:
    state, store = State.load(out), Store(out)
    cells = Cells(state)
    group = next(row.entry.group for row in load_gallery(out).rows if row.entry.spec == "d3")
    constants = [store.path(cells.score(group.plan(f"constant:depth={d}"))) for d in range(1, 8)]
    aside = {path: path.read_bytes() for path in constants if path.is_file()}
    for path in aside:
        path.unlink()
    rows = [row for row in load_gallery(out).rows if row.entry.spec == "d3" and row.entry.group == group]
    for path, content in aside.items():
        path.write_bytes(content)
    assert rows
    assert all(row.verdict is None and "not measured yet" in row.unjudged for row in rows)
    assert "not measured yet" in verdict_of(rows[0])


def test_the_page_has_the_line_that_reproduces_each_row(cli, found, out, tmp_path) -> None:
    rows = found["rows"]
    assert cli("gallery", "show", out, "--page", tmp_path / "gallery.md").code == 0
    page = (tmp_path / "gallery.md").read_text()
    assert (tmp_path / "gallery.png").read_bytes()[:4] == b"\x89PNG"
    lines = [line for line in page.splitlines() if line.startswith("depthsched score")]
    assert len(lines) == len(rows)
    again = cli(*shlex.split(lines[0])[1:], "--json").json()
    row = next(row for row in rows if row["budget"] == 1.2)
    assert again["kl"] == pytest.approx(row["kl"]["mean"])
    assert again["bytes_speedup"] == pytest.approx(row["saved"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "d4", "--gallery", "OUT"], "unknown schedule"),
        (["add", "d3:alpha=2", "--gallery", "OUT"], "alpha"),
        (["add", "d3", "--gallery", "NOWHERE"], "no gallery in"),
        (["show", "NOWHERE"], "gallery run FILE --out DIR"),
        (["run", "NOWHERE", "--out", "NOWHERE", "--prompts", "NOWHERE"], "cannot read the gallery file"),
    ],
)
def test_bad_input_is_one_line(cli, found, out, tmp_path, arguments: list[str], message: str) -> None:
    places = {"OUT": out, "NOWHERE": tmp_path / "nowhere"}
    done = cli("gallery", *(places.get(word, word) for word in arguments))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedules": ["idea.py:Idea"]}, "runs no code"),
        ({"budgets": [0.9]}, "budgets=0.9"),
        ({"scheduls": ["d3"]}, "unknown key 'scheduls'"),
        ({"schedules": ["d4"]}, "unknown schedule 'd4'"),
    ],
)
def test_a_wrong_file_is_refused_by_key(cli, folder, tmp_path, changes: dict[str, Any], message: str) -> None:
    file = write(tmp_path, **{"model": str(folder / "model"), **changes})
    done = cli("gallery", "run", file, "--out", tmp_path / "out", "--prompts", folder / "prompts.jsonl")
    assert done.code == 2
    assert message in done.err
