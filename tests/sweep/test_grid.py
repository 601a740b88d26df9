"""Grids: what they stand for, and that every mistake is one line that names the key."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from depthsched.errors import SettingsError
from depthsched.sweep import Cell, Grid, read_grid
from depthsched.sweep.expand import cells_of
from depthsched.sweep.grid import parse_grid

from ..docs.pages import DOCS, blocks

GOOD = "schedules: [full, d3:alpha=0.99]\nprompts: p.jsonl\n"

# (what the file says, what the line must contain)
BAD = [
    ("", "at least schedules"),
    ("- full", "a grid is a mapping"),
    ("prompts: p.jsonl", "'schedules' is missing"),
    ("schedules: []\nprompts: p.jsonl", "'schedules' is missing"),
    ("schedules: full", "measure 'score' needs the key 'prompts'"),
    ("schedules: full\nmeasure: eval", "measure 'eval' needs the key 'tasks'"),
    (GOOD + "sheduls: full", "unknown key 'sheduls'; did you mean 'schedules'"),
    (GOOD + "prompts: q.jsonl", "'prompts' appears twice"),
    (GOOD + "repeats: 0", "grid: repeats=0 must be at least 1"),
    (GOOD + "repeats: true", "grid: repeats=true is not a whole number"),
    (GOOD + "limit: many", "grid: limit='many' is not a whole number"),
    (GOOD + "tokens: 1", "grid: tokens=1 must be at least 2"),
    (GOOD + "raw: 3", "grid: raw=3 is not true or false"),
    (GOOD + "dtype: float3", "grid: dtype='float3' is not one of auto"),
    (GOOD + "measure: [score, speed]", "grid: measure='speed' is not one of score"),
    (GOOD + "measure: []", "grid: measure is empty; leave the key out"),
    (GOOD + "backends: fast", "grid: backends='fast' is not one of auto, eager"),
    (GOOD + "data: [a, b]", "grid: data="),
    (GOOD + "orders: [7]", "grid: orders=7 is not text"),
    (GOOD + "orders: middel-out", "key 'orders', plan 'full@middel-out': unknown order 'middel-out'; did you mean"),
    (GOOD + "orders: ranked", "comes from a profile"),
    (GOOD + "profiles: absent", "no profile in"),
    ("schedules: d4\nprompts: p.jsonl", "key 'schedules', plan 'd4': unknown schedule 'd4'; did you mean 'd3'"),
    ("schedules: [3]\nprompts: p.jsonl", "grid: schedules=3 is not text"),
    ("schedules: {d3: {alpha: 2}}\nprompts: p.jsonl", "in (0, 1)"),
    ("schedules: {d3: [0.9]}\nprompts: p.jsonl", "key 'schedules': write {d3:"),
    ("schedules: {d3: {alpha: {low: 1}}}\nprompts: p.jsonl", "neither a number nor text"),
    ("schedules: mine.py:Mine\nprompts: p.jsonl", "a grid runs no code"),
    ("schedules: full\nprompts: absent.jsonl", "key 'prompts': cannot read"),
    ("schedules: full\nmeasure: eval\ntasks: t\ndata: absent", "key 'data': no data files"),
    (GOOD + "model: !!python/name:os.system", "not YAML"),
    (GOOD + "model: !!python/object/apply:os.system [exit]", "not YAML"),
    (GOOD + "a: b: c", "not YAML: line"),
]


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}')

    def write(text):
        (tmp_path / "grid.yaml").write_text(text)
        return tmp_path / "grid.yaml"

    return write


@pytest.mark.parametrize(("text", "words"), BAD, ids=[words for _, words in BAD])
def test_a_wrong_grid_is_one_line_that_names_the_key(grid, cli, tmp_path, text, words):
    result = cli("sweep", grid(text), "--out", tmp_path / "out")
    assert result.code == 2, result
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    assert words in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["absent.yaml", "--out", "x"], "cannot read the grid absent.yaml"),
        (["{d}/grid.yaml", "--out", "{d}/p.jsonl"], "cannot write the sweep"),
        (["{d}/grid.yaml", "--out", "{d}/out", "--ray-cpus", "0"], "--ray-cpus 0.0 must be above 0"),
        (["{d}/grid.yaml", "--out", "{d}/out", "--ray-cpus", "2"], "--ray-cpus goes with --ray"),
    ],
)
def test_wrong_arguments(grid, cli, tmp_path, args, words):
    grid(GOOD)
    result = cli("sweep", *(arg.format(d=tmp_path) for arg in args))
    assert (result.code, result.out) == (2, "")
    assert words in result.err


def test_a_grid_is_every_combination_once(grid):
    text = """
        schedules: [full, {d3: {alpha: [0.9, 0.99], start: [0, 4]}}, "constant:depth=6@early-exit"]
        orders: [null, strided]
        measure: [score, bench]
        backends: [eager, compiled]
        prompts: p.jsonl
        """
    cells = cells_of(read_grid(grid(text)))
    # 4 of d3 in two orders; full, and the one with its own order, are the same in both.
    assert len({cell.plan for cell in cells}) == 10
    assert len(cells) == 10 * 3
    assert len({cell.id for cell in cells}) == 30
    assert {"d3:alpha=0.9,start=4@strided", "constant:depth=6@early-exit", "full"} <= {cell.label for cell in cells}


def test_equal_plans_written_differently_are_one_cell(grid):
    cells = cells_of(read_grid(grid("schedules: [d3, 'd3@middle-out', 'd3:start=0']\nprompts: p.jsonl")))
    assert [cell.label for cell in cells] == ["d3"]


def test_a_cell_is_known_by_content_and_not_by_place(grid, tmp_path):
    (before,) = cells_of(read_grid(grid("schedules: full\nprompts: p.jsonl")))
    (tmp_path / "p.jsonl").rename(tmp_path / "q.jsonl")
    (moved,) = cells_of(read_grid(grid("schedules: full\nprompts: q.jsonl")))
    assert moved.paths != before.paths
    assert moved.id == before.id
    (tmp_path / "q.jsonl").write_text('{"prompt": "two"}')
    (edited,) = cells_of(read_grid(grid("schedules: full\nprompts: q.jsonl")))
    assert edited.id != before.id
    (limited,) = cells_of(read_grid(grid("schedules: full\nprompts: q.jsonl\nlimit: 1")))
    assert limited.id not in (before.id, edited.id)
    assert Cell.from_json(limited.to_json()) == limited


def test_weights_tell_cells_apart_and_those_of_0_1_0_are_dense(grid):
    text = "schedules: full\nprompts: p.jsonl\nweights: "
    ids = {form: cells_of(read_grid(grid(text + form)))[0].id for form in ("auto", "native", "dense")}
    assert len(set(ids.values())) == 3
    old = cells_of(read_grid(grid(text + "dense")))[0].to_json()
    assert old.pop("weights") == "dense"
    assert Cell.from_json(old).id == ids["dense"]


def test_the_grid_of_the_documentation_and_its_table_of_keys():
    page = DOCS / "how-to" / "sweep.md"
    (block,) = (block for block in blocks(page) if block.title == "grid.yaml")
    shown = parse_grid(yaml.safe_load(block.body), page.parent)
    assert len(shown.schedules) == 8
    assert len(shown.profiles) == 2
    for field in dataclasses.fields(Grid):
        assert f"`{field.name}`" in page.read_text(), field.name


def test_a_grid_that_is_too_large_is_refused(grid, monkeypatch):
    monkeypatch.setattr("depthsched.sweep.expand.MOST_CELLS", 1)
    with pytest.raises(SettingsError, match="has 2 cells"):
        cells_of(read_grid(grid(GOOD)))


def test_eval_without_its_extra_is_one_line(grid, cli, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "lm_eval" else find(name, *a))
    result = cli("sweep", grid("schedules: full\nmeasure: eval\ntasks: gsm8k_cot"), "--out", tmp_path / "out")
    assert result.code == 2
    assert "pip install 'depthsched[eval]'" in result.err
