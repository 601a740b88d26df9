"""Rows that stand for a whole product of settings leave no combination out."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .covering import covering, rows


@settings(max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.data())
def test_every_combination_of_a_few_columns_is_there(sizes: list[int], data: st.DataObject) -> None:
    strength = data.draw(st.integers(1, len(sizes)))
    found = rows(sizes, strength)
    assert len(set(found)) == len(found)
    for columns in combinations(range(len(sizes)), strength):
        shown = {tuple(row[i] for i in columns) for row in found}
        assert shown == set(product(*(range(sizes[i]) for i in columns)))


def test_it_takes_fewer_rows_than_the_product() -> None:
    assert len(rows([4, 2, 2, 2, 2, 2], 3)) < 40 < 4 * 2**5
    assert len(rows([3, 4, 2])) == 12


def test_values_and_names() -> None:
    first, *_, last = covering({"one": 1, "two": [2]}, (True, False))
    assert (first.values, first.id) == ((1, True), "one-True")
    assert (last.values, last.id) == (([2], False), "two-False")


def test_marks_of_a_value_are_those_of_its_rows() -> None:
    found = covering({"a": pytest.param(1, marks=pytest.mark.slow), "b": 2}, (3, 4))
    assert [(case.values, [mark.name for mark in case.marks]) for case in found] == [
        ((1, 3), ["slow"]), ((1, 4), ["slow"]), ((2, 3), []), ((2, 4), []),
    ]  # fmt: skip
