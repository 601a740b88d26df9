"""The passes of the oracle give what single steps of the runtime give."""

import dataclasses
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.errors import PlanError
from depthsched.oracle import Answer, answers_of, best, oracle_depths
from depthsched.oracle.depths import all_depths
from depthsched.oracle.result import mean, ranges, trend
from depthsched.planspec import PlanSpec
from depthsched.runtime.eager import EagerBackend
from depthsched.score import Sample, score
from depthsched.score.onestep import OneStep, first_change
from depthsched.score.staircase import Staircase

from ..score.test_staircase import ORDERS, bridged, samples, some_bridges, step_by_step
from ..tiny import LAYERS, VARIANTS, tiny


def reaching(order: str) -> ds.DepthPlan:
    return all_depths(PlanSpec.parse("full", order), LAYERS)


@torch.no_grad()
def single_steps(model: Any, plan: ds.DepthPlan, sample: Sample, depth: int, bridges: Any) -> torch.Tensor:
    """Each step after a prefill of everything before it: only the step itself is shallow."""
    rows, text = [], [*sample.prompt, *sample.completion]
    with EagerBackend(adapter_for(model), bridged(plan, bridges)) as engine:
        for step in range(1, len(sample.completion)):
            before = torch.tensor([text[: len(sample.prompt) + step - 1]])
            cache = DynamicCache(config=model.config)
            _, decoder = engine.prefill(before, torch.ones_like(before), cache)
            rows.append(decoder.step(torch.tensor(text[before.shape[1] :][:1]), depth)[0])
    return torch.stack(rows)


@torch.no_grad()
def worst(model: Any, plan: ds.DepthPlan, rows: list[Sample], bridges: Any, depths: Any) -> float:
    """The largest difference of the logits between one pass a depth and single steps."""
    adapter, staircase = adapter_for(model), Staircase(adapter_for(model), rows)
    fresh = OneStep(staircase, range(LAYERS))
    found = 0.0
    for depth in depths:
        states = fresh.run(plan.keep_sets[depth], bridges.get(depth))
        for i, row in enumerate(rows):
            mine = adapter.logits(states[i][staircase.valid[i]])
            found = max(found, float((mine - single_steps(model, plan, row, depth, bridges)).abs().max()))
    return found


@settings(max_examples=15)
@given(
    order=st.sampled_from(ORDERS),
    lengths=st.lists(st.tuples(st.integers(1, 6), st.integers(2, 7)), min_size=1, max_size=3),
    with_bridges=st.booleans(),
    attn=st.sampled_from(["eager", "sdpa"]),
    data=st.data(),
)
def test_one_pass_equals_single_steps(
    order: str, lengths: list[tuple[int, int]], with_bridges: bool, attn: str, data: Any
) -> None:
    plan = reaching(order)
    depth = data.draw(st.sampled_from(sorted(plan.keep_sets)))
    bridges = some_bridges(plan, 32) if with_bridges else {}
    assert worst(tiny("llama", attn), plan, samples(lengths), bridges, [depth]) < 1e-4


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_family(variant: str) -> None:
    plan = reaching("middle-out:head=1,tail=1")
    assert worst(tiny(variant, "sdpa"), plan, samples([(3, 5), (6, 2)]), some_bridges(plan, 32), [5]) < 1e-4


def test_a_pass_needs_the_states_where_it_begins() -> None:
    plan = reaching("list:layers=3+4")
    fresh = OneStep(Staircase(adapter_for(tiny("llama")), samples([(3, 4)])), [4])
    with pytest.raises(PlanError, match="enter layer 3 were not kept"):
        fresh.run(plan.keep_sets[7])
    assert torch.equal(fresh.run(range(LAYERS)), fresh.full)


def test_where_a_pass_begins() -> None:
    assert first_change(range(8), (), 8) is None
    assert first_change([0, 1, 2, 4, 5, 6, 7], (), 8) == 3
    assert first_change([0, 1, 2, 4, 5, 6, 7], (2, 5), 8) == 2
    assert first_change(range(8), (8,), 8) == 7


@settings(max_examples=6)
@given(order=st.sampled_from(ORDERS), with_bridges=st.booleans(), seed=st.integers(0, 99))
def test_answers_are_those_of_step_by_step_decoding(order: str, with_bridges: bool, seed: int) -> None:
    model, rows = tiny("llama", "sdpa"), samples([(3, 6), (5, 3)], seed)
    plan = reaching(order)
    bridges = some_bridges(plan, 32) if with_bridges else {}
    found = {row[0].sample: row[0] for row in answers_of(adapter_for(model), [bridged(plan, bridges)], rows)}
    for sample in rows:
        answer = found[sample]
        held = {d: step_by_step(model, _constant(plan, d), sample, bridges) for d in plan.keep_sets}
        alone = {d: single_steps(model, plan, sample, d, bridges) for d in plan.keep_sets}
        full = held[LAYERS].argmax(-1)
        assert answer.top.tolist() == full.tolist()
        for (i, depth), (kind, logits) in product(enumerate(answer.depths), (("held", held), ("one-step", alone))):
            top = logits[depth].topk(2).values
            sure = (top[:, 0] - top[:, 1]).numpy() > 1e-3  # nearer ones may round to either side
            want = (logits[depth].argmax(-1) == full).numpy()
            assert (answer.agree[kind][i] == want)[sure].all(), (depth, kind)
        log_p = torch.log_softmax(held[LAYERS].double(), -1)
        targets = torch.tensor(sample.completion[1:])
        assert np.allclose(answer.nll, -log_p.gather(-1, targets[:, None])[:, 0], atol=1e-4)
        assert np.allclose(answer.entropy, -(log_p.exp() * log_p).sum(-1), atol=1e-4)


