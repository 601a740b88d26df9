"""Scores of plans whose cache is renewed: the logits and passes are those of a run of ``ds.generate``."""

from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.errors import PlanError
from depthsched.runtime.renewal import Renewal
from depthsched.score import Sample, score

from ..runtime.helpers import UpAndDown
from ..tiny import LAYERS, prompt, tiny

STEPS = 10


@pytest.mark.parametrize(
    ("spec", "rules"),
    [
        ("constant:depth=5", {"verify_below": 0.02}),
        ("constant:depth=5", {"renew": 3}),
        ("confidence:depth=5,margin=0.02", {}),
        (UpAndDown(), {}),
    ],
)
def test_teacher_forcing_a_run_on_itself(spec: Any, rules: dict[str, Any]) -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(1, 6)
    plan = ds.plan(spec, num_layers=LAYERS, horizon=STEPS)
    run = ds.generate(model, inputs, plan, max_new_tokens=STEPS, skipped_kv="recompute", output_logits=True, **rules)
    sample = Sample(tuple(inputs["input_ids"][0].tolist()), tuple(run.tokens[0].tolist()))
    renewal = Renewal(rules.get("verify_below", 0.0), rules.get("renew", 0))
    [found] = score(model, [plan], [sample], renewal=renewal)
    assert found.method == "step-by-step"
    assert found.renewal == str(renewal)
    assert found.mean_depth == pytest.approx(run.trace.mean_depth)
    assert found.bytes_speedup == pytest.approx(run.bytes_speedup)
    assert run.logits is not None
    nll = [-torch.log_softmax(one[0], -1)[t] for one, t in zip(run.logits[1:], sample.completion[1:], strict=True)]
    assert found.nll.mean == pytest.approx(float(torch.stack(nll).mean()), abs=1e-5)


def test_nested_plans_without_a_rule_are_scored_in_one_pass() -> None:
    model = tiny("llama", "sdpa")
    plan = ds.plan("d3:alpha=0.9", num_layers=LAYERS, horizon=STEPS)
    rows = [Sample((3, 4, 5), tuple(range(6, 14)))]
    with_, without = score(model, [plan], rows, renewal=Renewal())[0], score(model, [plan], rows)[0]
    assert with_.method == "staircase"
    assert with_.renewal == ""
    assert with_.kl == without.kl
    checked = score(model, [plan], rows, renewal=Renewal(verify_below=1.0))[0]
    assert checked.kl.mean < 1e-6
    assert checked.renewal == "recompute, tokens below 1 checked"
    with pytest.raises(PlanError, match="has no staircase"):
        score(model, [plan], rows, renewal=Renewal(every=3), method="staircase")
