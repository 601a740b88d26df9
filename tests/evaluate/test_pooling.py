"""Pooled decisions and bounds under peeking: by hand, against slow references, and by simulation of their errors."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthsched.evaluate.pooling import decide, pooled
from depthsched.evaluate.sequential import draw_order, first_decision, log_capital, lower_bound, settle

SHARES = [2.0**-i for i in range(9)]


def coins(rng, shape, delta, changed):
    """Differences of right-or-wrong scores: ``changed`` of the items change, and the mean is ``delta``."""
    u = rng.random(shape)
    up, down = (changed + delta) / 2, (changed - delta) / 2
    return np.where(u < up, 1.0, np.where(u < up + down, -1.0, 0.0))


def scores(diff):
    """Scores with these differences."""
    diff = np.asarray(diff)
    return np.maximum(diff, 0.0), np.maximum(-diff, 0.0)


def test_the_interval_is_that_of_every_resample_within_tasks():
    a, b = np.array([0.5, 0.0, 1.0]), np.array([0.0, 0.25, 1.0, 0.5])
    x, y = a - 0.3, b - 0.45
    pairs = {"a": (a, np.full(3, 0.3)), "b": (b, np.full(4, 0.45))}
    means = [
        0.75 * np.mean(p) + 0.25 * np.mean(q)
        for p in itertools.product(x, repeat=3)
        for q in itertools.product(y, repeat=4)
    ]
    found = pooled(pairs, weights={"a": 3, "b": 1})
    assert found.diff == pytest.approx(0.75 * x.mean() + 0.25 * y.mean())
    assert found.weights == {"a": 0.75, "b": 0.25}
    # Seven items: the interval for what was not seen is the wider one, and the resamples lie within.
    assert found.low < np.percentile(means, 2.5) < np.percentile(means, 97.5) < found.high
    many = {task: tuple(np.tile(side, 200) for side in sides) for task, sides in pairs.items()}
    wide = pooled(many, weights={"a": 3, "b": 1})
    spread = math.sqrt(0.75**2 * x.var() / 600 + 0.25**2 * y.var() / 800)
    assert wide.low == pytest.approx(found.diff - 1.96 * spread, abs=0.1 * spread)
    assert wide.upper == pytest.approx(found.diff + 1.645 * spread, abs=0.1 * spread)


def test_items_of_one_task_are_not_mixed_with_those_of_another():
    """Tasks of very different difference, each without spread of its own: nothing is uncertain."""
    pairs = {"easy": (np.ones(3000), np.zeros(3000)), "hard": (np.zeros(3000), np.ones(3000))}
    found = pooled(pairs)
    assert found.diff == 0
    assert found.high - found.low < 0.002


@pytest.mark.parametrize(
    ("lower", "upper", "want"),
    [
        (-0.009, 0.009, "yes"),
        (-0.03, -0.011, "no"),
        (0.011, 0.02, "better"),
        (-0.02, 0.0, "undecided"),
        (-0.011, -0.009, "undecided"),
        (-0.005, 0.03, "undecided"),
        (-0.03, 0.03, "undecided"),
    ],
)
def test_decisions(lower, upper, want):
    assert decide(lower, upper, 0.01) == want


def test_no_means_worse_by_more_than_the_margin():
    """A drop that is certain but small is not a no."""
    rng = np.random.default_rng(0)
    small = pooled({"t": (np.full(4000, 0.5) + rng.normal(0, 1e-3, 4000), np.full(4000, 0.505))})
    assert small.high < 0
    assert small.decision == "yes"
    big = pooled({"t": (np.full(400, 0.45), np.full(400, 0.5))})
    assert (big.decision, big.verdict()[:29]) == ("no", "within 1 point at 95%: no, wo")


def test_few_items_in_which_nothing_changed_prove_nothing():
    same = pooled({"t": ([1, 0] * 20, [1, 0] * 20)})
    assert same.decision == "undecided"
    assert same.needs > 40
    assert "needs about" in same.verdict()
    assert pooled({"t": ([1, 0] * 200, [1, 0] * 200)}).decision == "yes"


@pytest.mark.parametrize(("changed", "n"), [(0.02, 300), (0.1, 1500), (0.4, 6000)])
def test_errors_of_the_fixed_test_are_those_stated(changed, n):
    """At a true difference of exactly the margin, "yes" and "no" each come in 5% of samples at most."""
    rng, answers = np.random.default_rng(1), []
    for sample in coins(rng, (300, 2, n // 2), -0.01, changed):
        answers.append(pooled({"a": scores(sample[0]), "b": scores(sample[1])}).decision)
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    assert answers.count("yes") / 300 < allowed
    assert answers.count("no") / 300 < allowed


def test_the_number_of_items_it_names_settles_it():
    rng = np.random.default_rng(2)
    first = pooled({"t": scores(coins(rng, 400, -0.02, 0.1))})
    assert first.decision == "undecided"
    again = [{"t": scores(row)} for row in coins(rng, (60, first.needs), first.diff, 0.1)]
    settled = [pooled(pairs).decision != "undecided" for pairs in again]
    assert 0.65 < np.mean(settled) < 0.95, "named for 80% of samples"


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ({}, {}, "no tasks"),
        ({"t": ([1.5], [0])}, {}, "between 0 and 1"),
        ({"t": ([float("nan")], [0])}, {}, "between 0 and 1"),
        ({"t": ([1], [1, 0])}, {}, "one score an item"),
        ({"t": ([1], [0])}, {"weights": {"u": 1}}, "one positive weight"),
        ({"t": ([1], [0])}, {"weights": {"t": 0}}, "one positive weight"),
        ({"t": ([1], [0])}, {"margin": 0}, "margin 0"),
    ],
)
def test_wrong_input_is_refused(pairs, options, message):
    with pytest.raises(ValueError, match=message):
        pooled(pairs, **options)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(-0.9, 0.9))
def test_capital_is_the_mean_of_products(diffs, mean):
    """The definition, bet by bet."""
    want = [sum(math.prod(1 + g * (x - mean) / (1 + mean) for x in diffs) for g in SHARES) / len(SHARES)]
    got = math.exp(log_capital(np.array(diffs), mean)[-1])
    assert got == pytest.approx(want[0], rel=1e-6, abs=1e-7)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_bounds_enclose_and_only_tighten(diffs):
    x = np.array(diffs)
    bounds = [lower_bound(x[: i + 1]) for i in range(len(x))]
    assert all(b >= a for a, b in itertools.pairwise(bounds))
    assert bounds[-1] <= -lower_bound(-x)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 40), st.floats(0.1, 5)), min_size=1),
    st.integers(0, 99),
)
def test_items_are_drawn_by_weight_and_never_twice(tasks, seed):
    sizes = {name: size for name, (size, _) in tasks.items()}
    total = sum(weight for _, weight in tasks.values())
    weights = {name: weight / total for name, (_, weight) in tasks.items()}
    order = draw_order(sizes, weights, seed)
    assert len(set(order)) == len(order)
    assert all(0 <= item < sizes[task] for task, item in order)
    assert len(order) >= min(sizes.values()) or len(tasks) > 1
    assert order == draw_order(sizes, weights, seed)


def test_a_tasks_own_order_does_not_depend_on_the_others():
    alone = [i for _, i in draw_order({"a": 30}, {"a": 1.0})]
    among = [i for task, i in draw_order({"a": 30, "b": 50}, {"a": 0.5, "b": 0.5}) if task == "a"]
    assert among == alone[: len(among)]
    assert sorted(alone) == list(range(30))


CASES = [(0.02, 0.0, 5000), (0.02, -0.01, 5000), (0.1, -0.01, 5000), (0.1, -0.03, 4000), (0.3, -0.01, 4000)]


@pytest.mark.parametrize(("changed", "delta", "n"), CASES)
def test_errors_under_peeking_are_those_stated(changed, delta, n):
    """Looking after every single item: true drops of 0, 1 and 3 points, two tasks of different drop by lot.

    The answer may be wrong in 5% of runs at most: "yes" where the drop is the margin or more, "no" where it is not.
    """
    rng = np.random.default_rng(3)
    runs = 200
    lot = rng.random((runs, n)) < 0.5
    own = min(abs(delta), 0.005)  # one task loses that much more, the other that much less
    diffs = np.where(lot, coins(rng, (runs, n), delta - own, changed), coins(rng, (runs, n), delta + own, changed))
    answers = [first_decision(row) for row in diffs]
    yes, no = (sum(answer == name for answer, _ in answers) / runs for name in ("yes", "no"))
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    if delta <= -0.01:
        assert yes < allowed
    if delta >= -0.01:
        assert no < allowed
    if delta == 0.0:
        assert yes > 0.7
    if delta == -0.03:
        assert no > 0.8


def test_peeking_at_the_fixed_test_would_err():
    """Why there is another one: the fixed bounds, looked at again and again, are wrong far too often."""
    rng, wrong = np.random.default_rng(4), 0
    for row in coins(rng, (60, 3000), 0.0, 0.1):
        n = np.arange(50, 3001, 50)
        mean = np.cumsum(row)[n - 1] / n
        spread = np.sqrt((np.cumsum(row**2)[n - 1] / n - mean**2) / n)
        wrong += bool((mean + 1.645 * spread < 0).any())
    assert wrong / 60 > 0.15


def test_settling_stops_at_the_first_decision():
    order = draw_order({"a": 300, "b": 300}, {"a": 0.5, "b": 0.5})
    lost = {task: dict.fromkeys(range(300), (0.0, 1.0)) for task in "ab"}
    found = settle(order, lost, weights={"a": 0.5, "b": 0.5})
    assert (found.decision, found.diff, found.method) == ("no", -1.0, "betting")
    # Against a drop of one point at most, every item nearly doubles the ninth of the capital that is staked whole.
    gain = (1 - 0.01) / (1 + 0.01)
    assert found.n == next(n for n in itertools.count(1) if sum((1 + g * gain) ** n for g in SHARES) >= 20 * 9)
    assert found.upper < -0.01
    assert found.high >= found.upper
    same = {task: dict.fromkeys(range(300), (1.0, 1.0)) for task in "ab"}
    few = settle(order[:100], same, weights={"a": 0.5, "b": 0.5})
    assert few.decision == "undecided"
    assert few.needs > 100
    assert few.lower < -0.01 < 0.01 < few.upper
    assert settle(order, same, weights={"a": 0.5, "b": 0.5}).decision == "yes"
