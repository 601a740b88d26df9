"""Needs nothing but this plug-in and the conformance kit."""

from itertools import pairwise

import pytest
from depthsched_unified_skipping import Unified

from depthsched.testing import OrderConformance


class TestOrder(OrderConformance):
    order = Unified


def published(layers, target):
    """The rule as published, word for word, where it is defined: at least two layers to keep."""
    keep = [0, layers - 1]
    count = int(layers / target)
    stride = int(layers / (count - 2 + 1))
    for layer in range(1, layers - 1):
        if layer % stride == 0 and len(keep) < count:
            keep.append(layer)
    return sorted(keep)


@pytest.mark.parametrize("layers", [12, 24, 30, 32, 40, 80])
@pytest.mark.parametrize("target", [1.0, 1.2, 1.5, 2.0, 3.0, 5.0])
def test_the_deepest_cut_is_the_published_set(layers, target):
    assert list(Unified(target=target).keep(1, layers)) == published(layers, target)


def test_the_published_rule_collapses_to_a_prefix_below_twice_the_speed():
    assert list(Unified(target=1.5).keep(1, 32)) == [*range(20), 31]


def test_the_even_variant_spreads_the_same_number():
    keep = Unified(target=1.5, variant="even").keep(1, 32)
    assert len(keep) == 21
    assert {b - a for a, b in pairwise(keep)} == {1, 2}


@pytest.mark.parametrize("variant", ["published", "even"])
def test_a_target_beyond_the_model_keeps_both_ends(variant):
    assert Unified(target=100, variant=variant).keep(1, 8) == (0, 7)
