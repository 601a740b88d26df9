"""The model class and the tasks, on tiny models and our own rows."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from depthsched.adapters import adapter_for
from depthsched.errors import MissingExtraError, PlanError, SettingsError
from depthsched.evaluate.evaluation import Evaluation, evaluate_cell
from depthsched.evaluate.options import EvalOptions
from depthsched.evaluate.stops import RowStops
from depthsched.evaluate.tasks import _manager, load_tasks, local_file
from depthsched.planspec import PlanSpec

TASK = "bbh_cot_fewshot_boolean_expressions"
OPTIONS = {"max_new_tokens": 12, "limit": 6, "dtype": "float32"}


def outputs(runs):
    return [(s.doc_id, s.output, s.scores) for s in runs[0].samples]


@pytest.mark.parametrize("plan", ["full", "d3:alpha=0.9", "confidence:depth=5"])
def test_batch_prefix_and_backend_change_no_output(folder, data, plan):
    """Batched with a shared prefix, one by one, and compiled: the same texts and scores, item by item."""
    base = {"data": data, **OPTIONS}
    want = Evaluation(EvalOptions(str(folder), (TASK,), backend="eager", batch=1, **base)).run(plan)
    assert len({output for _, output, _ in outputs(want)}) > 1
    for backend, batch in (("eager", 4), ("compiled", 1), ("compiled", 3)):
        got = Evaluation(EvalOptions(str(folder), (TASK,), backend=backend, batch=batch, **base)).run(plan)
        assert outputs(got) == outputs(want)
        assert [s.depths for s in got[0].samples] == [s.depths for s in want[0].samples]


def test_plans_share_the_prompts(folder, data):
    evaluation = Evaluation(EvalOptions(str(folder), (TASK,), data=data, batch=3, **OPTIONS))
    evaluation.run("full")
    *_, store = evaluation._load()
    tokens = store.tokens
    evaluation.run("constant:depth=5")
    assert store.tokens == tokens > 0


def test_a_cell_is_json_and_pairs_with_full_depth(folder, data):
    cell = evaluate_cell(
        EvalOptions(str(folder), (TASK,), data=data, backend="eager", batch=3, **OPTIONS),
        PlanSpec.parse("constant:depth=5"),
    )
    assert json.loads(json.dumps(cell)) == json.loads(json.dumps(cell))
    (row,) = cell["rows"]
    assert (row["task"], row["n"], row["mean_depth"]) == (TASK, 6, 5.0)
    assert len(cell["samples"]) == 6
    full = evaluate_cell(
        EvalOptions(str(folder), (TASK,), data=data, backend="eager", batch=3, **OPTIONS), PlanSpec.parse("full")
    )
    assert full["rows"][0]["diff"] == 0.0
    assert full["rows"][0]["score"] == row["full"]


def test_what_a_plan_changed_is_kept_with_its_run(folder, data, tmp_path):
    options = {**OPTIONS, "limit": 1, "max_new_tokens": 4, "data": data, "backend": "eager"}
    for _ in ("run", "read from its file"):
        evaluation = Evaluation(EvalOptions(str(folder), (TASK,), **options), tmp_path)
        (row,) = evaluation.rows(evaluation.run("constant:depth=40"))
        assert row.notes == ("depth clipped from 40 to 8: the model has 8 layers",)
        assert row.to_json()["plan"] == "constant:depth=40"


def test_lm_eval_finds_the_model_by_name(folder, data):
    """As a user of lm-eval would: its simple_evaluate, our name, a plan with settings."""
    from lm_eval import simple_evaluate

    from depthsched.evaluate import register

    register()
    register()  # twice is once
    file = str(local_file(TASK, data))
    kwargs = {"data_files": {"test": file}, "field": "examples"}
    local = {"task": TASK, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs}
    found = simple_evaluate(
        model="depthsched",
        model_args={"pretrained": str(folder), "plan": "d3:alpha=0.9,start=2"},
        tasks=[{"group": "local", "task": [local]}],
        task_manager=_manager(local=True),
        gen_kwargs={"max_gen_toks": 12},
        batch_size=3,
        limit=6,
        bootstrap_iters=0,
    )
    got = [(s["doc_id"], s["resps"][0][0]) for s in found["samples"][TASK]]
    ours = Evaluation(EvalOptions(str(folder), (TASK,), data=data, batch=3, **OPTIONS)).run("d3:alpha=0.9,start=2")
    assert got == [(s.doc_id, s.output) for s in ours[0].samples]


def test_lm_evals_command_line_knows_the_model(folder, data, tmp_path):
    """In a process of its own, as a user would: nothing said about a device, a plan with commas."""
    kwargs = {"data_files": {"test": str(local_file(TASK, data))}, "field": "examples"}
    task = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": kwargs,
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "Q: {{input}}\nA:",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"max_gen_toks": 6, "until": ["\n"], "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(task))  # JSON is YAML
    arguments = json.dumps({"pretrained": str(folder), "plan": "d3:alpha=0.9,start=2"})
    command = [sys.executable, "-m", "depthsched.evaluate", "run", "--model", "depthsched", "--model_args", arguments]
    command += ["--tasks", str(tmp_path / "mine.yaml"), "--limit", "3", "--output_path", str(tmp_path / "out")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = (tmp_path / "out").rglob("results_*.json")
    result = json.loads(found.read_text())
    assert result["config"]["model"] == "depthsched"
    assert "exact_match,none" in result["results"]["mine"]


def test_log_likelihood_is_refused_with_the_reason(folder):
    from depthsched.evaluate.lm import DepthLM

    lm = DepthLM(pretrained=str(folder))
    for method in (lm.loglikelihood, lm.loglikelihood_rolling):
        with pytest.raises(PlanError, match="decode schedule never acts"):
            method([])


def test_log_likelihood_tasks_are_refused_by_name(tmp_path, data, monkeypatch):
    """A multiple-choice task over our rows, as lm-eval would load it."""
    from depthsched.evaluate import tasks

    (tmp_path / "choice.yaml").write_text(
        "task: bbh_choice_boolean_expressions\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        "doc_to_text: '{{input}}'\ndoc_to_target: '{{target}}'\ndoc_to_choice: ['True', 'False']\n"
        "metric_list:\n  - metric: acc\n"
    )
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr(tasks, "_manager", lambda **_: manager)
    with pytest.raises(SettingsError, match=r"'bbh_choice_boolean_expressions' \(multiple_choice\) is refused"):
        load_tasks(["bbh_choice_boolean_expressions"], data)


def test_patterns_match_the_files_at_hand(data):
    assert list(load_tasks(["bbh_cot_fewshot_*"], data)) == [TASK]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["gsm8k_cto"], "lm-eval has no task 'gsm8k_cto'"),
        (["bbh_cot_fewshot_navigate"], "expected bbh/navigate.json"),
        ([], "no task given"),
    ],
)
def test_wrong_tasks_are_refused(data, tasks, message):
    with pytest.raises(SettingsError, match=message):
        load_tasks(tasks, data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not in the layout"),
        ('{"examples": []}', "has no rows"),
        ('{"examples": [{"input": "a"}]}', "row 0 lacks"),
    ],
)
def test_files_in_another_layout_are_refused(tmp_path, data, text, message):
    (tmp_path / "bbh").mkdir()
    (tmp_path / "bbh" / "boolean_expressions.json").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_tasks([TASK], tmp_path)


def test_without_lm_eval_the_error_names_the_extra(cli, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "lm_eval" else find(name, *a))
    done = cli("eval", "--tasks", "gsm8k_cot")
    assert (done.code, done.out) == (2, "")
    assert "pip install 'depthsched[eval]'" in done.err
    assert done.err.count("\n") == 1
    with pytest.raises(MissingExtraError):
        load_tasks(["gsm8k_cot"])
    findings = {row["name"]: row for row in cli("doctor", "--json").json()["rows"]}
    assert not findings["extra eval"]["ok"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plans", "d4"], "did you mean"),
        (["--batch", 0], "batch 0 must be at least 1"),
        (["--limit", 0], "limit 0"),
        (["-n", 1], "max_new_tokens 1"),
        (["--data", "nowhere"], "no file for task"),
    ],
)
def test_bad_input_is_one_line(cli, data, args, message):
    given = [] if "--data" in args else ["--data", data]
    done = cli("eval", "--tasks", TASK, *given, *args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_rows_stop_at_texts_and_at_the_end_token(smollm2):
    """Against the definition: the first step whose whole text holds a stop, or that ends in the end token."""
    _, tokenizer = smollm2
    texts = ["The answer is 5.\n\nQ: more", "no stop here at all, only words", "ends<|im_end|> and more"]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    width = max(map(len, rows)) + 2
    ids = torch.tensor([[9, 9, *row, *([tokenizer.encode(" x")[0]] * (width - len(row)))] for row in rows])
    stops = RowStops(tokenizer, ["Q:", "", "</s>"], [tokenizer.eos_token_id], 2)
    for end in range(3, ids.shape[1] + 1):
        done = stops(ids[:, :end], None)
    want = []
    for row in ids[:, 2:].tolist():
        hits = (
            n
            for n in range(1, len(row) + 1)
            if "Q:" in tokenizer.decode(row[:n]) or row[n - 1] == tokenizer.eos_token_id
        )
        want.append(next(hits, 0))
    assert stops.lengths == want
    assert done.tolist() == [True, False, True]


def test_store_follows_the_adapter(folder):
    from depthsched.evaluate.lm import DepthLM

    lm = DepthLM(pretrained=str(folder), plan="confidence:depth=5", batch_size=8)
    assert lm.batch_size == 1, "an adaptive plan decides for each row alone"
    assert lm.adapter.num_layers == adapter_for(lm.model).num_layers


@pytest.mark.parametrize(("rules", "seen"), [({"renew": 4}, {5, 8}), ({"verify_below": 2e-4}, {5, 5 + 8})])
def test_renewed_caches_change_with_neither_batch_nor_backend(folder, data, rules, seen):
    """A cache over a shared prefix is not cut; one of its own is. A checked token counts both of its passes."""
    base = {"data": data, **OPTIONS, "limit": 3, **rules}
    want = Evaluation(EvalOptions(str(folder), (TASK,), backend="eager", batch=1, **base)).run("constant:depth=5")
    depths = {depth for s in want[0].samples for depth in s.depths[1:]}
    assert depths == seen
    got = Evaluation(EvalOptions(str(folder), (TASK,), backend="compiled", batch=3, **base)).run("constant:depth=5")
    assert outputs(got) == outputs(want)
    assert [s.depths for s in got[0].samples] == [s.depths for s in want[0].samples]


def test_rules_are_part_of_what_is_kept_for_a_plan_and_not_for_full_depth(data):
    plain, checked = (EvalOptions("m", (TASK,), data=data, verify_below=v) for v in (None, 0.2))
    full, plan = PlanSpec.parse("full"), PlanSpec.parse("constant:depth=5")
    assert plain.key(TASK, full) == checked.key(TASK, full)
    assert plain.key(TASK, plan) != checked.key(TASK, plan)
    assert not {"skipped_kv", "verify_below", "renew"} & plain.key(TASK, plan).keys()
