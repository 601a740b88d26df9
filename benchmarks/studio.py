"""How long the studio lets one wait: from the command to the plan's first token, and from token to token."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import depthsched as ds
from depthsched.encoding import encode, model_inputs
from depthsched.environment import BROWSER_FLAGS, BROWSERS, machine, versions
from depthsched.errors import SettingsError

from .common import Count

PLAN = "d3:alpha=0.997"


def studio(model: str = "smollm2", starts: Count = 3, rounds: Count = 5) -> dict[str, Any]:
    """Start it several times; then write in its page and with `generate` here, alternating.

    The browser runs before the command does. It and the server share the processor, as they do for a person.
    """
    from depthsched.studio.page import TOKENS  # it needs Gradio

    waits = []
    for number in range(starts):
        with _browser() as browser, _opened(browser, model) as (page, began):
            page.click("#ds-write")
            page.locator("#ds-scheduled .ds-token").first.wait_for(timeout=120_000)
            waits.append(time.perf_counter() - began)
            _until_done(page)
            if number == starts - 1:
                delays = list(_delays(page, model, rounds))
    return {
        "kind": "studio",
        "model": model,
        "plan": PLAN,
        "tokens": TOKENS,
        "first_tokens_seconds": waits,
        "delay_p95_seconds": [{"studio": page_, "generate": here} for page_, here in delays],
        "ratio": statistics.median(page_ / here for page_, here in delays),
        "machine": machine(None),
        "versions": versions(),
    }


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SettingsError(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@contextmanager
def _opened(browser: Any, model: str) -> Iterator[tuple[Any, float]]:
    """The page of a studio that was just started, ready to write, and when its command began."""
    page = browser.new_page()
    command = [sys.executable, "-m", "depthsched", "studio", "--no-browser", "--port", "0", "--model", model]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            page.goto(process.stdout.readline().split()[0])
            page.locator("#ds-schedule-alpha").wait_for()
            yield page, began
        finally:
            process.terminate()


def _until_done(page: Any) -> None:
    done = "document.querySelector('#ds-status').innerText.trim() === 'done'"
    page.wait_for_function(done, timeout=120_000, polling=500)


def _delays(page: Any, name: str, rounds: int) -> Iterator[tuple[float, float]]:
    """What 95% of the steps stay under, in the page and here, seconds."""
    from depthsched.studio.page import PROMPT, TOKENS
    from depthsched.studio.tokens import delay

    model, tokenizer = ds.load_model(name)
    inputs = model_inputs([encode(tokenizer, PROMPT)])
    page.locator("#ds-plan textarea, #ds-plan input").first.fill(PLAN)
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('#ds-spec textarea, #ds-spec input').value.startsWith('{PLAN}')")
    for number in range(rounds + 1):
        page.click("#ds-write")
        ended = f"document.querySelectorAll('#ds-history circle').length === {number + 2}"
        page.wait_for_function(ended, timeout=120_000, polling=500)
        written = page.locator("#ds-numbers tbody tr").nth(1).locator("td").nth(6).inner_text()
        run = ds.generate(model, inputs, PLAN, max_new_tokens=TOKENS, do_sample=False)
        steps = [step.seconds for step in run.trace.steps[1:]]
        if number:  # the first round warms both
            yield float(written.split()[0]) / 1000, delay(steps, 0.95)
