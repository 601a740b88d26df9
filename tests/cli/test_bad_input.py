"""Wrong input: one clear line on stderr, exit code 2, no traceback, nothing on stdout."""

from __future__ import annotations

from pathlib import Path

import pytest

SCHEDULES = '''
from dataclasses import dataclass
import numpy as np
import depthsched as ds

@dataclass(frozen=True)
class Nan(ds.DepthSchedule):
    """Not a number from step 3 on."""
    def depth(self, step, num_layers):
        return np.where(step > 3, np.nan, num_layers)

@dataclass(frozen=True)
class Words(ds.DepthSchedule):
    """Strings."""
    def depth(self, step, num_layers):
        return np.full(np.shape(step), "all")

@dataclass(frozen=True)
class Short(ds.DepthSchedule):
    """Too few values."""
    def depth(self, step, num_layers):
        return np.asarray(step)[:-1]

@dataclass(frozen=True)
class Rising(ds.DepthSchedule):
    """Rises although declared monotone."""
    def depth(self, step, num_layers):
        return np.minimum(step + 1, num_layers)

@dataclass(frozen=True)
class LateBug(ds.DepthSchedule):
    """Written for one step, and wrong at a later one."""
    def depth(self, step, num_layers):
        return num_layers if step < 4 else num_layers / (step - 4)

@dataclass(frozen=True)
class Raises(ds.DepthSchedule):
    """Its own bug."""
    def depth(self, step, num_layers):
        raise KeyError("oops")

@dataclass(frozen=True)
class Empty(ds.DepthSchedule):
    """No method."""

@dataclass(frozen=True)
class NotFull(ds.DepthSchedule):
    """Declares a full start."""
    starts_full = True
    def depth(self, step, num_layers):
        return num_layers - 1

class Undecorated(ds.DepthSchedule):
    """No decorator."""
    share: float = 1.0

@dataclass(frozen=True)
class Arguments(ds.DepthSchedule):
    """Forgets the layers."""
    def depth(self, step):
        return 3
'''
UNDECORATED = 1 + SCHEDULES.splitlines().index("class Undecorated(ds.DepthSchedule):")
THAWED = """from dataclasses import dataclass
import depthsched as ds
@dataclass
class Thawed(ds.DepthSchedule):
    x: int = 1
"""

