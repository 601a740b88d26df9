"""The table of tasks: files, packages, what is refused, and scores that are not right or wrong."""

import importlib.util
import random

import pytest

from depthsched.errors import MissingExtraError, SettingsError
from depthsched.evaluate.answers import f1, score_needle, score_xquad
from depthsched.evaluate.evaluation import Evaluation
from depthsched.evaluate.layouts import LAYOUTS, check_packages, layout_of, local_file
from depthsched.evaluate.options import EvalOptions
from depthsched.evaluate.tasks import load_tasks

from .rows import INSTRUCTIONS, write_more


@pytest.fixture
def more(data, tmp_path, monkeypatch):
    """Data of its own, and nltk's search path as it was."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    return write_more(tmp_path / "data")


@pytest.fixture
def answer(folder, more):
    """Every item of a task answered with given texts: lm-eval's scores of them."""
    from lm_eval.api.model import LM
    from lm_eval.evaluator import evaluate

    class Says(LM):
        def __init__(self, texts):
            super().__init__()
            self.texts = texts

        def generate_until(self, requests):
            return self.texts[: len(requests)]

        loglikelihood = loglikelihood_rolling = None

    def score(name, texts, **options):
        task = load_tasks([name], more, **options)[name]
        found = evaluate(Says(texts), {"tasks": {name: task}, "groups": {}, "group_map": {}}, bootstrap_iters=0)
        return sorted(found["samples"][name], key=lambda s: s["doc_id"])

    return score


def needs(task):
    missing = [name for name in layout_of(task).needs if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: pip install 'depthsched[eval]'")


def test_xquad_is_scored_by_words(answer):
    found = answer("xquad_en", ["the 1904!", "Anna", "something else"])
    assert [s["exact_match"] for s in found] == [1.0, 0.0, 0.0]
    assert [round(s["f1"], 3) for s in found] == [1.0, 0.667, 0.0]
    assert found[1]["arguments"][0][0].endswith("Question: Who built the lighthouse?\n\nAnswer:")


def test_xquad_scores_are_those_of_transformers():
    """Where it still has them, as the oldest supported transformers does."""
    theirs = pytest.importorskip(
        "transformers.data.metrics.squad_metrics", reason="this transformers has no squad_metrics"
    )
    words = ["a", "The", "cat", "cat,", "an", "sat!", "", "1904", "--"]
    draw = random.Random(0)
    for _ in range(300):
        gold, said = (" ".join(draw.choices(words, k=draw.randint(0, 5))) for _ in range(2))
        doc = {"answers": {"text": [gold]}}
        want = {"f1": theirs.compute_f1(gold, said), "exact_match": theirs.compute_exact(gold, said)}
        assert score_xquad(doc, [said]) == pytest.approx(want)


def test_f1_by_hand():
    assert f1("the red red car", "red car") == pytest.approx(2 * (1 * 2 / 3) / (1 + 2 / 3))
    assert (f1("the", "an"), f1("the", "car"), f1("car", "")) == (1.0, 0.0, 0.0)


@needs("ifeval")
def test_ifeval_scores_a_share_of_the_instructions(answer):
    texts = [
        "Red and blue and green",
        "hello to the sun, this is a lovely and warm day for everyone in the garden",
        "* a\n* b\nall done",
        "One.",
    ]
    found = answer("ifeval", texts)
    assert [s["inst_level_strict_acc"] for s in found] == [[True], [True, False], [True, True], [False]]


@needs("ifeval")
def test_a_share_is_one_number_in_records_and_rows(folder, more):
    """Two instructions on one item: 0, 1/2 or 1, as the mean of lm-eval's verdicts."""
    options = EvalOptions(str(folder), ("ifeval",), data=str(more), max_new_tokens=6, dtype="float32", backend="eager")
    evaluation = Evaluation(options)
    (run,) = evaluation.run("full")
    assert [len(ids) for _, ids, _ in INSTRUCTIONS] == [1, 2, 2, 1]
    for item, (_, ids, _) in zip(run.samples, INSTRUCTIONS, strict=True):
        assert item.scores["inst_level_strict_acc,none"] * len(ids) in range(len(ids) + 1)
    rows = {row.metric: row for row in evaluation.rows(evaluation.run("constant:depth=5"))}
    assert rows["inst_level_strict_acc,none"].paired.n == 4


@needs("ifeval")
def test_an_answer_has_one_score_however_often_it_is_scored(more):
    """lm-eval counts a letter that it draws where a row asks for another character, and an amount that is missing."""
    task = load_tasks(["ifeval"], more)["ifeval"]
    loose = {"let_relation": "at least", "letter": "#", "let_frequency": 3}
    ids = ["keywords:letter_frequency", "length_constraints:number_words"]
    doc = {"key": 1, "prompt": "Say something.", "instruction_id_list": ids, "kwargs": [loose, {}]}
    random.seed(7)
    before = random.getstate()
    said = "a few short words about very little at all " * 9
    scores = [str(task.process_results(doc, [said])) for _ in range(40)]
    assert len(set(scores)) == 1
    assert random.getstate() == before
    assert len({str(task.process_results.__wrapped__(doc, [said])) for _ in range(40)}) > 1  # what it does by itself


def test_squad_completion_reads_its_file(answer):
    found = answer("squad_completion", [" in 1904.", "nobody"])
    assert [s["contains"] for s in found] == [1, 0]
    assert found[0]["arguments"][0][0].endswith("was built in")


@needs("niah_single_1")
def test_needles_are_the_same_every_time_and_as_long_as_asked(smollm2, more):
    _, tokenizer = smollm2
    before = random.getstate()
    once, again = (
        load_tasks(["niah_single_1"], more, tokenizer=lambda: tokenizer, needle_tokens=400)["niah_single_1"].eval_docs
        for _ in range(2)
    )
    assert random.getstate() == before, "the random numbers of the process are its own"
    assert once[:] == again[:]
    assert len(once) == 500
    assert all(len(tokenizer(doc["input"])["input_ids"]) <= 400 for doc in once)
    assert once[0]["outputs"][0] in once[0]["input"]
    assert score_needle(once[0], [f" {once[0]['outputs'][0]}."]) == {"string_match": 1.0}
    assert score_needle(once[0], ["no number"]) == {"string_match": 0.0}


def test_needles_need_a_tokenizer(more):
    check = needs("niah_single_1").args[0]
    with pytest.raises(MissingExtraError if check else SettingsError, match=r"wonderwords|tokenizer of a model"):
        load_tasks(["niah_single_1"], more)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("mbpp", "executes code that the model wrote: add --confirm-run-unsafe-code"),
        ("drop", "no task 'drop' among those with local files"),
        ("bbh_cot_fewshot", "no files for the tasks of 'bbh_cot_fewshot'"),
        ("gsm8k_cot", "expected gsm8k/test.jsonl with question, answer"),
    ],
)
def test_what_cannot_be_run_is_one_line(more, task, message):
    with pytest.raises(SettingsError, match=message):
        load_tasks([task], more)


