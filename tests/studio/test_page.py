"""The studio in a real browser."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import pytest

from depthsched.studio.slots import PLACES

pytestmark = pytest.mark.slow
NASTY = "</script><img src=x onerror=alert(1)>'\"{{7*7}}${alert(2)} \u202egnitirw\u202c \x1b[31mred\x07"

OWN = '''
from dataclasses import dataclass

import depthsched as ds


@dataclass(frozen=True)
class HalfLife(ds.DepthSchedule):
    """Depth halves every `half_life` tokens."""

    half_life: float = ds.setting(8.0, low=1, high=64, help="tokens to <i>half</i>")

    def depth(self, step, num_layers):
        return num_layers * 0.5 ** (step / self.half_life)
'''

SLOW = '''
import time
from dataclasses import dataclass

import depthsched as ds


@dataclass(frozen=True)
class Slow(ds.AdaptiveSchedule):
    """Takes its time."""

    needs = ("top1",)

    def depth(self, step, num_layers):
        return num_layers - 2

    def decide(self, step, num_layers, signals):
        time.sleep(0.1 if signals.top1 < 1 else 0)
        return num_layers - 2
'''

MANY = """
@dataclass(frozen=True)
class Many(ds.DepthSchedule):
LINES

    def depth(self, step, num_layers):
        return num_layers - 1