# (arguments, what the line must contain); {d} is a folder with the files above
SHOW = [
    ("d3:alpha=0", "in (0, 1)"),
    ("d3:alpha=1", "in (0, 1)"),
    ("d3:alpha=-1", "in (0, 1)"),
    ("d3:alpha=nan", "finite"),
    ("d3:alpha=inf", "finite"),
    ("d3:alpha=abc", "not a number"),
    ("d3:alpha=", "key=value"),
    ("d3:alpha", "key=value"),
    ("d3:=0.9", "no setting ''"),
    ("d3:alhpa=0.9", "did you mean 'alpha'"),
    ("d3:alpha=0.9,alpha=0.8", "twice"),
    ("d3:start=-1", "at least 0"),
    ("d3:start=1.5", "fraction in (0, 1)"),
    ("d3:start=abc", "not a number"),
    ("d3:min_depth=0", "at least 1"),
    ("d3:min_depth=2.5", "not a whole number"),
    ("d3:min_depth=99", "more than the model's 32 layers"),
    ("constant", "needs depth"),
    ("constant:depth=0", "at least 1"),
    ("constant:depth=2.5", "not a whole number"),
    ("linear", "needs end"),
    ("linear:end=4,over=1", "at least 2"),
    ("step:at=64+32,drop=4+8", "must rise"),
    ("step:at=32+64,drop=8+4", "must not fall"),
    ("step:at=32+64,drop=4", "one drop for every at"),
    ("step:at=a+b,drop=1+2", "not a whole number"),
    ("confidence:depth=8,margin=2", "in [0, 1]"),
    ("d4", "did you mean 'd3'"),
    ("nothing-like-it", "known:"),
    ("", "schedule is empty"),
    ("d3@middel-out", "did you mean 'middle-out'"),
    ("d3@", "order is empty"),
    ("d3@middle-out:head=-1", "at least 0"),
    ("d3@list", "needs layers"),
    ("d3@list:layers=3+3", "appears twice"),
    ("d3@list:layers=40", "not in 0..31"),
    ("{d}/missing.py:X", "no such file"),
    ("{d}/broken.py:X", "cannot be run"),
    ("{d}/schedules.py:Nope", "it has Nan, Words"),
    ("{d}/schedules.py:Nan", "returned nan at step 4"),
    ("{d}/schedules.py:Words", "return a number"),
    ("{d}/schedules.py:Short", "one depth per step"),
    ("{d}/schedules.py:Rising", "declared monotone but rises"),
    ("{d}/schedules.py:LateBug", "failed at step 4: depth(4, 32) raised ZeroDivisionError"),
    ("{d}/schedules.py:Arguments", "needs def depth(self, step, num_layers) and has def depth(self, step)"),
    (
        "{d}/schedules.py:Undecorated:share=0.5",
        f"schedules.py, line {UNDECORATED}: class Undecorated has settings (share)",
    ),
    ("{d}/thawed.py", "thawed.py, line 3: class Thawed is a dataclass that is not frozen"),
    ("{d}/schedules.py:Raises", "KeyError"),
    ("{d}/schedules.py:Empty", "does not define depth"),
    ("{d}/schedules.py:NotFull", "starts_full"),
]
OTHER = [
    (["show", "d3", "--layers", "0"], "at least 1"),
    (["show", "d3", "--tokens", "0"], "between 1 and 10 million"),
    (["show", "d3", "--layers", "many"], "valid integer"),
    (["show", "d3", "--mean-depth", "99"], "out of reach"),
    (["show", "d3:alpha=0.9", "--mean-depth", "20"], "leave it out"),
    (["show", "full", "--mean-depth", "20"], "no setting to solve"),
    (["show", "d3", "--png", "{d}/no/such/folder/x.png"], "cannot write"),
    (["show"], "Missing argument"),
    (["shwo"], "shwo"),
    (["list", "--jsno"], "--jsno"),
    (["check", "nope"], "unknown schedule"),
    (["check", "d3", "--examples", "0"], "--examples"),
    (["generate", ""], "prompt is empty"),
    (["generate", "  "], "prompt is empty"),
    (["generate", "hi", "--prompt-file", "{d}/schedules.py"], "not both"),
    (["generate", "--prompt-file", "{d}/none.txt"], "cannot read the prompt"),
    (["generate", "--prompt-file", "{d}/binary.bin"], "not UTF-8"),
    (["generate", "hi", "--schedule", "d4"], "did you mean 'd3'"),
    (["generate", "hi", "--order", "nope"], "unknown order"),
    (["generate", "hi", "--max-new-tokens", "0"], "at least 1"),
    (["generate", "hi", "--temperature", "-1"], "[0, 100]"),
    (["generate", "hi", "--temperature", "nan"], "[0, 100]"),
    (["generate", "hi", "--temperature", "1", "--top-p", "0"], "(0, 1]"),
    (["generate", "hi", "--top-p", "0.9"], "--temperature"),
    (["generate", "hi", "--seed", "-1"], "--seed"),
    (
        ["generate", "hi", "--model", "no such model", "--lossless", "--draft-tokens", "x"],
        "draft_tokens='x' must be auto",
    ),
    (["generate", "hi", "--model", "no such model", "--lossless", "--draft-tokens", "0"], "from 1 to 16"),
    (["generate", "hi", "--model", "no such model", "--draft-tokens", "3"], "or --lossless"),
    (["generate", "hi", "--model", "no such model", "--lossless", "--skipped-kv", "write"], "skipped_kv='write'"),
    (["generate", "hi", "--model", "no such model"], "no such model"),
    (["generate", "hi", "--model", "{d}/none.gguf"], "no such file"),
    (["generate", "hi", "--model", "{d}/fake.gguf"], "not a GGUF file"),
    (["generate", "hi", "--model", "{d}"], "no config.json"),
    (["generate", "hi", "--dtype", "float3"], "unknown dtype"),
    (["generate", "hi", "--device", "warp:9"], "not available"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad")
    (path / "schedules.py").write_text(SCHEDULES)
    (path / "broken.py").write_text("import depthsched\nthis is not python\n")
    (path / "thawed.py").write_text(THAWED)
    (path / "binary.bin").write_bytes(b"\xff\xfe\x00\x80")
    (path / "fake.gguf").write_bytes(b"not a gguf file")
    return path


def refused(result, words):
    assert result.code == 2, result
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    assert result.err.startswith("depthsched: ")
    assert words in result.err, result.err


@pytest.mark.parametrize(("schedule", "words"), SHOW, ids=[s for s, _ in SHOW])
def test_bad_schedule(cli, folder, schedule, words):
    refused(cli("show", schedule.format(d=folder)), words)


@pytest.mark.parametrize(("args", "words"), OTHER, ids=[" ".join(a) for a, _ in OTHER])
def test_bad_arguments(cli, folder, args, words, monkeypatch):
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(folder / "cache"))
    refused(cli(*(a.format(d=folder) for a in args)), words)


@pytest.mark.parametrize("schedule", ["min_depth=31", "depth"])
def test_bad_for_this_model(cli, schedule):
    """What only the model can tell: 30 layers."""
    spec = {"min_depth=31": "d3:min_depth=31", "depth": "d3@list:layers=30"}[schedule]
    refused(cli("generate", "hi", "-s", spec, "-n", 2), "30 layers" if "min" in schedule else "not in 0..29")


def test_a_schedule_that_fails_mid_run_is_named(cli, folder, tmp_path):
    """An adaptive schedule is asked during the run; the run stops with one line."""
    (tmp_path / "late.py").write_text(
        SCHEDULES.split("@dataclass")[0]
        + '@dataclass(frozen=True)\nclass Late(ds.AdaptiveSchedule):\n    """Fails late."""\n'
        "    def depth(self, step, num_layers):\n        return num_layers\n"
        "    def decide(self, step, num_layers, signals):\n"
        '        return float("nan") if step > 2 else num_layers\n'
    )
    refused(cli("generate", "hi", "-s", f"{tmp_path}/late.py:Late", "-n", 6), "returned nan at step 3")
