"""``depthsched oracle``: what it prints, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..sweep.helpers import make_folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> Path:
    return make_folder(tmp_path_factory.mktemp("oracle"), small_tokenizer)


def test_json_table_and_page(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(home / "cache"))
    common = ["oracle", "--model", home / "model", "--prompts", home / "prompts.jsonl", "-n", 6, "--limit", 3]
    page = home / "page.html"
    found = cli(*common, "--order", "middle-out;early-exit", "--html", page, "--maps", 1, "--json").json()
    assert [row["order"].partition(":")[0] for row in found["rows"]] == ["middle-out", "early-exit"]
    for row in found["rows"]:
        assert [kind["kind"] for kind in row["kinds"]] == ["one-step", "held"]
        assert {"d3:alpha=0.999", "confidence:depth=5,margin=0.5"} <= {plan["plan"] for plan in row["plans"]}
        assert [best["level"] for best in row["kinds"][0]["headroom"]] == [1.0, 0.99, 0.95]
    assert found["files"] == [str(page)]
    text = page.read_text()
    maps = json.loads(text.partition('id="maps">')[2].partition("</script>")[0])
    assert [answer["plan"] for answer in maps] == [
        f"oracle {kind}, {order}" for order in ("middle-out", "early-exit") for kind in ("one-step", "held")
    ]
    for answer in maps:
        assert len(answer["depths"]) == len(answer["notes"]) == len(answer["pieces"]) == len(answer["tokens"])
        assert answer["depths"][0] == 8
        assert all(answer["agree"])  # its own greedy answers
    assert "The oracle on 3 prompts" in text
    shown = cli(*common, "--plans", "none", "--kinds", "held", "--min-depth", 6).out
    assert "middle-out, depths 6 to 8" in shown
    assert "one-step" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kinds", "two-step"], "--kinds two-step must be one-step, held"),
        (["--kinds", ""], "--kinds '' must be"),
        (["--plans", ";"], "--plans is empty"),
        (["--plans", "d4"], "did you mean"),
        (["--order", "nosuch"], "nosuch"),
        (["--html", "."], "is a folder"),
        (["--maps", "2"], "--maps is for the page of --html"),
    ],
)
def test_bad_input_is_one_line_before_the_model_is_loaded(cli: Any, words: list[str], message: str) -> None:
    done = cli("oracle", "--prompts", "absent.jsonl", *words)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
