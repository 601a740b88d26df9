"""Full depth through `depthsched eval` is lm-eval's own model class through `lm_eval.simple_evaluate`, item by item.

``DEPTHSCHED_DATA=FOLDER pytest -m evidence -s tests/evaluate/test_full_depth.py`` compares 20 items of every task with
files there, on the embedded model in float32; an hour on one core. ``DEPTHSCHED_TASKS`` names other tasks, with commas.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import depthsched as ds
from depthsched.evaluate.evaluation import FULL, Evaluation
from depthsched.evaluate.layouts import layout_of
from depthsched.evaluate.options import EvalOptions
from depthsched.evaluate.tasks import _manager

from .rows import write_data, write_more
from .test_tasks import needs

TASKS = ("ifeval", "xquad_en", "squad_completion")
Found = dict[int, tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def every(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of ours in every layout."""
    root: Path = tmp_path_factory.mktemp("every")
    write_data(root)
    return Path(write_more(root))


def ours(options: EvalOptions) -> tuple[Any, Found]:
    """The task as lm-eval has it, and outputs and scores of its items at full depth."""
    evaluation = Evaluation(options)
    (run,) = evaluation.run(FULL)
    return evaluation.tasks[run.task], {item.doc_id: (item.output, dict(item.scores)) for item in run.samples}


def theirs(model: Any, tokenizer: Any, name: str, task: Any, limit: int) -> Found:
    """The same from lm-eval alone: its model class, its loop, one row at a time."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1)
    found = lm_eval.simple_evaluate(
        lm, tasks=[task], limit=limit, bootstrap_iters=0, task_manager=_manager(local=True)
    )["samples"]
    assert list(found) == [name]
    items: Found = {}
    for entry in found[name]:
        output, scores = items.setdefault(entry["doc_id"], (entry["resps"][0][0], {}))
        assert output == entry["resps"][0][0]
        for metric in entry["metrics"]:
            value = entry[metric]
            share = sum(map(float, value)) / len(value) if isinstance(value, list | tuple) else float(value)
            scores[f"{metric},{entry['filter']}"] = share
    return items


@pytest.mark.parametrize("name", [pytest.param(task, marks=needs(task)) for task in TASKS])
def test_every_layout_gives_what_lm_eval_gives(name: str, folder: Path, every: Path) -> None:
    limit = 3
    options = EvalOptions(
        str(folder), (name,), str(every), limit, max_new_tokens=8, dtype="float32", device="cpu", batch=2,
        needle_tokens=400,
    )  # fmt: skip
    task, got = ours(options)
    model, tokenizer = ds.load_model(str(folder), dtype="float32", device="cpu")
    want = theirs(model, tokenizer, name, task, limit)
    assert got == want
    assert len(got) == min(limit, len(task.eval_docs))
    assert all(output for output, _ in got.values())
    metric = layout_of(name).metric  # type: ignore[union-attr]
    assert all(any(key.startswith(metric) for key in scores) for _, scores in got.values())


REAL = "gsm8k_cot,bbh_cot_fewshot_date_understanding,bbh_cot_fewshot_sports_understanding,ifeval,xquad_en,niah_single_1"


@pytest.mark.evidence
@pytest.mark.skipif("DEPTHSCHED_DATA" not in os.environ, reason="DEPTHSCHED_DATA=FOLDER says where the data is")
@pytest.mark.parametrize("name", os.environ.get("DEPTHSCHED_TASKS", REAL).split(","))
def test_the_embedded_model_gives_what_lm_eval_gives(name: str) -> None:
    limit = 20
    options = EvalOptions(
        "smollm2", (name,), os.environ["DEPTHSCHED_DATA"], limit, max_new_tokens=64, dtype="float32", device="cpu",
        weights="dense", batch=5,
    )  # fmt: skip
    task, got = ours(options)
    model, tokenizer = ds.load_model("smollm2", dtype="float32", device="cpu", weights="dense")
    want = theirs(model, tokenizer, name, task, limit)
    parted = sorted(item for item in want if got[item] != want[item])
    print(f"{name}: {len(want)} items, {len(parted)} unlike lm-eval's {parted}")
    assert (got, len(got)) == (want, limit)
