"""One of everything that shows itself in a notebook, with a text wherever a model, a file or a person could put one."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.cost import ModelShape
from depthsched.profile import ModelIdentity
from depthsched.runtime.run import Run
from depthsched.runtime.trace import StepRecord, Trace
from depthsched.score import Interval, ScoreResult, TokenMap
from depthsched.score.result import Group
from depthsched.sweep import Cell, Outcome, Record, SweepResult

from ..tiny import LAYERS, tiny

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</div></svg></style><style>*{display:none}</style>",
    "&lt;b&gt; &amp;amp; &#60;i&#62;",
    "\x1b[2J\x1b]8;;http://example.org\x07link\x1b]8;;\x07",
    "\u202egnp.exe\u2066\u2069\u200f",
    "<!-- ]]> {{ 7 * 7 }} {% raw %}",
    "\x00\x85\u2028\u2029\ud800\ufeff\u200b",
    "line\r\nline\ttab",
)


class Words:
    """A tokenizer all of whose tokens are one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self, tokens: list[int]) -> str:
        return self.text * len(tokens)


class Reader(HTMLParser):
    """What a page says: its elements with the names of their attributes, its text, the values of its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.texts: list[str] = []
        self.other: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.texts += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def shape() -> ModelShape:
    return adapter_for(tiny("llama", "sdpa")).shape()


def a_plan(text: str) -> ds.DepthPlan:
    profile = a_profile(text)
    return ds.DepthPlan(text, text, LAYERS, 4, (LAYERS, 7, 6, 6), (4, 3, 5), notes=(text,), profile=profile)


def a_profile(text: str) -> ds.Profile:
    return ds.Profile(
        ModelIdentity(text, LAYERS, 32, "", ()),
        (3, 4),
        schedule=text,
        data={text: text},
        versions={text: text},
        drafting={text: text},
        evidence={"constant": [{"depth": 7, "kl": 0.1, "agreement": 0.9}]},
        folder=Path("/nowhere") / text.replace("/", "|").replace("\0", " "),
    )


def a_run(text: str, tokenizer: Any = None) -> Run:
    plan = replace(a_plan(text), profile=None)
    steps = [StepRecord(i, depth, 0.1, (i,)) for i, depth in enumerate(plan.depths)]
    ids = torch.arange(4)[None]
    trace = Trace(plan, backend=text, reason=text, steps=steps)
    return Run(ids, ids, trace, shape(), 1, 0.1, 0.2, tokenizer=tokenizer or Words(text))


def a_score(text: str) -> ScoreResult:
    one, group = Interval(0.5, 0.4, 0.6, "mean"), Group(1, 3, 4, 0.5, 0.5, 0.5, 0.5)
    return ScoreResult(
        text, text, text, text, 2, 8, one, one, one, one, 7.0, 1.1, (group,), (group,), (), 0.1, (text,), text
    )


def a_map(text: str) -> TokenMap:
    agree = (True, False)
    return TokenMap(
        text, LAYERS, (1, 2), (8, 6), (text, text), (((text, 0.5),),) * 2, ((text, 0.5),) * 2, (0.5, 0.4), agree
    )


def a_sweep(text: str) -> SweepResult:
    cell = Cell("score", text, "float32", "cpu", "dense", text, text, {text: text}, {text: text})
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    score = {"mean_depth": 7.0, "bytes_speedup": 1.1, "intervals": {"kl": interval, "agreement": interval}}
    tasks = {"rows": [{"task": text, "score": 0.5, "diff": 0.1}]}
    records = [
        Record(cell, "done", {"score": score}, None, 1.0, {}),
        Record(replace(cell, measure="eval"), "done", {"eval": tasks}, None, 1.0, {}),
        Record(cell, "failed", None, {"type": text, "message": text, "fault": False}, 1.0, {}),
    ]
    return SweepResult(Outcome(record, True) for record in records)


EVERY = (a_plan, a_profile, a_run, a_score, a_map, a_sweep)
