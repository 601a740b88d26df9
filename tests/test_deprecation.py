"""Deprecated names say so once, to everyone, and the page on versions lists them."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest

from depthsched import deprecation
from depthsched.errors import DepthschedWarning

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "_said", set())


def _old_name() -> None:
    deprecation.deprecated("ds.old()", "ds.new()", since="0.2", until="0.4")


def test_it_warns_once_where_the_name_is_used() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            _old_name()
    assert [str(one.message) for one in seen] == [
        "ds.old() is deprecated since depthsched 0.2 and goes with 0.4; use ds.new()"
    ]
    assert seen[0].filename == __file__
    assert issubclass(seen[0].category, DepthschedWarning)


def test_users_see_it_with_the_filters_that_python_starts_with() -> None:
    """Python hides a DeprecationWarning of any module but __main__; this one is a FutureWarning."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        _old_name()
    assert len(seen) == 1


def test_two_names_are_two_warnings() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        _old_name()
        deprecation.deprecated("--older", "--newer", since="0.2", until="0.4")
    assert len(seen) == 2


def test_every_deprecated_name_is_on_the_page_with_its_versions() -> None:
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "deprecated":
                words = [ast.literal_eval(value) for value in [*node.args, *(k.value for k in node.keywords)]]
                row = next((line for line in page.splitlines() if f"`{words[0]}`" in line), "")
                assert all(str(word) in row for word in words), f"docs/versions.md has no row for {words[0]}"
