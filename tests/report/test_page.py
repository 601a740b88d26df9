"""The report in a real browser."""

from __future__ import annotations

import json

import pytest

from depthsched.display.escape import visible

from .conftest import NASTY

pytestmark = pytest.mark.slow
MOST_BYTES = 3_000_000


def test_the_page_of_thirty_cells_is_small(html, data):
    assert data["cells"] == {"all": 30, "done": 30, "failed": 0, "missing": 0}
    assert html.stat().st_size < MOST_BYTES


def test_it_loads_without_a_word_and_without_the_network(open_page, html):
    page = open_page()
    assert page.title().startswith("Depth schedules")
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith("data:")] == [html.as_uri()]
    pictures = page.locator("picture img")
    assert pictures.count() == 2
    assert all(pictures.nth(i).evaluate("image => image.complete && image.naturalWidth > 0") for i in range(2))


def test_a_prompt_cannot_become_markup(open_page, html):
    page = open_page()
    page.select_option("#prompt", index=0)
    assert visible(NASTY.strip()) in page.locator("#asked").text_content()
    assert page.locator("img[src=x]").count() == 0
    assert "<img src=x" not in html.read_text()
    assert "␛[2J" in visible(NASTY)
    assert not set("\x1b\u202e\u2028") & set(page.content())


def test_every_token_of_an_answer_has_its_depth_and_tip(open_page, data):
    page = open_page()
    answer = next(a for a in data["maps"] if a["plan"] == "constant:depth=5")
    page.select_option("#plan", "constant:depth=5")
    tokens = page.locator(".token")
    assert tokens.count() == len(answer["tokens"])
    place = next(i for i, agrees in enumerate(answer["agree"]) if i and not agrees)
    tokens.nth(place).hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    said = tip.text_content()
    assert f"token {place}, 5 of 8 layers" in said
    text, share = answer["top"][place][0]
    assert f"{json.dumps(text, ensure_ascii=False)} {100 * share:.1f}%" in said
    full, sure = answer["full"][place]
    assert f"full depth: {json.dumps(full, ensure_ascii=False)} {100 * sure:.1f}%; this token" in said
    assert "differs" in tokens.nth(place).get_attribute("class")
    colours = {tokens.nth(i).evaluate("t => getComputedStyle(t).backgroundColor") for i in (0, place)}
    assert len(colours) == 2, "the prefill ran all layers, so its colour is another one"
    page.mouse.move(1, 1)
    assert not tip.is_visible()
    assert page.problems == []


def test_the_map_can_be_read_with_the_keyboard(open_page):
    page = open_page()
    page.locator(".token").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.index") == "3"
    assert page.locator("#tip").text_content().startswith("token 3,")
    assert page.locator("[aria-describedby=tip]").count() == 1
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()


def test_choosing_shows_another_answer(open_page):
    page = open_page()
    page.select_option("#plan", "constant:depth=7")
    first = page.locator("#sum").text_content()
    page.select_option("#plan", "constant:depth=4")
    assert page.locator("#sum").text_content() != first
    asked = page.locator("#asked").text_content()
    page.select_option("#prompt", index=1)
    assert page.locator("#asked").text_content() != asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_is_readable_in_both_colours_and_widths(open_page, tmp_path, scheme, width):
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert contrast(page, ink, paper) >= 7
    shown = page.locator("picture img").first.evaluate("image => image.currentSrc")
    others = open_page(color_scheme="dark" if scheme == "light" else "light", viewport={"width": width, "height": 800})
    assert others.locator("picture img").first.evaluate("image => image.currentSrc") != shown
    for token in page.locator(".token").all()[:16]:
        colour = token.evaluate("t => getComputedStyle(t).backgroundColor")
        assert contrast(page, ink, colour) >= 4.5
    for note in page.locator(".note").all():
        assert contrast(page, note.evaluate("n => getComputedStyle(n).color"), paper) >= 4.5
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    assert page.problems == []


def contrast(page, one, other):
    """The contrast ratio of WCAG, of what the browser paints for two CSS colours."""
    paint = """colour => {
        const context = new OffscreenCanvas(1, 1).getContext("2d");
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    }"""

    def luminance(colour):
        parts = [value / 255 for value in page.evaluate(paint, colour)]
        lit = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * lit[0] + 0.7152 * lit[1] + 0.0722 * lit[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
