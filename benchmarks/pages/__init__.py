"""The pages of results, printed from what was measured and kept, so that they cannot say anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from depthsched.errors import SettingsError

from ..process import ROOT
from . import (
    adaptive,
    copying,
    found,
    found_scores,
    lossless,
    offload,
    peers,
    pooled,
    predict,
    premise,
    quality,
    renewal,
    signal,
    speed,
    tasks,
)

RESULTS = ROOT / "docs" / "results"
QUALITY = RESULTS / "quality"
PREDICTED = predict.tables(RESULTS / "predict", RESULTS / "gpu")
Tables = dict[str, Callable[[], str]]


def _page(say: Callable[[], str], tables: Tables) -> Tables:
    """A page of results: three sentences first."""
    return {"found": say, **tables}


PAGES: dict[str, dict[Path, Tables]] = {
    "speed": {
        ROOT / "docs" / "results.md": _page(
            lambda: found.speed(RESULTS / "data"), {"all": lambda: speed.tables(RESULTS / "data")}
        )
    },
    "quality": {
        RESULTS / "quality.md": _page(lambda: found_scores.quality(QUALITY), quality.tables(QUALITY)),
        RESULTS / "position.md": _page(lambda: found_scores.position(QUALITY), quality.position_tables(QUALITY)),
        RESULTS / "renewal.md": _page(
            lambda: found_scores.renewal(QUALITY / "renewal.json"), renewal.tables(QUALITY / "renewal.json")
        ),
        RESULTS / "adaptive.md": _page(
            lambda: found_scores.adaptive(QUALITY / "adaptive.json"), adaptive.tables(QUALITY / "adaptive.json")
        ),
    },
    "tasks": {
        RESULTS / "tasks.md": _page(
            lambda: found_scores.tasks(RESULTS / "tasks"), {"all": lambda: tasks.tables(RESULTS / "tasks")}
        )
    },
    "gpu": {
        RESULTS / "gpu.md": _page(lambda: found.gpu(RESULTS / "gpu"), {"all": lambda: speed.tables(RESULTS / "gpu")})
    },
    "lossless": {
        RESULTS / "lossless.md": _page(
            lambda: found.lossless(RESULTS / "lossless"), {"all": lambda: lossless.tables(RESULTS / "lossless")}
        )
    },
    "premise": {
        RESULTS / "premise.md": _page(
            lambda: found_scores.premise(RESULTS / "premise"), premise.tables(RESULTS / "premise")
        )
    },
    "pooled": {
        RESULTS / "pooled.md": _page(lambda: pooled.sentences(RESULTS / "pooled"), pooled.tables(RESULTS / "pooled"))
    },
    "copying": {
        RESULTS / "copying.md": _page(
            lambda: copying.sentences(RESULTS / "copying"), copying.tables(RESULTS / "copying")
        )
    },
    "signal": {
        RESULTS / "signal.md": _page(lambda: found_scores.signal(RESULTS / "signal"), signal.tables(RESULTS / "signal"))
    },
    "predict": {
        RESULTS / "predict.md": _page(
            lambda: found.predict(RESULTS / "predict", PREDICTED["h200"], PREDICTED["published"]), PREDICTED
        )
    },
    "offload": {
        ROOT / "docs" / "how-to" / "offload.md": {
            "offload": lambda: offload.table_of(RESULTS / "offload" / "smollm2.json")
        }
    },
    "peers": {
        RESULTS / "peers.md": _page(
            lambda: found.peers(RESULTS / "peers"), {"all": lambda: peers.tables(RESULTS / "peers")}
        )
    },
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
