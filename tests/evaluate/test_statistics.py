"""The paired statistics against sums by hand, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest

from depthsched.evaluate.statistics import _adjusted_wald, detectable, paired, sign_test


def exact_two_sided(wins, losses):
    """Both tails of a fair coin, the definition of McNemar's exact test."""
    n, k = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (0, 6), (3, 9), (9, 3), (5, 5), (20, 41)])
def test_p_value_is_the_exact_binomial_sum(wins, losses):
    assert sign_test(wins, losses) == pytest.approx(exact_two_sided(wins, losses))


def test_no_change_is_no_evidence():
    assert sign_test(0, 0) == 1.0


def test_mcnemar_counts_only_pairs_that_differ():
    full = [1] * 30 + [0] * 30 + [1] * 12 + [0] * 4
    plan = [1] * 30 + [0] * 30 + [0] * 12 + [1] * 4
    result = paired(plan, full)
    assert (result.wins, result.losses, result.n) == (4, 12, 76)
    assert result.diff == pytest.approx(-8 / 76)
    assert result.p_value == pytest.approx(exact_two_sided(4, 12))


def test_bootstrap_interval_is_that_of_every_resample():
    """Five items have 3125 equally likely resamples: the interval must be their percentiles."""
    plan, full = np.array([0.1, 0.5, 0.9, 0.3, 0.7]), np.array([0.2, 0.9, 0.8, 0.9, 0.6])
    means = [np.mean(pick) for pick in itertools.product(plan - full, repeat=5)]
    result = paired(plan, full)
    assert result.interval == "bootstrap"
    assert result.low == pytest.approx(np.percentile(means, 2.5), abs=0.02)
    assert result.high == pytest.approx(np.percentile(means, 97.5), abs=0.02)


def test_pairing_matters():
    """The same two lists of scores paired otherwise have another interval: a bare difference cannot know."""
    scores = np.arange(40) / 40
    same, other = paired(scores - 0.01, scores), paired(scores - 0.01, scores[::-1])
    assert same.diff == pytest.approx(other.diff)
    assert same.high - same.low < 1e-9 < 0.1 < other.high - other.low


def test_few_discordant_pairs_do_not_collapse_the_interval():
    none = paired([1, 0] * 25, [1, 0] * 25)
    assert (none.diff, none.interval) == (0.0, "adjusted-wald")
    assert -0.1 < none.low < -0.03
    assert none.high == pytest.approx(-none.low)


@pytest.mark.parametrize(("up", "down", "n"), [(0.02, 0.02, 50), (0.01, 0.05, 100), (0.05, 0.1, 30)])
def test_interval_covers_the_truth(up, down, n):
    draws = np.random.default_rng(0).multinomial(n, [up, down, 1 - up - down], size=4000)
    inside = [low <= up - down <= high for low, high in (_adjusted_wald(int(u), int(d), n) for u, d, _ in draws)]
    assert np.mean(inside) >= 0.94


def test_detectable_difference_is_found_in_four_of_five_samples():
    rng, n, changed = np.random.default_rng(1), 400, 0.3
    sample = rng.choice([1, -1, 0], size=n, p=[changed / 2, changed / 2, 1 - changed])
    least = detectable(sample, binary=True)
    up, down = (changed + least) / 2, (changed - least) / 2
    draws = rng.multinomial(n, [up, down, 1 - changed], size=2000)
    found = np.mean([sign_test(int(u), int(d)) < 0.05 for u, d, _ in draws])
    assert 0.72 <= found <= 0.9


def test_more_items_detect_less():
    rng = np.random.default_rng(2)
    sizes = [detectable(rng.choice([1, -1, 0], size=n, p=[0.1, 0.1, 0.8]), binary=True) for n in (25, 100, 1600)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_verdicts():
    sure = paired([1] * 300 + [0] * 100, [1] * 300 + [0] * 100)
    assert sure.verdict().startswith("no drop above 0.7 points")
    small = paired([1, 0, 1, 1] * 3, [1, 0, 1, 1] * 3)
    assert small.verdict().startswith("too small to say: 12 items cannot exclude a drop of 19")
    assert "excluding 5 takes about" in small.verdict()
    worse = paired([0] * 60 + [1] * 60, [1] * 120)
    assert worse.verdict().startswith("a drop of 4")
    floor = paired([0] * 49 + [1], [0] * 49 + [1])
    assert "cannot exclude losing all of it" in floor.verdict()


def test_wrong_shapes_are_refused():
    for plan, full in ([], []), ([1], [1, 0]):
        with pytest.raises(ValueError, match="one score an item"):
            paired(plan, full)
