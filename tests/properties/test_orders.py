"""Layer orders: nested keep sets, core layers that always run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched.errors import SettingsError

from .strategies import ORDERS, any_order


@st.composite
def order_and_layers(draw):
    num_layers = draw(st.integers(1, 100))
    return draw(any_order(num_layers)), num_layers


@given(order_and_layers())
def test_keep_sets_are_nested_and_hold_the_core(case):
    order, num_layers = case
    ranked = order.resolve(num_layers)
    core = set(range(num_layers)) - set(ranked)
    before: set[int] = set()
    for depth in range(num_layers + 1):
        keep = order.keep(depth, num_layers)
        assert list(keep) == sorted(set(keep))
        assert before <= set(keep)
        assert core <= set(keep)
        assert len(keep) == max(depth, len(core))
        before = set(keep)
    assert before == set(range(num_layers))


@given(order_and_layers())
def test_order_specs_parse_and_print(case):
    order, _ = case
    assert ds.parse_order(order.spec()) == order
    assert ds.parse_order(order.spec()).spec() == order.spec()


@given(head=st.integers(0, 60), tail=st.integers(0, 60), num_layers=st.integers(1, 50))
def test_head_and_tail_are_never_ranked_and_the_rest_is(head, tail, num_layers):
    flex = set(range(head, num_layers - tail))
    for name in ("middle-out", "strided"):
        assert set(ORDERS[name](head=head, tail=tail).resolve(num_layers)) == flex
    assert set(ORDERS["early-exit"](head=head).resolve(num_layers)) == set(range(head, num_layers))


@pytest.mark.parametrize(
    ("spec", "num_layers", "ranked"),
    [
        ("middle-out", 8, (3, 4, 2, 5)),
        ("middle-out", 9, (4, 3, 5, 2, 6)),
        ("middle-out:head=0,tail=0", 4, (1, 2, 0, 3)),
        ("early-exit", 5, (4, 3, 2, 1)),
        ("early-exit:head=3", 5, (4, 3)),
        ("strided", 8, (3, 5, 1, 2, 4, 6)),
        ("strided:head=0,tail=0", 3, (1, 0, 2)),
        ("list:layers=4+2+5", 8, (4, 2, 5)),
    ],
)
def test_orders_by_hand(spec, num_layers, ranked):
    assert ds.parse_order(spec).resolve(num_layers) == ranked


@given(num_layers=st.integers(3, 60), head=st.integers(1, 3), tail=st.integers(1, 3))
def test_middle_out_drops_one_block(num_layers, head, tail):
    order = ORDERS["middle-out"](head=head, tail=tail)
    for depth in range(1, num_layers + 1):
        dropped = sorted(set(range(num_layers)) - set(order.keep(depth, num_layers)))
        assert dropped == list(range(dropped[0], dropped[-1] + 1)) if dropped else True


@given(num_layers=st.integers(4, 60))
def test_strided_never_drops_two_neighbours_while_it_can_avoid_it(num_layers):
    order = ORDERS["strided"]()
    ranked = order.resolve(num_layers)
    isolated = 0
    while isolated < len(ranked) and all(abs(ranked[isolated] - r) > 1 for r in ranked[:isolated]):
        isolated += 1
    assert isolated >= (num_layers - 2) // 3  # greedy spreading finds at least a third of the flex layers


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("list:layers=8", "layer 8 is not in 0..7"),
        ("list:layers=3+3", "appears twice"),
        ("list:layers=-1", "layers=-1"),
        ("list", "needs layers"),
        ("middle-out:head=-1", "head=-1"),
        ("middle-out:head=x", "not a whole number"),
        ("middle-out:body=1", "no setting 'body'"),
    ],
)
def test_bad_orders_are_refused_in_one_line(spec, words):
    with pytest.raises(SettingsError) as caught:
        ds.parse_order(spec).resolve(8)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_order_of_ones_own_is_checked():
    class Odd(ds.LayerOrder):
        def rank(self, num_layers):
            return [1.5]

    with pytest.raises(SettingsError, match="layer indices"):
        Odd().resolve(4)
    with pytest.raises(SettingsError, match="does not define rank"):
        ds.LayerOrder().resolve(4)
