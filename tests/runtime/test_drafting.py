"""When to stop drafting: what each rule chooses, what it costs where drafting never pays, and what a run says of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import depthsched as ds
from depthsched.drafts import MOST, DraftTokens, draft_speedup, expected_tokens, predict_drafting
from depthsched.errors import PlanError
from depthsched.runtime.lossless.drafting import UNIT_STEPS, Confidence, Fixed, drafting_of
from depthsched.runtime.lossless.measured import HORIZON, LOSS, Measured, by_layers
from depthsched.runtime.rounds import Round, payoff, report_lines, summary

from ..tiny import LAYERS, prompt, tiny


@pytest.mark.parametrize(
    ("given_as", "rule", "number", "text"),
    [
        ("auto", "auto", 0, "auto"),
        (4, "fixed", 4, "4"),
        ("4", "fixed", 4, "4"),
        ("confidence", "confidence", 0.6, "confidence:0.6"),
        ("confidence:0.25", "confidence", 0.25, "confidence:0.25"),
        ("del", "del", 0, "del"),
    ],
)
def test_spellings(given_as: Any, rule: str, number: float, text: str) -> None:
    found = DraftTokens.parse(given_as)
    assert (found.rule, found.number, str(found)) == (rule, number, text)
    assert DraftTokens.parse(str(found)) == DraftTokens.parse(found) == found


@pytest.mark.parametrize(
    "bad", [0, 17, -1, True, 1.5, None, "", "0", "1.5", "nan", "confidence:", "confidence:x", "del:3"]
)
def test_bad_spellings(bad: Any) -> None:
    with pytest.raises(PlanError, match=r"draft_tokens=.* (must be|threshold)"):
        DraftTokens.parse(bad)


@given(st.floats(0, 1), st.integers(0, MOST))
def test_expected_tokens_are_a_geometric_sum(a: float, drafted: int) -> None:
    assert expected_tokens(a, drafted) == pytest.approx(sum(a**i for i in range(drafted + 1)))
    assert draft_speedup(a, drafted, 0.0, 1.0) == pytest.approx(expected_tokens(a, drafted))


def test_a_prediction_by_bytes() -> None:
    shape = ds.ModelShape(num_layers=10, layer_params=100, head_params=200, kv_values=4, attention_width=8)
    found = predict_drafting(shape, 5, 0.9, 3)
    assert found.draft_cost == pytest.approx((5 * 100 + 200) / (10 * 100 + 200))
    assert found.speedup == pytest.approx(draft_speedup(0.9, 3, found.draft_cost))
    best = predict_drafting(shape, 5, 0.9)
    assert best.speedup == max(predict_drafting(shape, 5, 0.9, d).speedup for d in range(MOST + 1))
    assert predict_drafting(shape, 9, 0.1) == predict_drafting(shape, 9, 0.1, 0)  # plain steps
    assert predict_drafting(shape, 9, 0.1).speedup == 1
    with pytest.raises(PlanError, match="from 1 to 10"):
        predict_drafting(shape, 11, 0.5)


class Machine:
    """A clock and a model that are made up: acceptance and cost of each depth, cost of each token more in a check."""

    def __init__(self, acceptance: dict[int, float], cost: dict[int, float], row: float, seed: int = 0) -> None:
        self.acceptance, self.cost, self.row = acceptance, cost, row
        self.generator = torch.Generator().manual_seed(seed)
        self.clock = lambda rounds: 1.0

    def begin(self) -> None:
        """A draft begins."""

    def stays(self, depth: int) -> bool:
        return float(torch.rand((), generator=self.generator)) < self.acceptance[depth]

    def run(self, rule: Any, tokens: int, scheduled: int, unit: float = 0.01) -> float:
        """Time of a run, in plain steps."""
        made, spent, rounds = 0, 0.0, 0
        while made < tokens:
            depth, most = rule.next(scheduled)
            drafted = max(min(most, tokens - made - 1), 0)
            stayed = 0
            if drafted:
                self.begin()
            while stayed < drafted and self.stays(depth):
                stayed += 1
            draft, check = drafted * self.cost[depth], 1.0 + self.row * drafted
            seconds, rounds = unit * self.clock(rounds), rounds + 1
            rule.learn(Round(depth, drafted, (stayed,), draft * seconds, check * seconds))
            made, spent = made + stayed + 1, spent + draft + check
        return spent


def auto(*depths: int, **options: Any) -> Measured:
    return Measured(depths, LAYERS, **options)


@settings(max_examples=200)
@given(
    a=st.floats(0, 0.6), cost=st.floats(0.5, 1.2), row=st.floats(0, 1.0), seed=st.integers(0, 99),
    tokens=st.sampled_from([256, 400, 1000]),
)  # fmt: skip
def test_auto_costs_little_where_drafting_never_pays(a: float, cost: float, row: float, seed: int, tokens: int) -> None:
    share = max(draft_speedup(a, d, cost, 1 + row * d) for d in range(1, MOST + 1))
    machine = Machine(dict.fromkeys((5, 6, 7), a), dict.fromkeys((5, 6, 7), cost), row, seed)
    spent = machine.run(auto(5, 6, 7), tokens, 5)
    # One draft is made before anything is known: it may cost 1.5 steps more than was allowed for.
    assert share >= 1 or spent <= tokens * (1 + LOSS) + 1.5


@pytest.mark.parametrize("slow", [1.2, 1.5, 3.0])
@pytest.mark.parametrize("rounds", [4, 6])
@pytest.mark.parametrize("seed", range(5))
def test_auto_is_not_fooled_by_a_machine_that_was_slow_at_first(slow: float, rounds: int, seed: int) -> None:
    """Drafting gives 0.87, and looks like 1.05 to 2.6 by the first plain steps."""
    machine = Machine({5: 0.8}, {5: 0.8}, 0.09, seed)
    machine.clock = lambda done: slow if done < rounds else 1.0
    assert machine.run(auto(5), 256, 5) <= 256 * 1.03


@pytest.mark.parametrize("right", [1, 3, 12, 40])
@pytest.mark.parametrize("cost", [0.3, 0.8, 0.96])
def test_auto_is_not_fooled_by_drafts_that_were_right_before(cost: float, right: int) -> None:
    class Trap(Machine):
        drafts = 0

        def begin(self) -> None:
            self.drafts += 1

        def stays(self, depth: int) -> bool:
            return self.drafts <= right

    tokens, rule = 256 + 17 * right, auto(5)
    spent = Trap({5: 0.0}, {5: cost}, 0.0).run(rule, tokens, 5)
    assert spent <= tokens * (1 + LOSS) + 1.5


def test_auto_makes_no_draft_that_could_lose_more_than_is_allowed() -> None:
    rule = auto(5)
    Machine({5: 0.95}, {5: 0.3}, 0.0).run(rule, 60, 5)
    while not (long := rule.next(5)[1]):
        rule.learn(Round(LAYERS, 0, (0,), 0.0, 0.01))
    assert long > 4
    rule.lost = LOSS * HORIZON - (3 * 0.3 + 0.01)  # what three drafted tokens cost if none is kept
    assert rule.next(5) == (5, 3)
    rule.lost = LOSS * HORIZON
    assert rule.next(5) == (5, 0)
    assert "trying has cost 2% of plain decoding" in rule.decisions[-1]


def test_auto_drafts_where_it_pays() -> None:
    rule = auto(5)
    spent = Machine({5: 0.95}, {5: 0.3}, 0.02).run(rule, 256, 5)
    assert spent <= 256 / 1.7
    assert "drafts at depth 5" in rule.decisions[0]


def test_auto_deepens() -> None:
    rule = auto(4, 6, 7)
    spent = Machine({4: 0.6, 6: 0.97, 7: 0.98}, {4: 0.5, 6: 0.65, 7: 0.9}, 0.01).run(rule, 400, 4)
    assert spent <= 400 / 1.2
    assert any("drafts at depth 6" in line for line in rule.decisions)


def test_auto_never_drafts_shallower_than_the_schedule() -> None:
    rule = auto(4, 6, 7)
    for _ in range(4):
        rule.learn(Round(8, 0, (0,), 0.0, 1.0))
    for scheduled in (6, 7):
        rule.learn(Round(scheduled, 2, (2,), 0.5, 1.0))
        assert rule.next(scheduled)[0] >= scheduled
    assert rule.next(LAYERS) == (LAYERS, 0)


def test_auto_stops_when_acceptance_falls_and_says_so() -> None:
    machine, rule = Machine({5: 0.95}, {5: 0.4}, 0.02), auto(5)
    machine.run(rule, 200, 5)
    machine.acceptance[5] = 0.0
    machine.run(rule, 100, 5)
    assert "stops drafting" in rule.decisions[-1]
    assert rule.next(5)[1] == 0


def test_del_chooses_by_layers() -> None:
    rule = auto(2, 4, 6, prices=by_layers)
    machine = Machine({2: 0.3, 4: 0.9, 6: 0.92}, {2: 9.0, 4: 9.0, 6: 9.0}, 9.0)  # the clock is not looked at
    machine.run(rule, 300, 2)
    depth, drafted = rule.next(2)
    wanted = max(range(1, MOST + 1), key=lambda d: draft_speedup(rule.acceptance(4), d, 4 / LAYERS))
    assert (depth, drafted) == (4, wanted)


def test_the_threshold_of_draft_and_verify() -> None:
    rule = Confidence(threshold=0.6)
    for _ in range(UNIT_STEPS):
        assert rule.next(5) == (5, 0)
        rule.learn(Round(8, 0, (0,), 0.0, 1.0))
    assert rule.next(5) == (5, MOST)
    assert rule.goes_on(0.7)
    assert not rule.goes_on(0.5)
    rule.learn(Round(5, 2, (0,), 1.0, 1.0))
    kept = 0.5 * 0.9 + 0.5 * 0
    assert rule.kept == pytest.approx(kept)
    assert rule.threshold == pytest.approx(0.9 * 0.6 + 0.1 * 0.61)
    rule.goes_on(0.9)
    rule.learn(Round(5, MOST, (MOST,), 1.0, 1.0))  # ran to its limit
    assert rule.kept == pytest.approx(0.5 * kept + 0.5)
    assert rule.threshold == pytest.approx(0.9 * 0.6 + 0.1 * 0.61)


@pytest.mark.quick
def test_an_unsure_token_ends_a_draft() -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(1, 6)
    run = ds.generate(model, inputs, "constant:depth=6", max_new_tokens=30, lossless=True, draft_tokens="confidence:1")
    assert {r.drafted for r in run.trace.rounds or []} == {0, 1}


def test_which_depths_a_rule_may_take() -> None:
    plan = ds.plan("constant:depth=5", num_layers=LAYERS, horizon=20)
    wide = plan.with_deeper()
    assert set(wide.keep_sets) == {5, 6, 7, 8}
    assert wide == plan
    assert wide.digest == plan.digest
    assert drafting_of(DraftTokens("auto"), wide).depths == [5, 6, 7]  # type: ignore[attr-defined]
    many = ds.plan("d3:alpha=0.9", num_layers=LAYERS, horizon=20)
    assert many.with_deeper() is many
    assert ds.plan("full", num_layers=LAYERS, horizon=20).with_deeper().spare == ()
    assert isinstance(drafting_of(DraftTokens("fixed", 3), plan), Fixed)


def test_what_drafting_was_worth() -> None:
    plain = [Round(8, 0, (0,), 0.0, 1.0)] * 2
    rounds = [*plain, Round(5, 2, (2,), 1.0, 1.2), Round(5, 2, (0,), 1.0, 1.2)]
    found = payoff(rounds)
    assert found is not None
    assert found.acceptance == pytest.approx(2 / 3)
    assert (found.draft_cost, found.verify_cost) == (pytest.approx(0.5), pytest.approx(1.2))
    assert found.measured == pytest.approx((2 + 3 + 1) / (2 + 2.2 * 2))
    assert found.predicted == pytest.approx((2 + 2 * expected_tokens(2 / 3, 2)) / (2 + 2.2 * 2))
    assert payoff(rounds[2:]) is None
    assert payoff(rounds[2:], unit=1.0) is not None
    assert payoff(plain) is None
    said = summary(rounds, "3", ["token 4: drafts"])
    assert said["predicted_speedup"] == found.predicted
    assert said["decisions"] == ["token 4: drafts"]
    assert "predicted 0.97x and measured 0.94x" in "\n".join(report_lines(rounds, []))


@pytest.mark.quick
@pytest.mark.parametrize("draft_tokens", ["auto", 3, "confidence", "del"])
def test_every_rule_reports_what_it_was_worth(draft_tokens: Any) -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(2, 6)
    run = ds.generate(model, inputs, "constant:depth=7", max_new_tokens=40, lossless=True, draft_tokens=draft_tokens)
    said = run.to_json()["lossless"]
    assert said["drafted"] > 0
    assert said["draft_tokens"] == str(DraftTokens.parse(draft_tokens))
    for name in ("predicted_speedup", "measured_speedup", "draft_cost", "verify_cost"):
        assert said[name] > 0
    assert len(said["acceptance_by_place"]) == max(r.drafted for r in run.trace.rounds or [])
    assert all(line in run.report() for line in run.trace.decisions)
