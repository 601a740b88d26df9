"""From a mean depth to a setting."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import depthsched as ds
from depthsched.errors import SettingsError, UnknownNameError


def mean(schedule, num_layers, horizon, order):
    return ds.plan(schedule, order, num_layers=num_layers, horizon=horizon).mean_depth


@pytest.mark.parametrize("start", ["", "start=0.3,", "start=5,", "min_depth=4,"])
@settings(max_examples=8)
@given(num_layers=st.integers(6, 80), horizon=st.integers(2, 150), share=st.floats(0, 1))
def test_d3_comes_as_close_as_any_alpha(start, num_layers, horizon, share):
    order = "middle-out:head=1,tail=1"
    lowest = mean(f"d3:{start}alpha=1e-9", num_layers, horizon, order)
    highest = mean(f"d3:{start}alpha={math.nextafter(1, 0)}", num_layers, horizon, order)
    budget = lowest + share * (highest - lowest)
    found = ds.schedule_for_budget(f"d3:{start}", budget, num_layers=num_layers, horizon=horizon, order=order)
    error = abs(mean(found, num_layers, horizon, order) - budget)
    grid = [0.001, *(1 - 10 ** (-k / 8) for k in range(1, 48))]
    others = [mean(f"d3:{start}alpha={alpha}", num_layers, horizon, order) for alpha in grid]
    assert error <= min(abs(other - budget) for other in others) + 1e-9


@settings(max_examples=25)
@given(num_layers=st.integers(3, 9), horizon=st.integers(2, 9), share=st.floats(0, 1))
def test_d3_picks_the_closer_side_of_every_jump(num_layers, horizon, share):
    """The mean depth jumps where L * alpha**i is an integer: every value it can have lies at or beside one of these."""
    order = "early-exit"
    jumps = {(k / num_layers) ** (1 / i) for k in range(1, num_layers) for i in range(1, horizon)}
    alphas = [alpha for jump in jumps for alpha in (jump - 1e-9, jump + 1e-9)]
    reachable = [mean(f"d3:alpha={alpha}", num_layers, horizon, order) for alpha in alphas]
    budget = min(reachable) + share * (max(reachable) - min(reachable))
    found = ds.schedule_for_budget("d3", budget, num_layers=num_layers, horizon=horizon, order=order)
    error = abs(mean(found, num_layers, horizon, order) - budget)
    assert error <= min(abs(other - budget) for other in reachable) + 1e-9


@pytest.mark.parametrize("family", ["constant", "linear", "confidence"])
@settings(max_examples=15)
@given(num_layers=st.integers(6, 40), horizon=st.integers(2, 100), share=st.floats(0, 1))
def test_whole_settings_come_as_close_as_any(family, num_layers, horizon, share):
    specs = [f"{family}:{'end' if family == 'linear' else 'depth'}={d}" for d in range(1, num_layers + 1)]
    means = [mean(spec, num_layers, horizon, None) for spec in specs]
    budget = means[0] + share * (means[-1] - means[0])
    found = ds.schedule_for_budget(family, budget, num_layers=num_layers, horizon=horizon)
    best = min(abs(m - budget) for m in means)
    assert abs(mean(found, num_layers, horizon, None) - budget) == pytest.approx(best, abs=1e-9)


def test_twenty_of_thirty_over_256_tokens():
    found = ds.schedule_for_budget("d3", 20, num_layers=30, horizon=256)
    assert abs(mean(found, 30, 256, None) - 20) < 0.02
    assert len(found.spec()) < len("d3:alpha=0.9999999999")
    assert ds.schedule_for_budget("constant", 20, num_layers=30).spec() == "constant:depth=20"
    # The line has 255 decode steps from just under 30 down to end: their mean is (30 + end) / 2.
    assert ds.schedule_for_budget("linear", 20, num_layers=30, horizon=256).spec() == "linear:end=10"


def test_settings_that_are_given_stay():
    found = ds.schedule_for_budget("d3:start=16,min_depth=6", 20, num_layers=30, horizon=128)
    assert (found.start, found.min_depth) == (16, 6)


@pytest.mark.parametrize("budget", [3.9, 30.1, 0, -1, math.nan, math.inf])
@pytest.mark.parametrize("family", ["d3", "constant", "linear"])
def test_out_of_reach_says_what_is_in_reach(family, budget):
    with pytest.raises(SettingsError, match="out of reach"):
        ds.schedule_for_budget(family, budget, num_layers=30, horizon=128)


@pytest.mark.parametrize("family", ["full", "step"])
def test_a_family_without_a_budget_setting(family):
    with pytest.raises(SettingsError, match="no setting to solve a budget for"):
        ds.schedule_for_budget(family, 20, num_layers=30)


def test_the_solved_setting_must_be_left_out():
    with pytest.raises(SettingsError, match="alpha is what the budget solves for"):
        ds.schedule_for_budget("d3:alpha=0.9", 20, num_layers=30)
    with pytest.raises(UnknownNameError, match="did you mean 'd3'"):
        ds.schedule_for_budget("d2", 20, num_layers=30)
