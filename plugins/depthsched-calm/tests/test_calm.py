"""Needs nothing but this plug-in and the conformance kit."""

import math
from types import SimpleNamespace

import pytest
import torch
from depthsched_calm import Calm

import depthsched as ds
from depthsched.testing import ScheduleConformance, tiny_study


class TestCalm(ScheduleConformance):
    schedule = Calm


def sure(margin):
    return SimpleNamespace(margin=margin)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("step", [0, 1, 10, 99, 100, 400])
def test_the_threshold_is_the_published_one(threshold, step):
    schedule = Calm(layers=8, threshold=threshold).for_horizon(100)
    published = 9 / 10 * threshold + 1 / 10 * math.exp(-4 * step / 100)
    assert schedule.demand(step) == pytest.approx(published)
    assert schedule.decide(step, 12, sure(published + 1e-9)) == 8
    assert schedule.decide(step, 12, sure(published - 1e-9)) == 12


def test_the_same_confidence_is_enough_later_and_not_at_first():
    schedule = Calm(layers=8, threshold=0.5, start=10).for_horizon(60)
    assert schedule.over == 50
    assert schedule.decide(0, 12, sure(0.5)) == 12
    assert schedule.decide(40, 12, sure(0.5)) == 8


def test_a_run_follows_the_confidence_of_the_token_before():
    """Against transformers: every step's depth from p1 - p2 of the logits that chose its token."""
    ids = torch.tensor([[5, 9, 20, 3]])
    with tiny_study() as study:
        run = ds.generate(
            study.adapter.model,
            {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            Calm(layers=4, threshold=0.004, tau=8.0),
            max_new_tokens=24,
            do_sample=False,
            output_logits=True,
            backend="eager",
        )
    asked = [float(top[0] - top[1]) for top in (logits[0].softmax(-1).topk(2).values for logits in run.logits)]
    depths = [step.depth for step in run.trace.steps]
    for step in range(1, len(depths)):
        demand = 0.9 * 0.004 + 0.1 * math.exp(-8 * step / 24)
        assert depths[step] == (4 if asked[step - 1] >= demand else 6)
    assert {*depths[1:]} == {4, 6}
