"""Pools on the command line and on tiny models: what is asked, what is run, what is kept."""

import json

import pytest

from depthsched.errors import SettingsError
from depthsched.evaluate.evaluation import Evaluation
from depthsched.evaluate.options import EvalOptions
from depthsched.evaluate.pools import Pool, until_decided
from depthsched.evaluate.tasks import load_tasks
from depthsched.planspec import PlanSpec

from .rows import write_more

BBH, GSM = "bbh_cot_fewshot_boolean_expressions", "gsm8k_cot"
TASKS = (BBH, "xquad_en")
OPTIONS = {"max_new_tokens": 6, "dtype": "float32", "backend": "eager", "batch": 2}


@pytest.fixture(scope="module")
def both(data, tmp_path_factory):
    """Rows of BBH, GSM8K and xquad in one folder."""
    folder = write_more(tmp_path_factory.mktemp("both"))
    for name in ("bbh", "gsm8k"):
        (folder / name).symlink_to(data / name)
    return folder


def test_a_pool_names_tasks_metrics_and_weights(both):
    tasks = load_tasks([BBH, GSM, "xquad_en"], both)
    pool = Pool.parse("all", tasks)
    assert set(pool.weights.values()) == {1 / 3}
    assert pool.metrics == {
        BBH: "exact_match,get-answer", GSM: "exact_match,flexible-extract", "xquad_en": "f1,none",
    }  # fmt: skip
    pool = Pool.parse("bbh_*=3, xquad_en/exact_match", tasks)
    assert pool.weights == {BBH: 0.75, "xquad_en": 0.25}
    assert pool.metrics["xquad_en"] == "exact_match,none"
    assert Pool.parse("gsm8k_cot/strict-match", tasks).metrics == {GSM: "exact_match,strict-match"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ifeval", "'ifeval', which is none of the tasks"),
        ("xquad_en,xquad_en=2", "twice"),
        ("xquad_en=0", "positive number"),
        ("xquad_en=much", "positive number"),
        ("xquad_en/f2", "has no metric 'f2'; write xquad_en/METRIC with one part of exact_match/none, f1/none"),
        ("gsm8k_cot/exact_match", "has several metrics"),
    ],
)
def test_wrong_pools_are_refused_before_anything_runs(both, text, message):
    tasks = load_tasks([GSM, "xquad_en"], both)
    with pytest.raises(SettingsError, match=message):
        Pool.parse(text, tasks)


def test_until_runs_drawn_items_and_keeps_them(folder, both, tmp_path):
    """Stopped and begun again: the same answer, no item twice; a second plan pays for no answer of full depth."""
    options = EvalOptions(str(folder), TASKS, data=str(both), **OPTIONS)
    plan, other = PlanSpec.parse("constant:depth=5"), PlanSpec.parse("constant:depth=6")
    first = Evaluation(options, tmp_path)
    pool = Pool.parse("all", first.tasks)
    found, runs = until_decided(first, plan, pool)
    assert found.decision == "undecided"  # three questions and fifteen expressions show nothing
    assert found.n == sum(len(run.samples) for run in runs)
    assert len(runs[[run.task for run in runs].index("xquad_en")].samples) == 3, "one task is used up"
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "samples").iterdir()}
    again, _ = until_decided(Evaluation(options, tmp_path), plan, pool)
    assert again == found
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "samples").iterdir()} == stamps
    until_decided(Evaluation(options, tmp_path), other, pool)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "samples").iterdir()}
    assert stamps.items() <= after.items()
    assert len(after) == len(stamps) + 2


def test_items_in_pieces_are_the_items_in_one(folder, both):
    """As three and the rest, or all at once: the same texts, scores and prompts, and the examples computed once."""
    options = EvalOptions(str(folder), (BBH,), data=str(both), limit=6, **OPTIONS)
    whole, pieces = Evaluation(options), Evaluation(options)
    want = whole.run("constant:depth=5")[0]
    pieces.run("constant:depth=5", items={BBH: [4, 1, 2]})
    *_, store = pieces._load()
    assert len(store._prefixes) == 1
    pieces.run("constant:depth=5", items={BBH: [5]})
    got = pieces.run("constant:depth=5")[0]
    assert len(store._prefixes) == 1
    seen = [(i.doc_id, want.shared + i.prompt, i.output, i.scores, i.depths) for i in want.samples]
    assert [(i.doc_id, got.shared + i.prompt, i.output, i.scores, i.depths) for i in got.samples] == seen
    (row,) = pieces.rows([got])
    assert row.paired == whole.rows([want])[0].paired


def test_the_command_says_what_it_found(cli, folder, both, tmp_path):
    command = ["eval", "--tasks", ",".join(TASKS), "--plans", "constant:depth=5", "--data", both, "--model", folder]
    command += ["-n", 6, "--dtype", "float32", "--backend", "eager", "--out", tmp_path / "out"]
    fixed = cli(*command, "--pool", "xquad_en=3,bbh*", "--margin", 2.5, "--json").json()
    (one,) = fixed["pooled"]
    assert (one["method"], one["margin"], one["n"], one["decision"]) == ("bootstrap", 0.025, 18, "undecided")
    assert one["weights"] == {"xquad_en": 0.75, BBH: 0.25}
    assert "within 2.5 points at 95%: undecided, needs about" in one["verdict"]
    assert "--pool 'xquad_en=3,bbh*' --margin 2.5" in fixed["context"]["command"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["pooled"] == fixed["pooled"]
    shown = cli(*command, "--until", "decided")
    assert shown.code == 0, shown.err
    assert (
        "pool, by weight: bbh_cot_fewshot_boolean_expressions exact_match/get-answer 0.5, xquad_en f1 0.5" in shown.out
    )
    assert "hold at all looks" in shown.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--margin", 1], "goes with --pool or --until"),
        (["--pool", "all", "--margin", 0], "between 0 and 100"),
        (["--until", "bored"], "the only word it knows is decided"),
        (["--pool", "all", "--plans", "full"], "give one with --plans"),
        (["--needle-tokens", 9], "needle_tokens 9"),
        (["--needle-tokens", 512], "none of the tasks makes any"),
        (["--tasks", f"xquad_en,{BBH}", "--pool", "xquad_en", "--until", "decided"], f"pool {BBH} too"),
    ],
)
def test_what_does_not_fit_together_is_one_line(cli, both, args, message):
    given = {"--tasks": "xquad_en", "--plans": "d3"}
    missing = [word for pair in given.items() if pair[0] not in args for word in pair]
    done = cli("eval", "--data", both, *missing, *args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