"""
FIRST = {"constant": "depth", "step": "at", "d3": "alpha", "linear": "end"}


def plan_of(page: Any) -> str:
    return str(page.locator("#ds-plan textarea, #ds-plan input").first.input_value())


def set_plan(page: Any, text: str) -> None:
    page.locator("#ds-plan textarea, #ds-plan input").first.fill(text)
    page.keyboard.press("Enter")


def until(page: Any, wanted: Any) -> None:
    """Wait for what has no element of its own to wait for."""
    end = time.monotonic() + 30
    while not wanted():
        assert time.monotonic() < end, (page.locator("#ds-status").inner_text(), page.problems)
        page.wait_for_timeout(50)


def write(page: Any, word: str = "done") -> None:
    """Press the button and wait for the end of the run."""
    until(page, lambda: page.locator("#ds-write").is_enabled())
    page.click("#ds-write")
    until(page, lambda: page.locator("#ds-cancel").is_enabled())
    until(page, lambda: page.locator("#ds-write").is_enabled() and word in page.locator("#ds-status").inner_text())


def picture(page: Any) -> tuple[str, str]:
    """Curve and map as they are drawn."""
    return page.locator("#ds-picture .ds-curve").inner_html(), page.locator("#ds-picture .ds-map").inner_html()


def test_it_writes_two_texts_in_the_colours_of_their_depth_and_asks_nobody_else(open_page: Any, address: str) -> None:
    page = open_page()
    set_plan(page, "constant:depth=5")
    until(page, lambda: page.locator("#ds-schedule-depth").count() == 1)
    write(page)
    full, plan = page.locator("#ds-full .ds-token"), page.locator("#ds-scheduled .ds-token")
    assert full.count() == plan.count() == 96
    assert {plan.nth(i).get_attribute("data-depth") for i in range(96)} == {"8", "5"}
    assert {full.nth(i).get_attribute("data-depth") for i in range(96)} == {"8"}
    colour = "t => getComputedStyle(t).backgroundColor"
    assert len({plan.nth(i).evaluate(colour) for i in (0, 1)}) == 2, "the prefill ran all layers"
    plan.nth(3).hover()
    tip = page.locator("#ds-tip").inner_text()
    assert "token 3, 5 of 8 layers" in tip
    assert "probability" in tip
    assert "margin" in tip
    assert "full depth: " in tip
    plan.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#ds-tip").inner_text().startswith("token 1,")
    page.keyboard.press("Escape")
    assert not page.locator("#ds-tip").is_visible()
    rows = page.locator("#ds-numbers tbody tr")
    assert rows.count() == 2
    assert page.locator("#ds-history circle").count() == 1
    write(page)
    assert page.locator("#ds-history circle").count() == 2
    assert {urlsplit(url).netloc for url in page.requests if not url.startswith(("data:", "blob:"))} == {
        urlsplit(address).netloc
    }
    assert page.problems == []


def test_a_slider_changes_plan_curve_and_map(open_page: Any) -> None:
    page = open_page()
    before = picture(page)
    slider = page.locator("#ds-schedule-alpha input[type=range]")
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    until(page, lambda: plan_of(page) == "d3:alpha=0.975")
    until(page, lambda: picture(page)[0] != before[0] and picture(page)[1] != before[1])
    bands = picture(page)[1]
    page.locator("#ds-order-head input[type=range]").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    until(page, lambda: plan_of(page) == "d3:alpha=0.975@middle-out:head=4")
    until(page, lambda: picture(page)[1] != bands)
    assert "d3:alpha=0.975@middle-out:head=4" in page.locator("#ds-shell textarea, #ds-shell input").first.input_value()
    assert page.problems == []


def test_every_schedule_and_order_has_its_fields(open_page: Any) -> None:
    page = open_page()
    for part, name, field in (
        ("schedule", "step", "at"),
        ("schedule", "constant", "depth"),
        ("order", "early-exit", "head"),
    ):
        page.locator(f"#ds-{part} input").click()
        page.get_by_role("option", name=name, exact=True).click()
        page.locator(f"#ds-{part}-{field}").wait_for()
    until(page, lambda: plan_of(page) == "constant:depth=6@early-exit")
    page.locator("#ds-schedule-at").wait_for(state="detached")


def test_no_click_is_lost_while_the_fields_change(open_page: Any) -> None:
    """The plan is chosen and Write pressed at once, as a quick person does."""
    page = open_page()
    for turn, plan in enumerate(("constant:depth=5", "step:at=8,drop=2", "d3:alpha=0.9", "linear:end=4")):
        until(page, lambda: page.locator("#ds-write").is_enabled())
        set_plan(page, plan)
        page.click("#ds-write")
        until(page, lambda: page.locator("#ds-history circle").count() == turn + 1)  # noqa: B023
        until(page, lambda: page.locator(f"#ds-schedule-{FIRST[plan.partition(':')[0]]}").count() == 1)  # noqa: B023
        assert plan in page.locator("#ds-scheduled h2").inner_text()
    assert page.problems == []


def test_settings_without_a_place_are_named(open_page: Any, tmp_path: Any) -> None:
    file = tmp_path / "many.py"
    lines = "\n".join(f"    s{i}: int = ds.setting({i}, low=0, high=40, help='a number')" for i in range(PLACES + 2))
    file.write_text(OWN.partition("@dataclass")[0] + MANY.replace("LINES", lines))
    page = open_page()
    set_plan(page, f"{file}:Many")
    page.locator(f"#ds-schedule-s{PLACES - 1}").wait_for()
    page.get_by_text(f"in the plan's text only: s{PLACES}, s{PLACES + 1}").wait_for()
    page.locator("#ds-schedule-s3 input[type=number]").fill("7")
    page.keyboard.press("Tab")
    until(page, lambda: plan_of(page).endswith("many.py:Many:s3=7"))
    set_plan(page, "constant:depth=5")
    page.locator("#ds-schedule-depth").wait_for()
    assert page.get_by_text("in the plan's text only").count() == 0
    assert page.problems == []


def test_a_class_in_a_file_has_fields_and_runs(open_page: Any, tmp_path: Any) -> None:
    file = tmp_path / "half <b>life.py"
    file.write_text(OWN)
    page = open_page()
    page.locator("#ds-schedule input").fill(f"{file}:HalfLife")
    page.keyboard.press("Enter")
    page.locator("#ds-schedule-half_life").wait_for()
    assert "tokens to <i>half</i>" in page.locator("#ds-schedule-half_life").inner_text()
    write(page)
    assert "half <b>life.py" in page.locator("#ds-scheduled h2").inner_text()
    assert page.locator("#ds-scheduled b, #ds-history b").count() == 0
    assert page.problems == []


def slow_page(open_page: Any, tmp_path: Any) -> Any:
    """A page on which the plan takes seconds: it writes, and its first tokens are there."""
    (tmp_path / "slow.py").write_text(SLOW)
    page = open_page()
    set_plan(page, f"{tmp_path}/slow.py:Slow")
    until(page, lambda: "slow.py" in page.locator("#ds-spec input, #ds-spec textarea").first.input_value())
    page.click("#ds-write")
    page.locator("#ds-scheduled .ds-token").nth(2).wait_for()
    return page


def test_cancel_keeps_what_is_written_and_the_model_works_on(open_page: Any, tmp_path: Any) -> None:
    page = slow_page(open_page, tmp_path)
    page.click("#ds-cancel")
    until(page, lambda: "cancelled" in page.locator("#ds-status").inner_text())
    assert 2 < page.locator("#ds-scheduled .ds-token").count() < 96
    assert page.locator("#ds-history circle").count() == 0
    set_plan(page, "constant:depth=6")
    until(page, lambda: "constant" in page.locator("#ds-spec input, #ds-spec textarea").first.input_value())
    write(page)
    assert page.locator("#ds-scheduled .ds-token").count() == 96
    assert page.problems == []


def test_who_leaves_stops_the_run_and_another_page_is_served(open_page: Any, studio: Any, tmp_path: Any) -> None:
    page = slow_page(open_page, tmp_path)
    running = studio._now
    page.close()
    other = open_page()
    write(other)
    assert running.stopped
    assert len(running.trace.steps) < 96
    assert other.locator("#ds-scheduled .ds-token").count() == 96


def test_one_run_at_a_time_and_the_next_waits(open_page: Any, tmp_path: Any) -> None:
    first, second = slow_page(open_page, tmp_path), open_page()
    second.click("#ds-write")
    first.wait_for_timeout(300)
    assert second.locator(".ds-token").count() == 0
    first.click("#ds-cancel")
    until(second, lambda: "done" in second.locator("#ds-status").inner_text())


@pytest.mark.parametrize(
    ("plan", "line"),
    [
        ("d3:alpha=2", "alpha=2.0 must be in (0, 1)"),
        ("nowhere.py:Idea", "no such file: nowhere.py"),
        ("<img src=x onerror=alert(3)>", "unknown schedule '<img src=x onerror=alert(3)>'"),
        ("{{7*7}}${alert(4)}", "unknown schedule '{{7*7}}${alert(4)}'"),
        ("d3@ranked", "order 'ranked' comes from a profile"),
        ("d3+profile=no \u202esuch", "no profile in no \\u202esuch"),
        ("d3@", "the order is empty"),
    ],
)
def test_a_bad_setting_is_one_line(open_page: Any, plan: str, line: str) -> None:
    page = open_page()
    set_plan(page, plan)
    until(page, lambda: page.locator("#ds-picture .ds-error").count() == 1)
    said = page.locator("#ds-picture .ds-error").inner_text()
    assert line in said
    assert "\n" not in said
    assert "Traceback" not in page.content()
    page.click("#ds-write")
    until(page, lambda: page.locator("#ds-status .ds-error").count() == 1)
    assert line in page.locator("#ds-status .ds-error").inner_text()
    set_plan(page, "constant:depth=7")
    until(page, lambda: page.locator("#ds-picture svg").count() == 2)
    assert page.locator("img[src=x]").count() == 0
    assert page.problems == []


def test_no_text_becomes_markup(open_page: Any) -> None:
    page = open_page()
    page.locator("#ds-prompt textarea").fill(NASTY)
    page.locator("#ds-length input[type=number]").fill("8")
    page.keyboard.press("Tab")
    until(page, lambda: "onerror" in page.locator("#ds-shell textarea").first.input_value())
    write(page)
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("h1 ~ p b").count() == 0, "the name of the model"
    assert "⟨U+202E⟩" in page.locator("h1 ~ p").inner_text()
    assert page.problems == []


def test_switches_change_the_run(open_page: Any) -> None:
    page = open_page()
    set_plan(page, "constant:depth=6")
    page.locator("#ds-length input[type=number]").fill("24")
    page.keyboard.press("Tab")
    page.locator("#ds-lossless input").check()
    until(page, lambda: "--lossless" in page.locator("#ds-shell textarea").first.input_value())
    write(page)
    rows = page.locator("#ds-numbers tbody tr")
    assert "100%" in rows.nth(1).inner_text()
    assert "none" in rows.nth(1).inner_text()
    page.locator("#ds-gated input").check()
    page.locator("#ds-below").wait_for()
    until(page, lambda: "--verify-below" in page.locator("#ds-shell textarea").first.input_value())
    page.click("#ds-write")
    until(page, lambda: page.locator("#ds-status .ds-error").count() == 1)  # both at once mean nothing
    page.locator("#ds-lossless input").uncheck()
    until(page, lambda: "--lossless" not in page.locator("#ds-shell textarea").first.input_value())
    write(page)
    assert "gate 0.2" in page.locator("#ds-history tbody").inner_text()


def test_a_narrow_screen_in_the_dark(open_page: Any) -> None:
    page = open_page(viewport={"width": 360, "height": 760}, color_scheme="dark")
    write(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("body.dark").count() == 1
    token = page.locator("#ds-scheduled .ds-token").nth(2)
    ink, ground = (token.evaluate(f"t => getComputedStyle(t).{name}") for name in ("color", "backgroundColor"))
    assert ink != ground
    token.hover()
    box = page.locator("#ds-tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


@pytest.mark.parametrize("header", [{"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}])
def test_another_site_is_refused(address: str, header: dict[str, str]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(address, headers=header))
    assert refused.value.code == 403
    refused.value.close()


def test_the_command_serves_the_embedded_model(open_page: Any, smollm2: Any) -> None:
    command = [sys.executable, "-m", "depthsched", "studio", "--no-browser", "--port", "0", "--model", "smollm2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[0]
            page = open_page(address)
            page.locator("#ds-length input[type=number]").fill("16")
            page.keyboard.press("Tab")
            page.locator("#ds-lossless input").check()
            until(page, lambda: "--lossless" in page.locator("#ds-shell textarea").first.input_value())
            write(page)
            assert (
                page.locator("#ds-full .ds-tokens").inner_text()
                == page.locator("#ds-scheduled .ds-tokens").inner_text()
            )
            assert page.problems == []
        finally:
            process.terminate()
            process.communicate(timeout=30)
