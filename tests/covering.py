"""Few combinations of settings that still hold every pair of values, where each alone would take a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import pytest


def covering(*axes: Mapping[str, Any] | Sequence[Any], strength: int = 2) -> list[Any]:
    """Arguments for ``parametrize``: a value of each axis in rows that together show every ``strength`` of them.

    A value may be a ``pytest.param`` with marks, which the rows that show it have. A fault that takes no more than
    ``strength`` settings to meet shows in these rows as it does in the whole product.
    """
    items = [list((axis if isinstance(axis, Mapping) else {str(v): v for v in axis}).items()) for axis in axes]
    found = []
    for row in sorted(rows([*map(len, items)], strength)):
        names, values = zip(*(items[i][at] for i, at in enumerate(row)), strict=True)
        plain = [value.values[0] if hasattr(value, "marks") else value for value in values]
        marks = [mark for value in values for mark in getattr(value, "marks", ())]
        found.append(pytest.param(*plain, id="-".join(names), marks=marks))
    return found


def rows(sizes: Sequence[int], strength: int = 2) -> list[tuple[int, ...]]:
    """Rows of numbers below ``sizes`` in which any ``strength`` columns show every combination. Greedy: not least."""
    columns = list(combinations(range(len(sizes)), strength))
    held = {row: {(at, tuple(row[i] for i in at)) for at in columns} for row in product(*map(range, sizes))}
    missing, found = set().union(*held.values()), []
    while missing:
        # Among equals another sum of numbers each time: the first would always be the one of low numbers.
        row = max(held, key=lambda row: (len(held[row] & missing), -sum(row) % 7))
        missing -= held.pop(row)
        found.append(row)
    return found
