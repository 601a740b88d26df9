"""Thirty rows on the real model: the command, its files, and the same scores as lm-eval's own model class."""

import json

import pytest

from depthsched.adapters import adapter_for
from depthsched.evaluate.prefixes import PromptStore
from depthsched.evaluate.tasks import load_tasks

pytestmark = [pytest.mark.slow]

TASKS = "gsm8k_cot,bbh_cot_fewshot_boolean_expressions"
FIELDS = ["task", "plan", "metric", "n", "score", "full", "diff", "low", "high", "p_value", "mean_depth", "speedup"]


def evaluate(lm, task, name, limit):
    from lm_eval.evaluator import evaluate

    found = evaluate(lm, {"tasks": {name: task}, "groups": {}, "group_map": {}}, limit=limit, bootstrap_iters=0)
    keys = ("doc_id", "filter", "exact_match")
    samples = sorted(found["samples"][name], key=lambda s: (s["doc_id"], s["filter"]))
    return [(*(s[k] for k in keys), s["resps"][0][0]) for s in samples]


@pytest.mark.parametrize(("name", "limit"), [("gsm8k_cot", 2), ("bbh_cot_fewshot_boolean_expressions", 3)])
def test_full_depth_is_lm_evals_own_model_class(smollm2, data, name, limit):
    """Greedy, item by item: outputs and scores, with a shared prefix and a batch here, and neither there."""
    from lm_eval.models.huggingface import HFLM

    from depthsched.evaluate.lm import DepthLM

    model, tokenizer = smollm2
    task = load_tasks([name], data, max_new_tokens=20)[name]
    want = evaluate(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1), task, name, limit)
    store = PromptStore(adapter_for(model))
    ours = DepthLM(pretrained=model, tokenizer=tokenizer, plan="full", batch_size=limit, store=store)
    assert evaluate(ours, task, name, limit) == want
    assert all(text for *_, text in want)
    assert len(store._prefixes) == 1
    assert all(set(record.depths) == {30} for record in ours.records.values())


def test_thirty_rows(cli, data, tmp_path):
    command = ["eval", "--tasks", TASKS, "--plans", "constant:depth=20", "--data", data, "-n", 12, "--batch", 15]
    command += ["--dtype", "bfloat16", "--out", tmp_path / "out", "--json"]
    first = cli(*command)
    assert first.code == 0, first.err
    result = first.json()
    assert [(r["task"], r["plan"]) for r in result["rows"] if r["metric"].endswith(("get-answer", "strict-match"))] == [
        ("gsm8k_cot", "full"),
        ("bbh_cot_fewshot_boolean_expressions", "full"),
        ("gsm8k_cot", "constant:depth=20"),
        ("bbh_cot_fewshot_boolean_expressions", "constant:depth=20"),
    ]
    for row in result["rows"]:
        assert all(row[field] is not None for field in FIELDS)
        assert (row["n"], row["mean_depth"]) == (15, 30 if row["plan"] == "full" else 20)
        assert row["verdict"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == result["rows"]
    files = sorted((tmp_path / "out" / "samples").iterdir())
    samples = [json.loads(path.read_text()) for path in files]
    assert sorted(len(s["samples"]) for s in samples) == [15] * 4
    assert all("Let's think" in s["shared"] or "Q: There are 15 trees" in s["shared"] for s in samples)
    one = next(s for s in samples if s["plan"] == "constant:depth=20" and s["task"] == "gsm8k_cot")["samples"][0]
    assert one["prompt"].startswith("Q: Mia picks 4 apples")
    assert one["depths"] == [30] + [20] * (len(one["depths"]) - 1)
    assert one["seconds"] > 0
    # Once more: everything is read, nothing is run again, and the results are the same.
    stamps = [path.stat().st_mtime_ns for path in files]
    assert cli(*command).json()["rows"] == result["rows"]
    assert [path.stat().st_mtime_ns for path in files] == stamps