def _constant(plan: ds.DepthPlan, depth: int) -> ds.DepthPlan:
    return dataclasses.replace(plan, depths=(LAYERS, *[depth] * 5), horizon=6)


AGREE = np.array([[1, 0, 0, 1, 0], [0, 0, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)


def test_least_and_stable_depths_by_hand() -> None:
    answer = Answer(Sample((1,), (1,) * 6), (2, 3, 5, 8), {"held": AGREE}, np.zeros(5), np.zeros(5), np.ones(5, int))
    assert answer.least("held").tolist() == [2, 5, 3, 2, 8]
    assert answer.stable("held").tolist() == [5, 5, 3, 8, 8]


@settings(max_examples=60)
@given(data=st.data(), steps=st.integers(1, 5), level=st.sampled_from([0.0, 0.5, 0.6, 0.8, 0.95, 1.0]))
def test_the_best_choice_is_that_of_trying_them_all(data: Any, steps: int, level: float) -> None:
    depths = (3, 5, 8)
    rows = st.lists(st.booleans(), min_size=steps, max_size=steps)
    agree = np.array([data.draw(rows), data.draw(rows), [True] * steps])
    # A bridge can make the lesser depth the dearer one.
    costs = np.array(data.draw(st.lists(st.lists(st.integers(1, 9), min_size=steps, max_size=steps), min_size=3,
                                        max_size=3)), dtype=float)  # fmt: skip
    found = best(depths, agree, costs, level)
    choices = product(range(3), repeat=steps)
    reach = [
        sum(costs[c, i] for i, c in enumerate(choice))
        for choice in choices
        if sum(agree[c, i] for i, c in enumerate(choice)) >= level * steps - 1e-9
    ]
    assert found.bytes_speedup == pytest.approx(costs[-1].sum() / min(reach))
    assert found.agreement >= level - 1e-9


def test_means_ranges_and_trends_by_hand() -> None:
    rows = [np.arange(20.0), np.arange(10.0) * 3, np.zeros(0), np.zeros(1)]
    assert mean(rows).mean == pytest.approx((190 + 135) / 31)
    found = ranges({"x": rows, "y": [row + 1 for row in rows]})
    assert [(r.first, r.last, r.prompts, r.tokens) for r in found] == [(1, 8, 3, 17), (9, 16, 2, 10), (17, 20, 1, 4)]
    assert found[2].values["x"].mean == pytest.approx(17.5)
    assert found[0].values["y"].mean == pytest.approx(found[0].values["x"].mean + 1)
    # Each row around its own mean: a constant of a row changes nothing.
    assert trend([np.arange(20.0) + 7, np.arange(5.0)]).mean == pytest.approx(100)
    assert trend([np.arange(20.0), np.zeros(0) + 50]).mean == pytest.approx(100)
    weights = [20 * (400 - 1) / 12, 10 * (100 - 1) / 12]
    assert trend(rows[:2]).mean == pytest.approx(100 * (weights[0] + 3 * weights[1]) / sum(weights))


def test_a_result_agrees_with_scores_of_constant_depth_and_adds_up() -> None:
    model, rows = tiny("qwen2", "sdpa"), samples([(3, 9), (5, 7), (2, 2), (4, 1)])
    specs = [PlanSpec.parse("full", order) for order in ("middle-out:head=1,tail=1", "early-exit")]
    results = oracle_depths(model, specs, rows, plans=["d3:alpha=0.8", "confidence:depth=4"])
    for spec, result in zip(specs, results, strict=True):
        assert (result.prompts, result.tokens, result.order) == (3, 15, spec.order.spec())
        kinds = {kind.kind: kind for kind in result.kinds}
        plans = {row.plan: row for row in result.plans}
        for share in kinds["held"].depths[:-1]:
            plan = ds.plan(f"constant:depth={share.depth}", spec.order, num_layers=LAYERS, horizon=9)
            want = score(model, [plan], rows)[0]
            assert share.agreement == pytest.approx(want.agreement.mean)
            assert share.bytes_speedup == pytest.approx(want.bytes_speedup)
            beside = plans[f"constant:depth={share.depth}"]
            assert beside.agreement.mean == pytest.approx(want.agreement.mean)
            # A choice in hindsight among constant depths is at least as cheap as each of them.
            assert beside.best["held"] >= want.bytes_speedup - 1e-9
        for kind in kinds.values():
            assert sum(share.least for share in kind.depths) == pytest.approx(1)
            assert kind.least.mean == pytest.approx(sum(s.least * s.depth for s in kind.depths))
            assert kind.stable.mean == pytest.approx(sum(s.stable * s.depth for s in kind.depths))
            assert kind.least.mean <= kind.stable.mean
            saved = [found.bytes_speedup for found in kind.headroom]
            assert saved == sorted(saved)
            assert kind.headroom[0].agreement == 1
            assert all(a.bytes_speedup >= b.bytes_speedup for a, b in zip(kind.headroom, kind.stable_headroom,
                                                                           strict=True))  # fmt: skip
        assert {"d3:alpha=0.8", "confidence:depth=4"} <= set(plans)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["nosuch"]}, "unknown kind 'nosuch'; use one-step or held"),
        ({"kinds": []}, "unknown kind ''"),
        ({"min_depth": 8}, "no depth below 8 from min_depth=8 on"),
        ({"samples": samples([(3, 1)])}, "no decode step"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], message: str) -> None:
    rows = options.pop("samples", samples([(3, 3)]))
    with pytest.raises(PlanError, match=message):
        oracle_depths(tiny("llama"), [PlanSpec.parse("full", "early-exit")], rows, **options)
