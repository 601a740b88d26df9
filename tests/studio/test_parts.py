"""What the page is made of, without a browser."""

from __future__ import annotations

import html
import socket
import subprocess
import sys
import threading
import unicodedata
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched import plugins
from depthsched.encoding import encode, model_inputs
from depthsched.errors import SettingsError
from depthsched.schedules import D3
from depthsched.settings import field_types, spec_key
from depthsched.studio import html as parts
from depthsched.studio import server
from depthsched.studio.escape import safe, visible
from depthsched.studio.fields import beginning, form, with_setting
from depthsched.studio.lines import Ask, python_lines, shell_line
from depthsched.studio.pictures import depth_curve, frontier, layer_map
from depthsched.studio.session import Frame, Studio, Visitor
from depthsched.studio.tokens import first_difference
from depthsched.studio.writing import Pieces

TEXT = st.text(st.characters() | st.sampled_from("<>&\"'`{}$\x1b\u202e\u2066\u2028\x00"), max_size=40)


class Elements(HTMLParser):
    """The elements of a piece of HTML and the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(TEXT)
def test_a_text_is_a_text_in_an_element_and_in_an_attribute(text: str) -> None:
    shown = Elements(f"<p title='{safe(text)}'>{safe(text)}</p>")
    assert shown.elements == ["p"]
    assert shown.text == visible(text) == html.unescape(safe(text))
    hidden = [c for c in visible(text) if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t\u200c\u200d"]
    assert hidden == []


@given(TEXT)
def test_no_part_of_the_page_lets_a_text_out(text: str) -> None:
    plan = ds.plan("d3", num_layers=8, horizon=16)
    noted = ds.DepthPlan(**{**vars(plan), "notes": (text,)})
    plain = len(Elements(parts.preview(ds.DepthPlan(**{**vars(plan), "notes": ("a",)}))).elements)
    assert len(Elements(parts.preview(noted)).elements) == plain
    assert Elements(parts.heading(text, 8, [text])).elements == ["h1", "p", "p"]
    assert Elements(parts.problem(ValueError(text))).elements == ["p"]
    assert Elements(parts.said(text)).elements == ["p"]
    assert Elements(parts.text(text, None)).elements == ["h2", "div"]
    point = {"number": 1, "plan": text, "saving": 1.1, "agreement": 0.5}
    assert Elements(frontier([point])).elements.count("circle") == 1
    assert len(Elements(frontier([point])).elements) == len(Elements(frontier([{**point, "plan": "a"}])).elements)


def names() -> list[tuple[str, str]]:
    registry = plugins.registry()
    return [("schedule", name) for name in registry.schedules] + [("order", name) for name in registry.orders]


@pytest.mark.parametrize(("kind", "name"), names())
def test_every_registered_class_has_a_form(kind: str, name: str) -> None:
    cls = getattr(plugins.registry(), kind)(name)
    made = getattr(plugins, f"parse_{kind}")(beginning(cls, 30))
    fields = form(made, 30, 96)
    assert {field.key for field in fields} == {spec_key(field) for field, _ in field_types(cls)}
    spec = beginning(cls, 30)
    for field in fields:
        spec = with_setting(spec, field.key, field.value)
    assert getattr(plugins, f"parse_{kind}")(spec) == made, "every field as it stands changes nothing"


def test_a_slider_ends_where_its_setting_does() -> None:
    alpha, start, _ = form(D3(), 30, 96)
    assert (alpha.kind, alpha.low, alpha.high) == ("slider", 0.001, 0.999)
    assert alpha.help == "share of the depth kept from step to step"
    assert (start.low, start.high, start.step) == (0, 96, 1)
    constant = form(plugins.parse_schedule("constant:depth=24"), 30, 96)
    assert (constant[0].key, constant[0].low, constant[0].high) == ("depth", 1, 30)
    assert form(plugins.parse_schedule("constant:depth=40"), 30, 96)[0].high == 40, "a value beyond stays as it is"


@given(st.sampled_from(["d3", "d3:alpha=0.9", "half.py:Idea", "a b.py", "half.py:Idea:start=3,alpha=0.5"]),
       st.floats(0.01, 0.99))  # fmt: skip
def test_one_setting_changes_and_the_rest_stays(spec: str, value: float) -> None:
    changed = with_setting(spec, "alpha", value)
    assert changed.startswith(spec.partition(":alpha")[0].partition(",alpha")[0])
    assert f"alpha={value}" in changed
    assert changed.count("alpha=") == 1
    assert "alpha" not in with_setting(changed, "alpha", None)


@given(st.lists(st.integers(3, 4000), min_size=1, max_size=30))
def test_pieces_are_the_text(small_tokenizer: Any, tokens: list[int]) -> None:
    pieces = Pieces(small_tokenizer)
    for token in tokens:
        pieces.add([token])
    whole = small_tokenizer.decode(tokens)
    assert len(pieces.found) == len(tokens)
    assert whole.startswith("".join(pieces.found))
    assert whole.removeprefix("".join(pieces.found)).count("�") == len(whole.removeprefix("".join(pieces.found)))


def test_pictures_follow_the_plan() -> None:
    deep, low = (ds.plan(f"constant:depth={depth}", num_layers=8, horizon=16) for depth in (7, 4))
    assert depth_curve(deep) != depth_curve(low)
    assert layer_map(deep) != layer_map(low)
    assert "ds-skipped" not in layer_map(ds.plan("full", num_layers=8, horizon=16))


def test_first_difference() -> None:
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 5, 3]) == 1
    assert first_difference([1, 2, 3], [1, 2]) == 2


def last(studio: Studio, ask: Ask, visitor: Visitor | None = None) -> Frame:
    return list(studio.write(ask, visitor or Visitor()))[-1]


@pytest.mark.parametrize("more", [{}, {"lossless": True}, {"gated": True, "verify_below": 0.05}])
def test_a_run_is_that_of_generate_and_of_the_lines_to_copy(
    studio: Studio, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = Ask("constant:depth=6", 'say "no"\n\\', 12, **more)
    frame = last(studio, ask)
    inputs = model_inputs([encode(studio.tokenizer, ask.prompt)])
    run = ds.generate(studio.model, inputs, ask.plan, do_sample=False, **ask.options())
    assert frame.plan is not None
    assert frame.plan.tokens == run.tokens[0].tolist()
    assert [span.count("data-depth") for span in [frame.plan.grow()]] == [12]
    if more.get("lossless"):
        assert frame.plan.agreement == 1
        assert frame.numbers["plan"]["difference"] is None
    monkeypatch.setattr(ds, "load_model", lambda name: (studio.model, studio.tokenizer))
    found: dict[str, Any] = {}
    exec(python_lines(ask, "tiny", chat=studio.chat), found)
    assert found["run"].tokens.tolist() == run.tokens.tolist()


def test_the_shell_line_is_one_that_the_command_reads() -> None:
    line = shell_line(Ask("d3:alpha=0.9", "-x 'y'\n$(z)", 16, True), "some model")
    assert line.startswith("depthsched generate --model 'some model' --schedule d3:alpha=0.9 --max-new-tokens 16")
    printed = subprocess.run(
        ["bash", "-c", f"depthsched() {{ printf '%s|' \"$@\"; }}; {line}"], capture_output=True, text=True
    )
    assert printed.stdout.split("|")[-3:] == ["--", "-x 'y'\n$(z)", ""]


def test_agreement_is_that_of_one_pass_at_full_depth(studio: Studio) -> None:
    frame = last(studio, Ask("constant:depth=5", "Once upon a time", 16))
    assert frame.full is not None
    assert frame.plan is not None
    assert frame.full.agreement == 1
    ids = torch.tensor([list(encode(studio.tokenizer, "Once upon a time")) + frame.plan.tokens])
    best = studio.model(ids).logits[0, -17:-1].argmax(-1).tolist()
    same = [a == b for a, b in zip(best, frame.plan.tokens, strict=True)]
    assert frame.plan.agreement == sum(same) / 16
    assert frame.plan.grow().count("ds-differs") == same.count(False)


def test_the_text_of_full_depth_is_kept_and_history_grows(studio: Studio) -> None:
    visitor = Visitor()
    first = last(studio, Ask("constant:depth=5", "Again", 8), visitor)
    again = last(studio, Ask("constant:depth=6", "Again", 8), visitor)
    assert again.full is first.full
    assert [row.number for row in visitor.history] == [1, 2]
    assert "constant:depth=6" in parts.history(visitor.history)


def test_one_run_at_a_time(studio: Studio) -> None:
    first = studio.write(Ask("constant:depth=5", "Wait", 8), Visitor())
    assert next(first).said.startswith("waiting")
    next(first)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (last(studio, Ask("full", "Wait for it", 8)), done.set()))
    thread.start()
    assert not done.wait(0.5)
    first.close()
    thread.join(30)
    assert done.is_set()


def test_a_run_that_was_cancelled_while_it_waited_writes_nothing(studio: Studio) -> None:
    visitor = Visitor()
    visitor.stop.set()
    frame = last(studio, Ask("full", "Never", 8), visitor)
    assert "cancelled" in frame.said
    assert frame.plan is None
    assert not visitor.history


@pytest.mark.parametrize("ask", [Ask("d3", "  "), Ask("d3", "a", 0), Ask("d3", "a", 10**6), Ask("d3:alpha=7", "a")])
def test_bad_asks_are_refused_before_anything_runs(studio: Studio, ask: Ask) -> None:
    with pytest.raises(SettingsError):
        next(studio.write(ask, Visitor()))


def test_a_warning_of_a_run_is_said(small_tokenizer: Any) -> None:
    from ..tiny import make_tiny

    model = make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer), max_position_embeddings=56)
    frame = last(Studio(model, small_tokenizer, "short"), Ask("constant:depth=6", "Too long for it", 16))
    assert "56 positions" in parts.measured(frame)


def test_without_gradio_the_command_says_what_to_install(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    found = cli("studio")
    assert found.code == 2
    assert "pip install 'depthsched[studio]'" in found.err
    assert len(found.err.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line(cli: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = cli("studio", "--port", taken.getsockname()[1], "--model", "nowhere")
    assert found.code == 2
    assert "cannot listen" in found.err
    assert cli("studio", "--port", "99999").code == 2


def test_another_address_has_to_be_said_and_warns(cli: Any) -> None:
    found = cli("studio", "--host", "0.0.0.0", "--port", "0", "--model", "no such model")
    assert found.code == 2
    assert found.err.splitlines()[0].startswith("depthsched: warning: 0.0.0.0")
    assert "warning" not in cli("studio", "--port", "0", "--model", "no such model").err


@pytest.mark.parametrize(("host", "own"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)])
def test_which_addresses_are_this_machines_own(host: str, own: bool) -> None:
    assert server.is_loopback(host) is own


def test_the_page_is_told_to_nobody(studio: Studio) -> None:
    app = server.make_app(studio, "127.0.0.1").app
    mounted = app.routes[-1].app.get_blocks()
    assert mounted.analytics_enabled is False
    assert mounted.share is False
