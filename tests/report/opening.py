"""``python -m tests.report.opening REPORT.html``: how large a report is, and how long a browser takes to open it."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from depthsched.environment import BROWSER_FLAGS, BROWSERS

_TIMES = 5


def main(report: str) -> None:
    file = Path(report).resolve()
    program = next(filter(None, map(shutil.which, BROWSERS)))
    seconds = []
    with sync_playwright() as session:
        for _ in range(_TIMES):  # a new browser each time: nothing is warm
            browser = session.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
            page = browser.new_page()
            page.goto(file.as_uri(), wait_until="load")
            page.locator(".token").first.wait_for()
            seconds.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"))
            browser.close()
    print(json.dumps({"bytes": file.stat().st_size, "seconds": statistics.median(seconds), "all": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
