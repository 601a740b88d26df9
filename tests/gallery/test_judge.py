"""The verdict of a gallery: a mix of constant plans against drawing which of them makes each token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthsched.gallery.judge import judge, mixed, neighbours


@given(st.lists(st.floats(1.01, 3), min_size=1, max_size=8, unique=True), st.floats(1.0, 3.5))
def test_neighbours_stand_on_either_side(savings: list[float], saved: float) -> None:
    constants = dict(enumerate(sorted(savings, reverse=True), start=2))
    known = {**constants, max(constants) + 1: 1.0}
    found = neighbours(saved, constants)
    if len(found) == 1:
        assert known[found[0]] == pytest.approx(saved, rel=1e-8)
        return
    if not found:
        assert saved > max(savings)
        return
    less, more = (known[depth] for depth in found)
    assert less < saved < more
    assert not any(less < value < more for value in known.values())


def test_a_mix_moves_the_bytes_in_between() -> None:
    """Three tokens of four at 10 bytes and one at 6 move 36 of 48: what saves 48/36 has that mix of damage."""
    first, second = np.array([[4.0, 0.4, 3.0]]), np.array([[4.0, 2.0, 1.0]])
    found = mixed(48 / 36, [(12 / 10, first), (12 / 6, second)])
    assert found[0].tolist() == pytest.approx([4.0, 0.75 * 0.4 + 0.25 * 2.0, 0.75 * 3.0 + 0.25 * 1.0])


@pytest.mark.parametrize(
    ("shift", "spread", "word"),
    [
        (-0.2, 0.01, "better than"),
        (0.2, 0.01, "worse than"),
        (0.01, 0.5, "not distinguishable from"),
    ],
)
def test_the_word_says_what_the_interval_excludes(shift: float, spread: float, word: str) -> None:
    rng = np.random.default_rng(0)
    tokens = np.full(40, 10.0)
    constant = np.stack([tokens, tokens * 0.3, tokens * 0.8], axis=1)
    rows = constant + np.stack([0 * tokens, tokens * (shift + spread * rng.normal(size=40)), 0 * tokens], axis=1)
    found = judge(rows, 1.25, [(1.25, constant)], ["constant:depth=6"])
    assert found is not None
    assert found.word == word
    assert (found.kl.low < shift < found.kl.high) if found.kl.low is not None else False
    assert judge(rows, 9.0, [], []) is None


def test_one_prompt_decides_nothing() -> None:
    row: Any = np.array([[10.0, 9.0, 1.0]])
    found = judge(row, 1.25, [(1.25, row * 0.5)], ["constant:depth=6"])
    assert found is not None
    assert found.word == "not distinguishable from"