@needs("ifeval")
def test_a_missing_splitter_is_named(more, monkeypatch):
    import shutil

    shutil.rmtree(more / "nltk_data")
    with pytest.raises(SettingsError, match=r"punkt_tab: expected .*nltk_data/tokenizers/punkt_tab"):
        load_tasks(["ifeval"], more)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(MissingExtraError, match=r"'ifeval' needs langdetect, immutabledict, nltk: pip install"):
        check_packages("ifeval")


def test_a_file_may_have_any_name_and_two_are_told_apart(more):
    assert local_file("xquad_en", more).name == "some.jsonl"
    (more / "xquad" / "other.jsonl").write_text("")
    with pytest.raises(SettingsError, match=r"several files .*other.jsonl, some.jsonl; name one test.jsonl"):
        local_file("xquad_en", more)
    (more / "xquad" / "test-7.jsonl").write_text("")
    assert local_file("xquad_en", more).name == "test-7.jsonl"


def test_a_group_is_its_tasks_with_files(data):
    assert list(load_tasks(["bbh_cot_fewshot"], data)) == ["bbh_cot_fewshot_boolean_expressions"]


def test_every_layout_names_a_metric_of_its_task(more, data):
    """What pools take by default is there: the first part of the name, and the filter behind the comma."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    ours = {"f1": "xquad_en", "string_match": "niah_single_1", "contains": "squad_completion"}
    names = ["gsm8k_cot", "bbh_cot_fewshot_navigate", "bbh_zeroshot_navigate", "bbh_fewshot_navigate", "ifeval", "mbpp"]
    manager = lm_eval.tasks.TaskManager(
        include_path=[f"{lm_eval.tasks.__path__[0]}/{layout.folder}" for layout in LAYOUTS], include_defaults=False
    )
    for name in names:
        metric, _, filtered = layout_of(name).metric.partition(",")
        config = load_yaml(manager.task_index[name].yaml_path, resolve_func=False)
        assert any(str(m["metric"]).endswith(metric) for m in config["metric_list"]), name
        filters = [f["name"] for f in config.get("filter_list", [])]
        assert not filtered or filtered in filters, (name, filters)
    assert {layout_of(task).metric: task for task in ours.values()} == ours
