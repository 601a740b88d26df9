"""Depth plans: keep sets, costs, JSON, digest, picture."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched.errors import PlanError, ScheduleError, SettingsError, UnknownNameError
from depthsched.signals import Signals

from .strategies import plans


@given(plans())
def test_keep_sets_follow_the_depths(plan):
    core = set(range(plan.num_layers)) - set(plan.drop_order)
    assert len(core) == plan.core_size
    for step in range(plan.horizon):
        keep = plan.keep(step)
        assert len(keep) == plan.depth(step) == plan.depths[step]
        assert core <= set(keep)
    assert plan.keep(0) == tuple(range(plan.num_layers))
    assert plan.keep(plan.horizon + 100) == plan.keep(plan.horizon - 1)
    assert set(plan.depths) <= set(plan.keep_sets)


@given(plans())
def test_nested_means_each_step_runs_a_subset_of_the_step_before(plan):
    sets = [set(plan.keep(i)) for i in range(plan.horizon)]
    subset = all(later <= earlier for earlier, later in pairwise(sets))
    assert plan.nested == (subset and not plan.adaptive)
    assert plan.monotone == plan.nested


@given(plans())
def test_json_round_trip(plan):
    text = json.dumps(plan.to_json())
    again = ds.DepthPlan.from_json(text)
    assert again == plan
    assert hash(again) == hash(plan)
    assert again.digest == plan.digest
    assert again.to_json() == plan.to_json()
    assert again.decider == plan.decider
    assert again.keep_sets == plan.keep_sets


@given(plans(max_layers=8, max_horizon=6), st.data())
def test_a_truncated_or_edited_plan_is_refused_or_consistent(plan, data):
    text = json.dumps(plan.to_json())
    with pytest.raises(PlanError, match="not a depth plan"):
        ds.DepthPlan.from_json(text[: data.draw(st.integers(0, len(text) - 1))])
    edited = plan.to_json()
    key = data.draw(st.sampled_from(sorted(edited)))
    edited[key] = data.draw(st.sampled_from([None, -1, 0, 3, "x", [], [0], [9, 9], {}, [[1]], 1e400]))
    try:
        read = ds.DepthPlan.from_json(edited)
    except (PlanError, UnknownNameError):
        return
    assert len(read.depths) == read.horizon
    assert read.depths[0] == read.num_layers == max(read.depths)
    assert min(read.depths) >= read.core_size


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depths": [8, 7]}, "3 steps has 2 depths"),
        ({"depths": [7, 7, 7]}, "prefill"),
        ({"depths": [8, 9, 7]}, "between 4 and 8"),
        ({"depths": [8, 3, 3]}, "between 4 and 8"),
        ({"depths": [8, 7.5, 7]}, "not a depth plan"),
        ({"drop_order": [3, 3]}, "distinct"),
        ({"drop_order": [8]}, "distinct layers of the model"),
        ({"horizon": 0, "depths": []}, "0 steps"),
        ({"schedule": "d3", "adaptive": True}, "adaptive"),
    ],
)
def test_an_inconsistent_plan_is_refused(change, words):
    good = ds.plan("constant:depth=6", num_layers=8, horizon=3).to_json()
    with pytest.raises(PlanError) as caught:
        ds.DepthPlan.from_json({**good, **change})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_without_a_field_is_refused():
    good = ds.plan("constant:depth=6", num_layers=8, horizon=3).to_json()
    for key in ("schedule", "order", "num_layers", "horizon", "depths", "drop_order"):
        with pytest.raises(PlanError, match=key):
            ds.DepthPlan.from_json({k: v for k, v in good.items() if k != key})
    with pytest.raises(UnknownNameError, match="nosuch"):
        ds.DepthPlan.from_json({**good, "schedule": "nosuch", "adaptive": True})
    for other in ("[]", "3", '"text"', "null", ""):
        with pytest.raises(PlanError, match="not a depth plan"):
            ds.DepthPlan.from_json(other)


def test_digest_is_stable_and_names_what_runs():
    plan = ds.plan("d3:alpha=0.9", num_layers=8, horizon=6)
    assert plan.digest == "dcdf378320067ec4"
    assert plan.digest == ds.plan("d3:alpha=0.9,start=0", "middle-out:head=2", num_layers=8, horizon=6).digest
    others = [
        ds.plan("d3:alpha=0.8", num_layers=8, horizon=6),
        ds.plan("d3:alpha=0.9", "strided", num_layers=8, horizon=6),
        ds.plan("d3:alpha=0.9", num_layers=9, horizon=6),
        ds.plan("d3:alpha=0.9", num_layers=8, horizon=7),
        ds.plan("confidence:depth=6", num_layers=8, horizon=6),
        ds.plan("confidence:depth=6,margin=0.1", num_layers=8, horizon=6),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 7


def test_the_plan_says_when_the_core_clips_it():
    plan = ds.plan("constant:depth=2", "middle-out:head=3,tail=1", num_layers=8, horizon=3)
    assert plan.depths == (8, 4, 4)
    assert plan.core_size == 4
    assert plan.notes == ("depth clipped from 2 to 4: order middle-out:head=3,tail=1 keeps 4 core layers",)
    assert ds.plan("constant:depth=4", "middle-out:head=3,tail=1", num_layers=8, horizon=3).notes == ()


def test_what_the_spec_says_after_the_at_sign_wins():
    plan = ds.plan("constant:depth=4@early-exit:head=2", "strided", num_layers=8, horizon=3)
    assert plan.order == "early-exit:head=2"
    assert plan.keep(1) == (0, 1, 2, 3)
    assert ds.plan("constant:depth=4", num_layers=8).order == "middle-out"


def test_mean_depth_and_layer_speedup_count_decode_steps_only():
    plan = ds.plan("step:at=1+3,drop=2+4", "early-exit", num_layers=8, horizon=5)
    assert plan.depths == (8, 6, 6, 4, 4)
    assert plan.mean_depth == 5.0
    assert plan.layer_speedup == 1.6
    assert ds.plan("constant:depth=4", num_layers=8, horizon=1).mean_depth == 8.0


SHAPE = ds.ModelShape(
    num_layers=4,
    layer_params=100,
    head_params=50,
    kv_values=6,
    attention_width=8,
    kv_params=30,
    weight_bytes=2,
    kv_bytes=4,
)


def test_costs_by_hand():
    """Prompt 10, decode steps read 11, 12 tokens; depths 3 and 2 of 4."""
    plan = ds.plan("step:at=1+2,drop=1+2", "early-exit", num_layers=4, horizon=3)
    assert plan.depths == (4, 3, 2)
    full = 2 * (2 * (400 + 50)) + 4 * 6 * 4 * (11 + 12)  # weights twice, then K and V of four layers
    run = 2 * (300 + 50) + 3 * 11 * 6 * 4 + 2 * (200 + 50) + 2 * 12 * 6 * 4
    assert plan.bytes_speedup(SHAPE, 10) == pytest.approx(full / run, rel=1e-12)
    batch_full = 2 * (2 * (400 + 50)) + 3 * 4 * 6 * 4 * (11 + 12)
    batch_run = 2 * (300 + 50) + 2 * (200 + 50) + 3 * (3 * 11 + 2 * 12) * 6 * 4
    assert plan.bytes_speedup(SHAPE, 10, batch=3) == pytest.approx(batch_full / batch_run, rel=1e-12)
    flops_full = 2 * 2 * 450 + 4 * 4 * 8 * (11 + 12)
    flops_run = 2 * 350 + 3 * 4 * 8 * 11 + 2 * 250 + 2 * 4 * 8 * 12
    assert plan.flops_speedup(SHAPE, 10) == pytest.approx(flops_full / flops_run, rel=1e-12)


def test_a_plan_that_writes_skipped_kv_pays_for_it():
    """A confident run at depth 3 of 4 writes K and V of one layer: 30 weights and 6 values of 4 bytes."""
    plan = ds.plan("confidence:depth=3", "early-exit", num_layers=4, horizon=2)
    assert not plan.nested
    full = 2 * 450 + 4 * 6 * 4 * 11
    run = 2 * (350 + 30) + (3 * 11 + 1) * 6 * 4
    assert plan.bytes_speedup(SHAPE, 10) == pytest.approx(full / run, rel=1e-12)


def test_full_depth_saves_nothing():
    plan = ds.plan("full", num_layers=4, horizon=9)
    assert plan.layer_speedup == plan.bytes_speedup(SHAPE, 3) == plan.flops_speedup(SHAPE, 3) == 1.0


@given(plans(), st.integers(1, 100))
def test_the_picture_is_one_line_no_wider_than_asked(plan, width):
    text = plan.to_text(width)
    assert len(text) == min(width, plan.horizon)
    assert set(text) <= set("▁▂▃▄▅▆▇█")
    if plan.monotone:
        assert text == "".join(sorted(text, reverse=True))


def test_the_picture_by_hand():
    assert ds.plan("step:at=1+2,drop=4+7", "early-exit", num_layers=8, horizon=4).to_text() == "█▅▂▂"
    assert ds.plan("step:at=1+2,drop=4+7", "early-exit", num_layers=8, horizon=4).to_text(2) == "▇▂"


@given(st.integers(1, 8), st.floats(0, 1))
def test_an_adaptive_plan_decides_within_its_keep_sets(depth, seen):
    plan = ds.plan(f"confidence:depth={depth},start=2", num_layers=8, horizon=10)
    signals = Signals(margin=seen)
    assert plan.decide(1, signals) == 8
    chosen = plan.decide(5, signals)
    assert chosen == (8 if seen < 0.5 else max(depth, 4))
    assert chosen in plan.keep_sets
    assert plan.decide(5, None) == plan.depth(5)


class Rising(ds.DepthSchedule):
    """Rises although it does not say so."""

    def depth(self, step, num_layers):
        return step + 1


class Text(ds.DepthSchedule):
    def depth(self, step, num_layers):
        return "deep"


class Short(ds.DepthSchedule):
    def depth(self, step, num_layers):
        return [1, 2]


class Undefined(ds.DepthSchedule):
    def depth(self, step, num_layers):
        return step * math.nan


class NotFull(ds.DepthSchedule):
    starts_full = True

    def depth(self, step, num_layers):
        return num_layers - 1


class Empty(ds.DepthSchedule):
    pass


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Rising(), "declared monotone but rises from 2 to 3 at step 2"),
        (Text(), "returned"),
        (Short(), "shape (2,) for the single step 0"),
        (Undefined(), "returned nan at step 0"),
        (NotFull(), "starts_full"),
        (Empty(), "does not define depth"),
    ],
)
def test_a_schedule_that_misbehaves_is_refused_by_name(schedule, words):
    with pytest.raises(ScheduleError) as caught:
        ds.plan(schedule, num_layers=8, horizon=6)
    assert words in str(caught.value)
    assert repr(schedule.name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"schedule": "d3", "num_layers": 0}, PlanError),
        ({"schedule": "d3", "num_layers": 4, "horizon": 0}, PlanError),
        ({"schedule": "d3", "num_layers": 4, "horizon": 10**8}, PlanError),
        ({"schedule": 5, "num_layers": 4}, PlanError),
        ({"schedule": "d3:min_depth=5", "num_layers": 4}, SettingsError),
        ({"schedule": "d3@list:layers=4", "num_layers": 4}, SettingsError),
    ],
)
def test_plans_that_cannot_be(arguments, error):
    with pytest.raises(error):
        ds.plan(**arguments)


def test_negative_steps_are_refused():
    with pytest.raises(PlanError, match="negative"):
        ds.plan("full", num_layers=4).depth(-1)
