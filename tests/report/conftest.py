"""A sweep of thirty cells on a tiny model, its report, and a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from depthsched.environment import versions
from depthsched.report.data import read_report
from depthsched.report.html import save_report
from depthsched.sweep import Store, read_grid, run_sweep
from depthsched.sweep.expand import cells_of

from ..sweep.helpers import make_folder, write_grid

# What a model might say or be asked: it must not end the script that holds it, nor become markup.
NASTY = "</script><img src=x onerror=alert(1)> & <!-- \u2028\u202e\x1b[2J {{ 7 * 7 }}"


@pytest.fixture(scope="session")
def sweep(tmp_path_factory, smollm2) -> Path:
    """The folder of a finished sweep: fifteen plans, scored and timed."""
    folder = make_folder(tmp_path_factory.mktemp("report"), smollm2[1])
    with (folder / "prompts.jsonl").open() as file:
        rows = file.read()
    (folder / "prompts.jsonl").write_text(json.dumps({"prompt": NASTY}) + "\n" + rows)
    grid = write_grid(
        folder,
        measure=["score", "bench"],
        schedules=[
            "full",
            {"constant": {"depth": [4, 5, 6, 7]}},
            {"d3": {"alpha": [0.9, 0.95], "start": 4}},
            "step:at=4,drop=3",
        ],
        max_new_tokens=16,
        maps=2,
        backends="eager",
        tokens=6,
        repeats=2,
    )
    cells = cells_of(read_grid(grid))
    assert len(cells) == 30
    store = Store(folder / "out")
    store.prepare(cells, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEPTHSCHED_CACHE", str(folder / "cache"))
        run_sweep(cells, store, versions=versions())
    return folder / "out"


@pytest.fixture(scope="session")
def data(sweep) -> dict[str, Any]:
    return read_report(sweep)


@pytest.fixture(scope="session")
def html(data, tmp_path_factory) -> Path:
    """The page of the sweep."""
    return save_report(data, tmp_path_factory.mktemp("page"))[0]


@pytest.fixture
def open_page(browser, html):
    """Open the report; what the console said and what was asked of the network are lists on the page."""
    contexts = []

    def opened(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.problems, page.requests = [], []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(html.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
