"""Needs nothing but this plug-in and the conformance kit."""

import pytest
from depthsched_skipdecode import SkipDecode, WarmUpAndTop

from depthsched.testing import OrderConformance, ScheduleConformance


class TestSchedule(ScheduleConformance):
    schedule = SkipDecode


class TestOrder(OrderConformance):
    order = WarmUpAndTop


@pytest.mark.parametrize("layers", [24, 32])
def test_the_line_is_the_published_one(layers):
    schedule = SkipDecode(n_min=6, n_max=20, over=11)
    exact = [20 - 14 * min(t, 10) / 10 for t in range(15)]
    assert [schedule.depth(t, layers) for t in range(15)] == [int(n + 0.5) for n in exact]


def test_left_out_settings_mean_all_layers_and_the_whole_output():
    schedule = SkipDecode(n_min=2, start=4).for_horizon(20)
    assert [schedule.depth(t, 12) for t in (0, 15)] == [12, 2]


@pytest.mark.parametrize("depth", range(3, 13))
def test_the_layers_are_the_published_ones(depth):
    warmup, layers = 3, 12
    expected = [*range(warmup), *range(layers - (depth - warmup), layers)]
    assert list(WarmUpAndTop(warmup=warmup).keep(depth, layers)) == expected


def test_a_line_that_would_rise_is_refused():
    with pytest.raises(ValueError, match="n_max=4 must be at least n_min=8"):
        SkipDecode(n_min=8, n_max=4)
