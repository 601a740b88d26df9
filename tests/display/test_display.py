"""What shows itself in a notebook: the numbers are there, and no text of anybody becomes markup."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched.display.escape import show, tag, visible, visible_in
from depthsched.display.parts import MOST_TOKENS, colour, coloured
from depthsched.display.picture import Point, chart, depth_picture
from depthsched.encoding import pieces

from ..tiny import LAYERS, make_tiny, tiny
from .shown import EVERY, HOSTILE, Reader, a_plan, a_run, a_sweep

TEXTS = st.lists(st.one_of(st.text(st.characters()), st.sampled_from(HOSTILE)), max_size=4).map("".join)
ELEMENTS = {
    *("div", "p", "code", "bdi", "span", "em", "table", "thead", "tbody", "tr", "th", "td"),
    *("svg", "path", "polyline", "circle", "text", "title"),
}


def steers(page: str) -> set[str]:
    """Characters that act without being seen."""
    kept = "\n\t\u200c\u200d"
    return {c for c in page if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in kept}


@pytest.mark.parametrize("make", EVERY)
@given(text=TEXTS)
def test_any_text_stays_text(make, text: str) -> None:
    page = make(f"a{text}")._repr_html_()
    found, plain = Reader(page), Reader(make("a")._repr_html_())
    assert found.elements == plain.elements, "a text became an element or an attribute"
    assert {name for name, *_ in found.elements} <= ELEMENTS
    assert found.other == []
    assert not steers(page)
    page.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("make", EVERY)
def test_the_text_is_still_to_be_read(make, text: str) -> None:
    whole = "\n".join(Reader(make(text)._repr_html_()).texts)
    assert visible(text) in whole or visible(text, lines=True) in whole


@pytest.mark.parametrize("make", EVERY)
def test_nothing_of_the_network_and_no_script(make) -> None:
    page = make("plain")._repr_html_()
    assert not re.search(r"//|url\(|@import|<script|<style|<link|\bon\w+=|href|src=", page)


@given(text=TEXTS)
def test_what_acts_is_seen_and_all_else_is_as_it_was(text: str) -> None:
    shown = visible(text)
    assert not steers(shown)
    assert "\n" not in shown
    harmless = "".join(c for c in text if not steers(c) and c not in "\n\t")
    assert visible(harmless) == harmless
    assert visible_in({"a": [text]})["a"][0].count("\n") == text.count("\n")


def test_marks_say_what_they_stand_for() -> None:
    assert visible("\x1b[0m\u202ex\x7f\x85\n") == "␛[0m⟨U+202E⟩x␡⟨U+0085⟩↵"
    assert visible("a\n\tb", lines=True) == "a↵\n⇥\tb"
    assert visible("नमस्ते 👩\u200d👧 مرحبا") == "नमस्ते 👩\u200d👧 مرحبا"


def test_only_tag_makes_elements() -> None:
    assert str(tag("a", "<b>", tag("i", "x"), class_='"q"', text_anchor="&", left=None)) == (
        '<a class="&#34;q&#34;" text-anchor="&amp;">&lt;b&gt;<i>x</i></a>'
    )
    assert str(show("<b>")) == "&lt;b&gt;"


def test_a_plan_shows_its_curve_and_layers() -> None:
    plan = ds.plan("constant:depth=5", num_layers=LAYERS, horizon=6)
    page = plan._repr_html_()
    assert "from 8 to 5 of 8 layers" in page
    assert "5.0 of 8 over 6 steps" in page
    shaded = re.search(r'<path d="([^"]*)" fill="rgba', page)
    assert shaded is not None
    # Five layers run throughout, three in the prefill alone: one rectangle each.
    assert shaded[1].count("Z") == LAYERS
    ends = sorted(float(x) for x in re.findall(r"H(\d+\.\d)V", shaded[1]))
    assert len({*ends}) == 2
    assert ends.count(max(ends)) == 5


def test_the_picture_of_a_long_plan_stays_small() -> None:
    plan = ds.plan("linear:end=20", num_layers=80, horizon=4096)
    swings = depth_picture([80, 40] * 2048, 80, lambda step: range(80 if step % 2 else 40))
    assert len(plan._repr_html_()) < 20_000
    assert len(swings) < 120_000


def test_a_run_shows_the_text_in_the_colours_of_its_depths(small_tokenizer) -> None:
    model = make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer))
    ids = torch.tensor([small_tokenizer("How many?")["input_ids"]] * 5)
    options = {"max_new_tokens": 8, "do_sample": False}
    run = ds.generate(model, ids, "constant:depth=5", tokenizer=small_tokenizer, **options)
    found = Reader(run._repr_html_())
    words = pieces(small_tokenizer, run.tokens[0].tolist())
    assert next(visible(w, lines=True) for w in words if w) in found.texts
    assert "token 0: 8 of 8 layers" in found.texts
    assert "token 7: 5 of 8 layers" in found.texts
    assert "1 more rows." in found.texts
    bare = ds.generate(model, ids, "constant:depth=5", **options)
    assert any("tokenizer=tokenizer" in text for text in Reader(bare._repr_html_()).texts)
    assert run.tokens.equal(bare.tokens)


def test_a_lossless_run_says_what_it_drafted() -> None:
    run = ds.generate(
        tiny("llama", "sdpa"), torch.tensor([[5, 6]]), "constant:depth=7", max_new_tokens=8, lossless=True
    )
    assert all(line in Reader(run._repr_html_()).texts for line in run.drafting)


def test_many_tokens_are_cut_and_counted() -> None:
    page = Reader(coloured(["x"] * (MOST_TOKENS + 7), [3] * (MOST_TOKENS + 7), 3))
    assert sum(name == "span" for name, *_ in page.elements) == MOST_TOKENS
    assert " and 7 more tokens" in page.texts


def test_a_sweep_is_a_list_that_shows_itself() -> None:
    sweep = a_sweep("plan")
    assert sweep[1:] == list(sweep)[1:]
    page = Reader(sweep._repr_html_())
    assert "2 of 3 cells done, 3 of them now." in page.texts
    assert "KL 0.500 (0.400 to 0.600), agreement 0.500 (0.400 to 0.600), 1.10x fewer bytes" in page.texts


@pytest.mark.parametrize("points", [[], [Point(1, float("nan"))], [Point(1, 2)], [Point(1, 0), Point(2, 0)]])
def test_charts_of_next_to_nothing(points) -> None:
    assert str(chart(points, "x", "y")).startswith("<svg" if any(p.y == p.y for p in points) else "")


@pytest.mark.parametrize(("ink", "paper"), [("#1f2328", "#ffffff"), ("#e4e6eb", "#16181d"), ("#ffffff", "#111111")])
def test_tokens_are_readable_on_light_and_dark_pages(ink: str, paper: str) -> None:
    for depth in range(1, 31):
        *rgb, alpha = map(float, colour(depth, 1, 30).removeprefix("rgba(").rstrip(")").split(","))
        ground = [a * alpha + b * (1 - alpha) for a, b in zip(rgb, bytes.fromhex(paper[1:]), strict=True)]
        bright, dark = sorted((luminance(bytes.fromhex(ink[1:])), luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour) -> float:
    lit = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * lit[0] + 0.7152 * lit[1] + 0.0722 * lit[2]


def test_ipython_takes_the_views() -> None:
    formatter = pytest.importorskip("IPython.core.formatters", reason="IPython comes with ipykernel")
    html = formatter.HTMLFormatter()
    for thing in (a_plan("x"), a_run("x"), a_sweep("x")):
        assert html(thing) == thing._repr_html_()


def test_showing_a_plan_loads_nothing_heavy() -> None:
    code = (
        "import sys, depthsched as ds\n"
        "ds.plan('d3', num_layers=30, horizon=50)._repr_html_()\n"
        "import json; print(json.dumps([m for m in ('torch', 'matplotlib', 'IPython') if m in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
