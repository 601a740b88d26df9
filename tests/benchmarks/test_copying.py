"""Prompts to copy from, and blocks of layers judged on them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import blocks
from benchmarks.copying import copying
from benchmarks.pages import copying as page

from ..commands import Result
from ..evaluate.rows import write_more
from ..evaluate.test_tasks import needs
from ..tiny import LAYERS

Run = Callable[..., Result]


def test_the_answer_of_every_list_stands_in_it_once() -> None:
    prompts = copying(200, seed=3)
    assert prompts == copying(200, seed=3) != copying(200, seed=4)
    for text in prompts:
        numbers = re.findall(r"\d+", text)
        assert len(set(map(len, numbers))) == 1
        assert 3 <= len(numbers) <= 26
        asked = [line for line in text.splitlines() if line.endswith(("?", "its number.")) or line.startswith("Give")]
        assert len(asked) == 1
        assert any(text.count(name) == 2 for name in re.findall(r"[A-Z][a-z]+", asked[0]))


@needs("niah_single_1")
def test_every_block_is_judged_on_both_kinds_and_on_needles(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "EACH", (5, 4))
    monkeypatch.setattr(blocks, "HELD", (2, 2))
    monkeypatch.setattr(blocks, "SMOLLM2", 5)
    texts = [json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").read_text().splitlines()[:5]]
    rows = "".join(json.dumps({"prompt": text}) + "\n" for text in texts + copying(4))
    (tmp_path / "copying.jsonl").write_text(rows)
    write_more(tmp_path / "data")
    words = ["--data", tmp_path / "data", "--sizes", "2", "--limit", "2", "--model", folder / "model"]
    found = run("blocks", "--prompts", tmp_path / "copying.jsonl", *words).json()
    assert [row["start"] for row in found["rows"]] == list(range(1, LAYERS - 2))
    for row in found["rows"]:
        assert row["size"] == 2
        assert 0 <= row["needles"] <= 1
        assert row["mixed"]["kl"] != row["copying"]["kl"]

    monkeypatch.setattr(blocks, "SMOLLM2", 16)
    none = run("blocks", "--prompts", folder / "prompts.jsonl", "--data", tmp_path / "data", "--model", words[-1])
    assert (none.code, "too few prompts of a kind" in none.err) == (2, True)


def test_the_page_counts_what_was_decided(tmp_path: Path) -> None:
    def row(plan: str, decision: str, score: float, saved: float) -> tuple[dict[str, object], dict[str, object]]:
        one = {"plan": plan, "decision": decision, "n": 500, "full": 1.0, "score": score, "diff": score - 1}
        return {**one, "low": score - 1, "high": 0.0}, {"plan": plan, "bytes_speedup": saved, "score": score}

    def write(name: str, *found: tuple[dict[str, object], dict[str, object]]) -> None:
        pooled, rows = [one for one, _ in found], [two for _, two in found]
        context, packages = {"command": "depthsched eval"}, {"depthsched": "0"}
        kept = {"pooled": pooled, "rows": rows, "context": context, "versions": packages}
        (tmp_path / name).write_text(json.dumps(kept))

    write("smollm2.json", row("constant:depth=29", "yes", 1.0, 1.01), row("constant:depth=20", "no", 0.3, 1.29))
    assert page.sentences(tmp_path).startswith("There are no results yet")
    write("copying.json", row("constant:depth=29+profile=x", "yes", 1.0, 1.01))
    for name in ("layers.json", "orders.json", "blocks.json", *page.SETS.values()):
        (tmp_path / name).write_text('{"rows": []}')
    said = page.sentences(tmp_path)
    assert "With the profile `smollm2`, 1 of 2 plans are shown" in said
    assert "up to 1.01x of the bytes, and 1 are shown not to." in said
    plans = page.tables(tmp_path)["plans"]()
    assert "| `constant:depth=20` | `smollm2` | 1.29x | 30.0 | -70.0 (-70.0 to +0.0) | no |" in plans
    assert "| `constant:depth=29` | `smollm2-copying` | 1.01x |" in plans
