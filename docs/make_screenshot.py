"""Take the pictures of the studio, on the embedded model in Chromium: ``python docs/make_screenshot.py``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from depthsched.environment import BROWSER_FLAGS, BROWSERS

ASSETS = Path(__file__).parent / "assets"
PLAN = "d3:alpha=0.997"


def take(page: Page, address: str, theme: str) -> None:
    """One picture, with the tip of a token open."""
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.goto(address)
    page.locator("#ds-schedule-alpha").wait_for()
    page.locator("#ds-plan textarea, #ds-plan input").first.fill(PLAN)
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#ds-spec textarea, #ds-spec input').value.includes('0.997')")
    page.click("#ds-write")
    page.wait_for_function("document.querySelector('#ds-status').innerText.trim() === 'done'", timeout=120_000)
    page.locator("#ds-scheduled .ds-differs").first.hover()
    file = ASSETS / f"studio-{theme}.png"
    page.screenshot(path=file)
    print(file.name)


def main() -> None:
    program = next(filter(None, map(shutil.which, BROWSERS)))
    command = [sys.executable, "-m", "depthsched", "studio", "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as studio, sync_playwright() as session:
        try:
            address = studio.stdout.readline().split()[0]  # type: ignore[union-attr]
            browser = session.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 1180})
            for theme in ("light", "dark"):
                take(page, address, theme)
            browser.close()
        finally:
            studio.terminate()


if __name__ == "__main__":
    main()
