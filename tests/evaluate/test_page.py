"""The page of task scores is what its data makes."""

import json
from pathlib import Path

from depthsched.evaluate.page import main as write_page

DOCS = Path(__file__).parents[2] / "docs"
DATA = DOCS / "results" / "tasks"


def test_the_committed_page_is_the_one_its_data_makes(tmp_path: Path) -> None:
    write_page(str(DATA), str(tmp_path / "page.md"))
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == (DOCS / "results" / "tasks.md").read_text(
        encoding="utf-8"
    )


def test_every_row_is_on_the_page() -> None:
    """Each plan has a line in the table of each task and metric, and the tasks of BBH one more together."""
    page = (DOCS / "results" / "tasks.md").read_text(encoding="utf-8")
    for name in ("gsm8k", "bbh"):
        rows = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["rows"]
        plans = {row["plan"] for row in rows} - {"full"}
        tasks = {(row["task"], row["metric"]) for row in rows}
        assert len(rows) == len(tasks) * (len(plans) + 1)
        for task, _ in tasks:
            assert task.removeprefix("bbh_cot_fewshot_").replace("_", " ") in page
        for plan in plans:
            assert f"`{plan.partition('=.venv')[0]}`" in page
