"""The pages of results are what their data makes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import pages
from benchmarks.pages import found_scores
from benchmarks.pages.markdown import section, spread, table
from depthsched.errors import SettingsError

from ..commands import Result

DOCS = Path(__file__).parents[2] / "docs"
Run = Callable[..., Result]


def test_the_committed_pages_are_those_that_their_data_makes(run: Run) -> None:
    result = run("pages", "--check")
    assert (result.code, result.out) == (0, "")


@pytest.mark.parametrize("name", list(pages.PAGES))
def test_a_changed_page_is_stale_until_it_is_printed(
    run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, tables = next(iter(pages.PAGES[name].items()))
    copy = tmp_path / page.name
    committed = page.read_text(encoding="utf-8")
    copy.write_text(committed.replace("<!-- end -->", "older <!-- end -->", 1), encoding="utf-8")
    monkeypatch.setattr(pages, "PAGES", {name: {copy: tables}})
    monkeypatch.setattr("benchmarks.__main__.ROOT", tmp_path)
    stale = run("pages", name, "--check")
    assert (stale.code, stale.out) == (1, f"stale: {page.name}\n")
    assert copy.read_text(encoding="utf-8") != committed
    assert run("pages", name).code == 0
    assert copy.read_text(encoding="utf-8") == committed


def test_every_plan_of_every_task_is_on_the_page() -> None:
    """Each plan has a line in the table of each task and metric, and the tasks of BBH one more together."""
    page = (DOCS / "results" / "tasks.md").read_text(encoding="utf-8")
    for name in ("gsm8k", "bbh"):
        rows = json.loads((DOCS / "results" / "tasks" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
        plans = {row["plan"] for row in rows} - {"full"}
        tasks = {(row["task"], row["metric"]) for row in rows}
        assert len(rows) == len(tasks) * (len(plans) + 1)
        for task, _ in tasks:
            assert task.removeprefix("bbh_cot_fewshot_").replace("_", " ") in page
        for plan in plans:
            assert f"`{plan.partition('=.venv')[0]}`" in page


RESULTS = [DOCS / "results.md", *sorted((DOCS / "results").glob("*.md"))]


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.name)
def test_a_page_of_results_starts_with_three_sentences(page: Path) -> None:
    """From the same data as its tables, or that nothing was measured; before anything on how."""
    first = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8")).split("\n\n")
    title, said = [part.strip() for part in first if part.strip()][:2]
    assert title.startswith("# ")
    assert len(re.findall(r"[.](?=\s|$)", said)) == 3, said
    assert any(character.isdigit() for character in said) or "There are no results yet" in said


def test_the_sentences_follow_the_data(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "results" / "quality", tmp_path / "quality")
    path = tmp_path / "quality" / "position.json"
    found = json.loads(path.read_text())
    before = found_scores.position(path.parent)
    for row in found["rows"]:
        row["kl_less_constant"] = {"mean": -1.0, "low": -2.0, "high": -0.5}
    path.write_text(json.dumps(found))
    after = found_scores.position(path.parent)
    assert before != after
    assert "0 of 7 falling schedules have more KL than constant depth, and 7 less" in after


def test_the_sentences_on_the_premise(tmp_path: Path) -> None:
    def row(slope: float, low: float) -> dict[str, object]:
        trend = {"mean": slope, "low": low, "high": slope + 1}
        kind = {"kind": "one-step", "trend_per_100_steps": {"least": trend}}
        return {
            "trend_per_100_steps": {"nll": trend},
            "kinds": [{**kind, "headroom": [{"level": 0.99, "bytes_speedup": 1.5}]}],
        }

    assert found_scores.premise(tmp_path).startswith("There are no results yet: the premise was not measured.")
    (tmp_path / "gsm8k.json").write_text(json.dumps({"rows": [row(0.5, 0.1)]}))
    (tmp_path / "xquad.json").write_text(json.dumps({"rows": [row(-0.2, -0.9)]}))
    said = found_scores.premise(tmp_path)
    assert "changes by -0.20 to +0.50 nats; 1 of 2 sets of prompts exclude no change." in said
    assert "would save 1.50x at 99% agreement" in said


def test_one_word_for_bytes_saved() -> None:
    for page in [page for topic in pages.PAGES.values() for page in topic]:
        heads = [line for line in page.read_text(encoding="utf-8").splitlines() if "depth |" in line]
        for head in heads:
            words = {cell.strip() for cell in head.split("|") if "bytes" in cell or "theory" in cell}
            assert words <= {"bytes saved"}, page


def test_a_table() -> None:
    row = {"name": "a", "value": {"median": 1.234, "low": 1.0, "high": 2.0}}
    text = table({"name": "{name}", ">x": spread("value", ".1f", "x"), "up": lambda r: r["name"].upper()}, [row])
    assert text == "| name | x | up |\n| --- | ---: | --- |\n| a | 1.2x (1.0 to 2.0) | A |"
    assert section("T", "", text).startswith("## T\n\n| name")


def test_a_page_needs_a_place_for_its_table() -> None:
    assert pages.filled("a <!-- table: t -->old<!-- end --> b", {"t": lambda: "new\n"}) == (
        "a <!-- table: t -->\n\nnew\n\n<!-- end --> b"
    )
    for page in ("", "<!-- table: t --> no end", "<!-- table: other --><!-- end -->"):
        with pytest.raises(SettingsError, match="no table 't'"):
            pages.filled(page, {"t": lambda: ""})


def test_a_page_of_what_was_not_measured(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"calibrate\.json was not measured yet"):
        pages.quality.tables(tmp_path)["curve"]()
