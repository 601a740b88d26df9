"""A browser for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from depthsched.environment import BROWSER_FLAGS, BROWSERS


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real headless browser, one for all: playwright opens no second one beside it."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed (apt-get install chromium)")
    with playwright.sync_playwright() as session:
        found = session.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        yield found
        found.close()
