"""The pages of results, printed from what was measured and kept, so that they cannot say anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from depthsched.errors import SettingsError

from ..process import ROOT
from . import adaptive, lossless, offload, peers, predict, premise, quality, renewal, signal, speed, tasks

RESULTS = ROOT / "docs" / "results"
PAGES: dict[str, dict[Path, dict[str, Callable[[], str]]]] = {
    "speed": {ROOT / "docs" / "results.md": {"all": lambda: speed.tables(RESULTS / "data")}},
    "quality": {
        RESULTS / "quality.md": quality.tables(RESULTS / "quality"),
        RESULTS / "position.md": quality.position_tables(RESULTS / "quality"),
        RESULTS / "renewal.md": renewal.tables(RESULTS / "quality" / "renewal.json"),
        RESULTS / "adaptive.md": adaptive.tables(RESULTS / "quality" / "adaptive.json"),
    },
    "tasks": {RESULTS / "tasks.md": {"all": lambda: tasks.tables(RESULTS / "tasks")}},
    "gpu": {RESULTS / "gpu.md": {"all": lambda: speed.tables(RESULTS / "gpu")}},
    "lossless": {RESULTS / "lossless.md": {"all": lambda: lossless.tables(RESULTS / "lossless")}},
    "premise": {RESULTS / "premise.md": premise.tables(RESULTS / "premise")},
    "signal": {RESULTS / "signal.md": signal.tables(RESULTS / "signal")},
    "predict": {RESULTS / "predict.md": predict.tables(RESULTS / "predict", RESULTS / "gpu")},
    "offload": {
        ROOT / "docs" / "how-to" / "offload.md": {
            "offload": lambda: offload.table_of(RESULTS / "offload" / "smollm2.json")
        }
    },
    "peers": {RESULTS / "peers.md": {"all": lambda: peers.tables(RESULTS / "peers")}},
}


def write_pages(name: str = "", check: bool = False) -> list[Path]:
    """Print the pages of one topic, or all, anew; with ``check`` leave them as they are.

    Returns
    -------
    list of Path
        The pages that were not what their data makes.

    Raises
    ------
    SettingsError
        No page has that name, or a page has no place for a table.
    """
    if name and name not in PAGES:
        raise SettingsError(f"no pages named {name!r}; use one of {', '.join(PAGES)}")
    changed = []
    for topic in [name] if name else PAGES:
        for page, tables in PAGES[topic].items():
            before = page.read_text(encoding="utf-8")
            after = filled(before, tables)
            if after != before:
                changed.append(page)
                if not check:
                    page.write_text(after, encoding="utf-8")
    return changed


def filled(page: str, tables: dict[str, Callable[[], str]]) -> str:
    """A hand-written page with what stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` made anew."""
    for name, make in tables.items():
        head, begin, rest = page.partition(f"<!-- table: {name} -->")
        _, end, tail = rest.partition("<!-- end -->")
        if not end:
            raise SettingsError(f"a page has no table {name!r}; add <!-- table: {name} --><!-- end -->")
        page = f"{head}{begin}\n\n{make().rstrip()}\n\n{end}{tail}"
    return page
