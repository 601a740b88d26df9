"""The lists of commands: each is one that can run, and together they measure every file that the pages print."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from benchmarks import evidence
from benchmarks.__main__ import app
from depthsched import parse_schedule
from depthsched.cli import build_app
from depthsched.errors import ModelError

ROOT = Path(__file__).resolve().parents[2]
DATA, SCRATCH, ENV = Path("some data"), Path("some where"), Path("an env")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(ROOT)
    return [
        *evidence.speed(),
        *evidence.quality(DATA, SCRATCH),
        *evidence.tasks(DATA, SCRATCH),
        *evidence.peers(ENV, SCRATCH),
        *evidence.lossless(DATA, SCRATCH),
        *evidence.premise(DATA, SCRATCH),
        *evidence.pooled(DATA, SCRATCH),
        *evidence.copying(DATA, SCRATCH),
        *evidence.gallery(DATA, SCRATCH),
        *evidence.signal(DATA),
    ]


def test_every_line_is_a_command_that_parses(lines: list[str]) -> None:
    groups = {"depthsched": typer.main.get_command(build_app()), "benchmarks": typer.main.get_command(app)}
    seen = set()
    for line in lines:
        (module, name, *words), _ = evidence.split(line)
        if module == "pytest":
            continue
        command = groups[module].commands[name]  # type: ignore[attr-defined]
        if name in ("peers", "gallery"):
            command, words = command.commands[words[0]], words[1:]
        context = command.make_context(name, list(words))  # wrong options raise
        seen.add((module, name))
        for spec in (context.params.get("plans") or context.params.get("schedule") or "full").split(";"):
            if spec != "auto":
                parse_schedule(spec.partition("+profile=")[0].partition("@")[0])
    assert {name for module, name in seen if module == "benchmarks"} == {
        "memory", "cold", "first", "long", "batching", "study", "paired", "prompts", "pages", "peers", "lossless",
        "renewal", "adaptive", "peeking", "signal", "predict", "offload",
        "gallery-page", "blocks",
    }  # fmt: skip


def test_together_they_measure_every_file_that_is_kept(lines: list[str]) -> None:
    targets = [target for _, target in map(evidence.split, lines) if target]
    assert len(set(targets)) == len(targets)
    folders = {target.parent for target in targets}
    kept = {path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.json")}
    missing = set(targets) - kept  # the pages of these say so while they are not measured
    assert {path for path in missing if path.parent not in (evidence.LOSSLESS, evidence.PREMISE)} <= {
        evidence.PEERS / "smollm2.json",
        evidence.QUALITY / "adaptive.json",
    }
    assert kept <= set(targets)


def test_a_file_is_replaced_when_its_command_is_done_and_kept_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "new" / "found.json"
    (tmp_path / "in.json").write_text('{"a": 1}')
    evidence.run(f"json.tool --compact {tmp_path / 'in.json'} > {target}")
    assert target.read_text() == '{"a":1}\n'
    with pytest.raises(ModelError, match="exit code"):
        evidence.run(f"json.tool {tmp_path / 'absent'} > {target}")
    assert target.read_text() == '{"a":1}\n'
    assert [path.name for path in target.parent.iterdir()] == ["found.json"]
