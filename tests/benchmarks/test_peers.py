"""Workers that live on, what is made of their answers, and the page; real peers only where their environment is."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from benchmarks.pages import peers as page
from benchmarks.peers import environment, variants
from benchmarks.peers.measure import Found, Process, measure
from benchmarks.peers.summary import equal_start, rows
from benchmarks.peers.variants import REFERENCE, VARIANTS, Variant, chosen
from benchmarks.process import ROOT
from depthsched.encoding import model_inputs
from depthsched.errors import ModelError, SettingsError

from ..commands import Result

Run = Callable[..., Result]
PROMPT = [5, 17, 3, 99, 42]
EAGER = {"dtype": "float32", "weights": "dense", "plan": "full", "backend": "eager"}
FULL, SHALLOW = Variant(REFERENCE, "ours", EAGER), Variant("shallow", "ours", {**EAGER, "plan": "constant:depth=5"})
LOAD = {"threads": 1, "context": 64, **EAGER}


@pytest.fixture(scope="module")
def worker() -> Iterator[Process]:
    process = Process(FULL, sys.executable, 1)
    yield process
    process.close()
    assert process.process.returncode == 0


def expected(folder: Path, plan: str, tokens: int) -> list[int]:
    model, _ = ds.load_model(str(folder / "model"), dtype="float32", device="cpu")
    model.generation_config.eos_token_id = None
    with ds.attach(model, plan):
        output = model.generate(**model_inputs([PROMPT]), max_new_tokens=tokens, do_sample=False)
    return list(output[0, len(PROMPT) :].tolist())


def test_a_worker_lives_on_and_answers_what_it_is_asked(worker: Process, folder: Path) -> None:
    with pytest.raises(ModelError, match=f"{REFERENCE}: load failed: ModelError: .*config.json"):
        worker.ask("load", model=str(folder), **LOAD)
    loaded = worker.ask("load", model=str(folder / "model"), **LOAD)
    assert loaded["versions"]["depthsched"] == ds.plugins.version()
    assert min(loaded[name] for name in ("load_seconds", "import_seconds", "import_bytes")) > 0
    assert worker.ask("encode", text="a map")["ids"]
    want = expected(folder, "full", 9)
    for tokens in (9, 4):
        run = worker.ask("generate", prompt=PROMPT, tokens=tokens)
        assert run["ids"] == want[:tokens]
        assert len(run["times"]) == tokens
        assert [0, *run["times"], run["seconds"]] == sorted([0, *run["times"], run["seconds"]])
        assert run["idle_seconds"] >= 0
    assert worker.ask("memory")["peak_bytes"] > loaded["import_bytes"]
    with pytest.raises(ModelError, match="do_nothing"):
        worker.ask("nothing")


def test_a_worker_that_is_gone_leaves_its_last_words() -> None:
    process = Process(Variant("a peer", "nosuch"), sys.executable, 1)
    with pytest.raises(ModelError, match=r"a peer: load failed: ModuleNotFoundError: .*nosuch"):
        process.ask("load")
    process.close()


@pytest.mark.slow
def test_all_run_in_turns_in_as_many_processes_as_there_are_starts(folder: Path) -> None:
    told: list[str] = []
    path = str(folder / "model")
    found = measure(
        [FULL, SHALLOW], {True: path}, {True: sys.executable}, PROMPT, "a map",
        tokens=6, rounds=2, starts=2, threads=1, progress=told.append,
    )  # fmt: skip
    names = [REFERENCE, "shallow"]
    assert told == [f"{what} {i} of 2: {name}" for what in ("start", "round") for i in (1, 2) for name in names]
    for one, plan in zip(found, ("full", "constant:depth=5"), strict=True):
        assert (len(one.starts), len(one.runs)) == (2, 2)
        assert {tuple(run["ids"]) for run in one.runs} == {tuple(expected(folder, plan, 6))}
        assert one.peak_bytes > 0
        for start in one.starts:
            assert start["ready_seconds"] > start["import_seconds"] + start["load_seconds"]


def answers(speeds: Sequence[float], ids: Sequence[int], first: float = 0.5) -> list[dict[str, Any]]:
    """Runs of three tokens at so many a second."""
    return [
        {"ids": list(ids), "times": [first, first + 1 / s, first + 2 / s], "seconds": first + 2 / s} for s in speeds
    ]


def found_of(variant: Variant, speeds: Sequence[float], ids: Sequence[int], own: Sequence[int] = (1, 2)) -> Found:
    starts = [
        {"import_seconds": 1.0, "load_seconds": 2.0, "ready_seconds": 4.0, "import_bytes": 100, "versions": {"v": "1"},
         "first": answers([1.0], ids, first)[0]}
        for first in (7.0, 8.0, 9.0)
    ]  # fmt: skip
    return Found(variant, starts, answers(speeds, ids), 0.25, 1000, list(own))


def table_of() -> list[dict[str, Any]]:
    depth = Variant("depth", "ours", {**EAGER, "plan": "constant:depth=5"})
    found = [
        found_of(depth, [30, 40, 50], [4, 5, 9]),
        found_of(FULL, [10, 20, 40], [4, 5, 6]),
        found_of(Variant("slow", "llama"), [5, 5, 5], [4, 5, 6]),
        found_of(Variant("fast", "openvino"), [20, 40, 20], [1, 5, 6], own=(2, 2)),
    ]
    return rows(found, [1, 2])


def test_rows_are_medians_and_ratios_by_round() -> None:
    depth, full, slow, fast = table_of()
    assert [row["tokens_per_second"]["median"] for row in (depth, full, slow, fast)] == pytest.approx([40, 20, 5, 20])
    assert depth["vs_ours"]["median"] == pytest.approx(2)  # of 3, 2 and 1.25
    assert (depth["vs_ours"]["low"], depth["vs_ours"]["high"]) == pytest.approx((1.25, 3))
    assert full["vs_peer"]["median"] == pytest.approx(0.5)  # of 0.5, 0.5 and 2: against the faster peer
    assert slow["vs_peer"]["median"] == pytest.approx(0.25)
    assert fast["vs_ours"]["median"] == pytest.approx(2)
    assert full["end_to_end"]["median"] == pytest.approx(3 / 0.6)
    assert full["first_token"]["median"] == 0.5
    assert full["first_token_cold"]["median"] == 8
    assert full["model_bytes"] == 900
    assert [row["first_difference"] for row in (depth, full, slow, fast)] == [2, None, None, 0]
    assert [row["equal_tokens"] for row in (depth, full, slow, fast)] == pytest.approx([2 / 3, 1, 1, 0])
    assert [row["tokenised_alike"] for row in (depth, full, slow, fast)] == [True, True, True, False]


def test_what_did_not_take_part_is_not_compared_with() -> None:
    (row,) = rows([found_of(Variant("alone", "llama"), [5, 5], [4, 5, 6])], [1, 2])
    assert row["vs_ours"] is row["first_difference"] is row["equal_tokens"] is None
    assert row["vs_peer"]["median"] == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2))))
def test_equal_start_counts_until_the_first_difference(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    count = equal_start(a, b)
    assert a[:count] == b[:count]
    assert count == len(a) or a[count] != b[count]


def test_what_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    native = "weights" in inspect.signature(ds.load_model).parameters
    taken, left_out = chosen("", None)
    assert {v.name for v in taken} == set(names) - {one["name"] for one in left_out}
    reasons = {one["name"]: one["reason"] for one in left_out}
    assert ("4-bit" in reasons) is not native
    assert "4-bit, depth 20" in reasons
    with pytest.raises(SettingsError, match="no engine named 'x'"):
        chosen("bf16;x", None)

    plan = Variant("p", "ours", {**EAGER, "plan": "constant:depth=5+profile="})
    monkeypatch.setattr(variants, "VARIANTS", (plan,))
    with pytest.raises(SettingsError, match="p: it needs --profile"):
        chosen("", None)
    assert chosen("p", "some where")[0][0].options["plan"] == "constant:depth=5+profile=some where"


def test_run_and_page_from_the_shell(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiled = Variant("profiled", "ours", {**EAGER, "plan": "constant:depth=7+profile="})
    monkeypatch.setattr(variants, "VARIANTS", (FULL, profiled))
    words = [
        "--model",
        folder / "model",
        "--prompt",
        "Tom",
        "--threads",
        1,
        "--tokens",
        4,
        "--rounds",
        2,
        "--starts",
        1,
    ]
    result = run("peers", "run", "--env", tmp_path, *words, "--out", tmp_path / "found.json")
    assert (result.code, result.out) == (0, ""), result.err
    assert "left out: profiled: it needs --profile" in result.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["tokens"], found["rounds"], found["starts"], found["threads"]) == (4, 2, 1, 1)
    (row,) = found["rows"]
    assert (row["name"], row["first_difference"], row["equal_tokens"]) == (REFERENCE, None, 1)
    assert row["tokenised_alike"]

    printed = run("peers", "page", tmp_path / "found.json")
    assert printed.code == 0
    assert "- Left out: profiled: it needs --profile" in printed.out
    assert f"| {REFERENCE} |" in printed.out


def test_a_page_shows_every_row_and_what_is_not_the_same(tmp_path: Path) -> None:
    assert "make evidence-peers" in page.tables(tmp_path)
    found = {
        "command": "python -m benchmarks peers run", "machine": "m", "processor": "p", "prompt_tokens": 2, "tokens": 3,
        "file": {"name": "f.gguf", "bytes": 5_000_000}, "rounds": 3, "starts": 3, "threads": 2, "versions": {"v": "1"},
        "left_out": [{"name": "4-bit", "reason": "because"}], "rows": table_of(),
    }  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(found))
    lines = page.tables(tmp_path).splitlines()
    depth, full, _, fast = lines[lines.index(next(row for row in lines if row.startswith("| engine |"))) + 2 :][:4]
    assert depth.startswith("| depth | 40.0 (30.0 to 50.0) | 2.00 (1.25 to 3.00) |")
    assert full.endswith("| none |")
    assert fast.endswith("| token 0 |")
    assert "- Left out: 4-bit: because." in lines
    assert "- fast makes other tokens of the prompt's text; it was measured on those of the others." in lines
    assert "- slow used 0.2 s of processor time while the others ran." in lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "--env", "/nowhere"],
            "no peers in /nowhere; make them: python -m benchmarks peers setup --env /nowhere",
        ),
        (["run", "--env", "/nowhere", "--model", "/no/folder"], "the peers read GGUF files, and /no/folder is none"),
        (["run", "--env", "/nowhere", "--engines", "x"], "no engine named 'x'"),
        (["run", "--env", "/nowhere", "--rounds", "0"], "--rounds"),
        (["run", "--env", "/nowhere", "--engines", "bf16", "--model", "/no/folder"], "no such model"),
        (["page", "absent.json"], "absent.json was not measured yet"),
    ],
)
def test_wrong_input_says_what_is_wrong(run: Run, words: list[str], message: str) -> None:
    result = run("peers", *words)
    assert result.code == 2
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert result.out == ""


def test_an_environment_that_cannot_be_made_says_which_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"an environment in .*file"):
        environment.setup(tmp_path / "file")


@pytest.mark.slow
def test_the_real_peers(run: Run, smollm2: object) -> None:
    """All of them make as many tokens as asked, of the same ids."""
    env = ROOT / ".venv" / "peers"
    try:
        environment.python_of(env)
    except SettingsError as error:
        pytest.skip(str(error))
    peers = [variant.name for variant in variants.peers(VARIANTS)]
    words = ["--tokens", 8, "--rounds", 1, "--starts", 1, "--threads", 1, "--engines", ";".join(peers)]
    result = run("peers", "run", "--env", env, *words)
    assert result.code == 0, result.err
    found = result.json()["rows"]
    assert [row["name"] for row in found] == peers
    assert all(row["tokenised_alike"] for row in found)
    assert all(row["model_bytes"] > 5e7 for row in found)
