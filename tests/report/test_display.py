"""The views of notebooks in a real browser, full of hostile text."""

from __future__ import annotations

import pytest

from ..display.shown import EVERY, HOSTILE

pytestmark = pytest.mark.slow


def test_no_text_runs_or_changes_the_page(browser) -> None:
    views = [make(text)._repr_html_() for make in EVERY for text in HOSTILE]
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_content("<!doctype html><body>" + "".join(views))
    assert page.locator("body > div.depthsched").count() == len(views)
    assert page.locator("script, img, style, link, iframe, i, b").count() == 0
    handlers = "all => all.filter(e => e.getAttributeNames().some(name => name.startsWith('on'))).length"
    assert page.eval_on_selector_all("*", handlers) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("span[title]").first.hover()
    assert problems == []
    assert asked == []
    context.close()
