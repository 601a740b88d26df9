"""Every experiment, end to end on a tiny random model: structure and what must hold; what the clock says is free."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import depthsched as ds
from benchmarks.common import beside
from benchmarks.pages import adaptive, found_scores, lossless, offload, predict, renewal, speed
from benchmarks.prompts import COPYING, FIT, GSM8K, IFEVAL_FIT, SMOLLM2, TEST

from ..commands import Result
from ..tiny import LAYERS

Run = Callable[..., Result]
PLAN = "d3:alpha=0.99"


@pytest.fixture
def tiny(folder: Path) -> list[object]:
    return ["--model", folder / "model", "--dtype", "float32", "--device", "cpu"]


def test_memory_of_processes_of_their_own(run: Run, tiny: list[object], tmp_path: Path) -> None:
    result = run(
        "memory", *tiny, "--backends", "transformers,eager", "--plan", PLAN, "--batch", 2, "--tokens", 4, "--lossless"
    )
    assert result.code == 0, result.err
    found = result.json()
    assert {key: found[key] for key in ("kind", "plan", "batch", "tokens")} == {
        "kind": "memory", "plan": PLAN, "batch": 2, "tokens": 4,
    }  # fmt: skip
    assert [row["backend"] for row in found["rows"]] == ["transformers", "eager", "eager, lossless"]
    first = found["rows"][0]["peak_memory_bytes"]
    assert first > 2 * 49152 * 32 * 4  # embeddings and head
    assert [row["ratio"] for row in found["rows"]] == [row["peak_memory_bytes"] / first for row in found["rows"]]
    assert "| transformers |" in printed(result, tmp_path)


def test_the_wait_for_the_steady_speed(run: Run, tiny: list[object], tmp_path: Path) -> None:
    result = run("cold", *tiny, "--backend", "eager", "--plan", PLAN, "--tokens", 12)
    assert result.code == 0, result.err
    assert [row["cache"] for row in result.json()["rows"]] == ["cold", "warm"]
    for row in result.json()["rows"]:
        assert row["backend"] == "eager"
        assert row["compile_seconds"] == 0 < row["seconds_to_steady"]
    assert "| cold |" in printed(result, tmp_path)


def test_the_first_token(run: Run, tiny: list[object], tmp_path: Path) -> None:
    result = run("first", *tiny, "--batch", 2, "--rounds", 3)
    assert result.code == 0, result.err
    found = result.json()
    row = found["rows"][0]
    assert (found["batch"], found["backend"]) == (2, "compiled")
    assert row["seconds"]["median"] > 0 < row["transformers"]["median"]
    assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    assert "The first token, float32" in printed(result, tmp_path)


def test_a_long_run_in_blocks(run: Run, tiny: list[object], tmp_path: Path) -> None:
    result = run("long", *tiny, "--backend", "eager", "--plan", PLAN, "--tokens", 20, "--block", 8)
    assert result.code == 0, result.err
    found = result.json()
    assert found["compile_seconds"] == 0
    assert [block["tokens"] for block in found["blocks"]] == [8, 16]  # the last is not full
    depths = ds.plan(PLAN, num_layers=LAYERS, horizon=20).depths
    assert found["blocks"][0]["mean_depth"] == pytest.approx(sum(depths[1:8]) / 7)
    assert found["blocks"][1]["mean_depth"] == pytest.approx(sum(depths[8:16]) / 8)
    assert found["cache_bytes"] == 8 * LAYERS * 2 * 2 * 8 * 4
    for block in found["blocks"]:
        assert min(block["tokens_per_second"], block["gb_per_s"], block["peak_memory_bytes"]) > 0
    assert "| 16 |" in printed(result, tmp_path)


def test_lossless_by_category(run: Run, folder: Path, tmp_path: Path) -> None:
    rows = [{"question_id": i, "category": "ab"[i % 2], "turns": [f"Say {i}.", "Again."]} for i in range(4)]
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "--plans",
        "constant:depth=6",
        "--draft-tokens",
        "2,auto",
        "--backend",
        "eager",
        "--limit",
        1,
        "--repeats",
        2,
    ]
    words = [tmp_path / "questions", "--model", folder / "model", *words, "--max-new-tokens", 12]
    words += ["--keep", tmp_path / "answers.jsonl"]
    result = run("lossless", *words)
    assert result.code == 0, result.err
    assert "turn 2 of 2: 2 of 2 questions" in result.err
    found = result.json()
    names = ["full", "constant:depth=6, 2", "constant:depth=6, auto"]
    assert list(dict.fromkeys(row["arm"] for row in found["rows"] if row["side"] == "depthsched")) == names
    theirs = {row["arm"] for row in found["rows"] if row["side"] == "transformers"}
    assert theirs == {"full", "assistant_early_exit=6", "prompt_lookup_num_tokens=4"}
    assert {row["category"] for row in found["rows"]} == {"all", "a", "b"}
    for row in found["rows"]:
        assert row["equal"] == 1.0
        assert row["prompts"] == (4 if row["category"] == "all" else 2)
        assert 1 <= row["tokens_per_pass"] <= 17
        assert row["decode_speedup"] is None if row["side"] == "transformers" else row["decode_speedup"] > 0
    drafts = next(row for row in found["rows"] if row["arm"] == names[1])
    assert 0 <= drafts["acceptance"] <= 1 <= drafts["mean_drafted"] <= 2
    assert {one["shape"] for one in found["predictions"]} == {"llama-2-7b", "llama-2-70b"}
    assert next(one["depth"] for one in found["predictions"] if one["shape"] == "llama-2-7b") == 24
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"turn": 1, "ind')  # of a run that was killed while it wrote
    assert run("lossless", *words).json()["rows"] == found["rows"]  # clocks included: nothing ran again
    refused = run("lossless", *words, "--no-others")
    assert (refused.code, "holds answers of other options" in refused.err) == (2, True)
    (tmp_path / "found.json").write_text(result.out)
    page = lossless.tables(tmp_path)
    assert "| constant:depth=6, 2 | depthsched |" in page
    assert "Predicted by bytes for larger shapes, not measured" in page


def test_questions_that_are_none(run: Run, tmp_path: Path) -> None:
    result = run("lossless", tmp_path)
    assert (result.code, "holds no questions" in result.err) == (2, True)
    (tmp_path / "q.jsonl").write_text('{"turns": []}\n')
    result = run("lossless", tmp_path)
    assert (result.code, "q.jsonl:1 is no question" in result.err) == (2, True)


def printed(result: Result, tmp_path: Path) -> str:
    """What the speed page makes of an experiment."""
    (tmp_path / "found.json").write_text(result.out)
    return speed.tables(tmp_path)


@pytest.mark.usefixtures("data")
def test_batching(run: Run, folder: Path, data: Path) -> None:
    options = ["--batches", "1,3", "--rounds", 2, "--limit", 3, "--max-new-tokens", 4]
    result = run("batching", data, "--model", folder / "model", *options)
    assert result.code == 0, result.err
    found = json.loads(result.out.splitlines()[-1])
    assert (found["task"], found["rounds"], found["items"]) == ("gsm8k_cot", 2, 3)
    assert [row["batch"] for row in found["rows"]] == [1, 3]
    assert found["rows"][0]["ratio"] == {"median": 1, "low": 1, "high": 1}
    for row in found["rows"]:
        assert row["same_output"] == 1
        assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]


def test_both_ways_to_score_agree(run: Run, folder: Path) -> None:
    words = ["paired", "--prompts", folder / "prompts.jsonl", "--model", folder / "model", "--limit", 3]
    words += ["--schedule", "linear:end=4", "--profile", folder / "profile", "--max-new-tokens", 24, "--repeats", 2]
    result = run(*words)
    assert result.code == 0, result.err
    found = result.json()
    assert (found["prompts"], found["tokens"]) == (3, 3 * 23)
    assert found["kl_difference"] < 1e-4
    assert found["kl"]["staircase"] > 1e-3
    assert [len(values) for values in found["seconds"].values()] == [2, 2]
    assert found["ratio"]["low"] <= found["ratio"]["median"] <= found["ratio"]["high"]


def test_every_arm_of_the_study_moves_the_bytes_of_its_constant_plan(run: Run, folder: Path) -> None:
    words = ["study", "--prompts", folder / "prompts.jsonl", "--model", folder / "model", "--depths", "7", "--limit", 6]
    words += ["--profile", folder / "profile", "--max-new-tokens", 24, "--tolerance", 0.03]
    result = run(*words)
    assert result.code == 0, result.err
    found = json.loads(result.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    constants = []
    for bridges in (True, False):
        constant, *rows = (row for row in found["rows"] if row["bridges"] is bridges)
        constants.append(constant)
        assert (constant["family"], constant["depth"]) == ("constant", 7)
        assert constant["kl_less_constant"]["mean"] == 0
        assert rows
        for row in rows:
            assert row["bytes_speedup"] == pytest.approx(constant["bytes_speedup"], rel=0.03)
            difference = row["kl"]["mean"] - constant["kl"]["mean"]
            assert row["kl_less_constant"]["mean"] == pytest.approx(difference)
            assert row["kl_less_constant"]["low"] <= difference <= row["kl_less_constant"]["high"]
    assert 1 < constants[0]["bytes_speedup"] < constants[1]["bytes_speedup"]  # the bridges are counted


def test_runs_that_renew_beside_schedules_of_the_same_bytes(run: Run, folder: Path, tmp_path: Path) -> None:
    words = ["--prompts", folder / "prompts.jsonl", "--model", folder / "model", "--profile", folder / "profile"]
    words += ["--depth", 7, "--frontier", "7", "--margins", "0.001,1", "--every", "4", "--limit", 2]
    result = run("renewal", *words, "--max-new-tokens", 12, "--clock-prompts", 1)
    assert result.code == 0, result.err
    found = result.json()
    layers = {row["arm"]: row["mean_depth"] for row in found["rows"]}
    assert layers["confidence, margin 0.001, recompute"] <= layers["confidence, margin 1, recompute"] == LAYERS
    assert layers["constant, verify below 1"] > LAYERS  # both passes are counted
    assert layers["constant, renew every 4"] > 7
    for row in found["rows"]:
        assert row["clock"]["median"] > 0
    checked = next(row for row in found["rows"] if row["arm"] == "constant, verify below 1")
    assert checked["bytes_speedup"] < 1
    assert checked["beside"] == dict.fromkeys(("constant", "d3", "linear"))  # no frontier reaches this
    sure = next(row for row in found["rows"] if row["arm"] == "confidence, margin 1, recompute")
    assert (sure["kl"]["mean"], sure["agreement"]["mean"]) == (pytest.approx(0, abs=1e-6), 1)
    (tmp_path / "renewal.json").write_text(result.out)
    tables = {name: make() for name, make in renewal.tables(tmp_path / "renewal.json").items()}
    assert "| constant, renew every 4 |" in tables["renewed"]
    said = found_scores.renewal(tmp_path / "renewal.json")
    assert "At equal speed on this machine's clock" in said
    assert "`constant:depth=7`" in tables["beside"]


def test_prompts_to_calibrate_on_are_not_those_to_measure_on(run: Run, tmp_path: Path) -> None:
    def write(name: str, rows: list[dict[str, str]]) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))

    for task in "ab":
        (tmp_path / "bbh").mkdir(exist_ok=True)
        rows = [{"input": f"{task} {i}", "target": ""} for i in range(40)]
        (tmp_path / "bbh" / f"{task}.json").write_text(json.dumps({"examples": rows}))
    write("gsm8k/train-2000.jsonl", [{"question": f"train {i}", "answer": ""} for i in range(GSM8K + 9)])
    write("ifeval/some.jsonl", [{"prompt": f"do {i}"} for i in range(IFEVAL_FIT + 20)])
    write("xquad/some.jsonl", [{"context": f"text {i // 3}", "question": f"why {i}"} for i in range(30)])
    counts = {"mixed": GSM8K + 2 * FIT + IFEVAL_FIT, "bbh-test": 2 * TEST, "ifeval-test": 20, "xquad-test": 10}
    assert run("prompts", tmp_path, tmp_path / "out").json() == {**counts, "copying": SMOLLM2 + COPYING}
    found = {
        name: [json.loads(line)["prompt"] for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in counts
    }
    assert {name: len(texts) for name, texts in found.items()} == counts
    assert len({text for texts in found.values() for text in texts}) == sum(counts.values())
    assert found["bbh-test"] == [f"{task} {i}" for task in "ab" for i in range(20, 24)]
    assert found["xquad-test"][1] == "text 1\n\nQuestion: why 3"


def test_a_folder_without_its_one_file_is_named(run: Run, tmp_path: Path) -> None:
    for folder in ("bbh", "gsm8k", "ifeval"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bbh" / "a.json").write_text(json.dumps({"examples": [{"input": "x", "target": "y"}] * 3}))
    (tmp_path / "gsm8k" / "train-2000.jsonl").write_text('{"question": "q"}')
    result = run("prompts", tmp_path, tmp_path / "out")
    assert (result.code, "ifeval has 0 files" in result.err) == (2, True)


def test_adaptive_rules_beside_constant_depth(run: Run, folder: Path, tmp_path: Path) -> None:
    words = ["--model", folder / "model", "--prompts", folder / "prompts.jsonl", "--profile", folder / "profile"]
    words += ["--depth", 5, "--lowest", 4, "--renew", 3, "--limit", 3, "--rules", "constant:depth=6"]
    result = run("adaptive", *words, "--max-new-tokens", 8)
    assert result.code == 0, result.err
    found = result.json()
    rules = {row["schedule"]: row for row in found["rows"]}
    assert {name.partition(":depth")[0] for name in rules} == {
        "confidence", "constant", *(f"rules:{n}" for n in ("LessSure", "Unsteady", "ByClass", "Turned", "Feedback")),
    }  # fmt: skip
    assert str(folder) not in result.out
    assert [one["depth"] for one in found["constants"]] == list(range(4, LAYERS + 1))
    # A constant depth is beside itself: no lead, and no interval around it.
    own = rules["constant:depth=6"]
    assert own["lead"]["agreement"] == pytest.approx({"mean": 0, "low": 0, "high": 0}, abs=1e-9)
    assert own["there"]["agreement"] == pytest.approx(own["agreement"]["mean"])
    assert all(row["oracle"]["one-step"] >= 1 for row in found["rows"])
    (tmp_path / "adaptive.json").write_text(result.out)
    tables = {name: make() for name, make in adaptive.tables(tmp_path / "adaptive.json").items()}
    assert tables["rules"].count("\n") == len(found["rows"]) + 1
    said = found_scores.adaptive(tmp_path / "adaptive.json")
    assert re.match(r"At equal bytes \d+ of \d+ rules have less KL than constant depth", said)
    assert "`rules:ByClass:depth=5,after=digit`" in tables["rules"]
    assert tables["constants"].count("\n") == LAYERS - 4 + 2


def test_what_constant_depth_reaches_at_equal_bytes_by_hand() -> None:
    def scored(saved: float, agreements: list[float]) -> Any:
        prompts = [SimpleNamespace(tokens=10, agreement=10 * a, kl=0.0) for a in agreements]
        return SimpleNamespace(bytes_speedup=saved, per_prompt=prompts)

    constants = [scored(1.0, [1.0, 1.0]), scored(1.5, [0.8, 0.4])]
    found = beside(constants, scored(1.25, [0.95, 0.8]))
    assert found["there"]["agreement"] == pytest.approx((0.9 + 0.7) / 2)
    assert found["lead"]["agreement"]["mean"] == pytest.approx((0.05 + 0.1) / 2)
    assert beside(constants, scored(1.6, [0.5, 0.5])) == {"there": None, "lead": None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["memory", "--model", "/nowhere", "--backends", "eager"], "process of its own failed: "),
        (["cold", "--tokens", "1"], "--tokens"),
        (["long", "--tokens", "100"], "fills no block of 512"),
        (["batching", "/nowhere", "--batches", "1,x"], "--batches '1,x' must be whole numbers"),
        (["study", "--prompts", "absent.jsonl", "--profile", "absent"], "no profile in absent"),
        (["study", "--prompts", "absent.jsonl", "--profile", "P"], "no such prompt file"),
        (["study", "--prompts", "absent.jsonl", "--profile", "P", "--depths", "x"], "--depths 'x' must be"),
        (["renewal", "--prompts", "absent.jsonl", "--profile", "P"], "no such prompt file"),
        (["adaptive", "--prompts", "absent.jsonl", "--profile", "P"], "no such prompt file"),
        (["renewal", "--prompts", "absent.jsonl", "--profile", "P", "--margins", "2"], "--margins '2' must be"),
        (["paired", "--prompts", "absent.jsonl"], "no such prompt file"),
        (["paired", "--prompts", "absent.jsonl", "--repeats", "0"], "--repeats"),
        (["prompts", "/nowhere", "out"], "holds no task"),
        (["pages", "sped"], "no pages named 'sped'"),
    ],
)
def test_wrong_input_says_what_is_wrong(run: Run, folder: Path, words: list[str], message: str) -> None:
    result = run(*(folder / "profile" if word == "P" else word for word in words))
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_a_prediction_beside_what_is_measured(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run(
        "predict", "--model", folder / "model", "--plans", "constant:depth=4", "--kinds", "float32", "--batches", "1,2",
        "--tokens", 4, "--repeats", 1, "--rounds", 1,
    )  # fmt: skip
    assert result.code == 0, result.err
    found = result.json()
    assert [(row["batch"], row["plan"]) for row in found["rows"]] == [
        (batch, plan) for batch in (1, 2) for plan in ("full", "constant:depth=4")
    ]
    for row in found["rows"]:
        assert row["ratio"]["median"] == row["predicted"]["median"] / row["measured"]["median"]
        assert row["within"] == (abs(row["ratio"]["median"] - 1) <= 0.15)
    (tmp_path / "this.json").write_text(result.out)
    page = predict.tables(tmp_path, tmp_path)["this"]()
    assert page.count("`constant:depth=4`") == 2
    assert found["command"] in page
    assert "kinds 'bf'" in run("predict", "--kinds", "bf").err


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
def test_offloaded_layers(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("offload", "--model", folder / "model", "--plans", "constant:depth=4", "--tokens", 4, "--repeats", 1)
    assert result.code == 0, result.err
    found = result.json()
    full, shallow = found["rows"]
    assert (full["moved_saved"], shallow["moved_saved"]) == (1, LAYERS / 4)
    assert full["moved_mb"] == pytest.approx(shallow["moved_mb"] * 2)
    assert full["equal_tokens"]
    assert shallow["equal_tokens"]
    (tmp_path / "found.json").write_text(result.out)
    assert "| `constant:depth=4` |" in offload.table_of(tmp_path / "found.json")
