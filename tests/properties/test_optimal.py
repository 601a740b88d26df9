"""The schedule of least damage: its dynamic program against every sequence there is, and what it asks of a profile."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import depthsched as ds
from depthsched.cost import ModelShape
from depthsched.damage import DamageTable, step_ranges
from depthsched.errors import DepthschedError, PlanError, ProfileError, SettingsError
from depthsched.profile import ModelIdentity
from depthsched.schedules.least_damage import UNITS, least_damage

SHAPE = ModelShape(6, layer_params=1000, head_params=3000, kv_values=16, attention_width=32)
ORDER = (3, 2, 4, 1)


def table(kl: dict[int, tuple[float, ...]] | None = None, steps: tuple[int, ...] = (1, 4, 9)) -> DamageTable:
    rows = kl or {5: (0.1, 0.2), 4: (0.25, 0.5), 3: (0.8, 1.0), 2: (2.0, 4.0)}
    return DamageTable(steps, (9,) * (len(steps) - 1), rows, 3, 10, SHAPE)


def profile(damage: DamageTable | None) -> ds.Profile:
    return ds.Profile(ModelIdentity("any", 6, 8, "0", (0.5,)), ORDER, damage=damage, folder=Path("some-profile"))


def every(steps: int, choices: int) -> Iterator[tuple[int, ...]]:
    """All sequences that never fall."""
    return combinations_with_replacement(range(choices), steps)


def total(values: Any, taken: Any) -> float:
    return float(np.asarray(values)[np.arange(len(taken)), list(taken)].sum())


@st.composite
def problems(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> tuple[Any, Any, float]:
    steps, choices = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    cells = st.lists(numbers, min_size=steps * choices, max_size=steps * choices)
    cost, damage = (np.array(draw(cells), dtype=float).reshape(steps, choices) for _ in range(2))
    budget = draw(st.floats(0, 1.2)) * float(cost.max(axis=1).sum())
    return cost, damage, budget


@given(problems(st.integers(0, 9)))
def test_whole_costs_are_solved_exactly_with_ties(problem: tuple[Any, Any, float]) -> None:
    cost, damage, budget = problem
    within = [taken for taken in every(*cost.shape) if total(cost, taken) <= budget]
    found = least_damage(cost, damage, budget)
    assert (found is None) == (not within)
    if found is not None:
        best = min((total(damage, taken), total(cost, taken)) for taken in within)
        assert (total(damage, found), total(cost, found)) == best
        assert found == sorted(found)


@given(problems(st.floats(0, 9, allow_subnormal=False)))
def test_other_costs_keep_the_budget_and_miss_at_most_what_rounding_may(problem: tuple[Any, Any, float]) -> None:
    cost, damage, budget = problem
    found = least_damage(cost, damage, budget)
    floor = float(cost.min(axis=1).sum())
    room = min(budget - floor, float((cost.max(axis=1) - cost.min(axis=1)).sum()))
    sure = floor + room * (1 - 2 * cost.shape[1] / UNITS)
    within = [total(damage, taken) for taken in every(*cost.shape) if total(cost, taken) <= sure]
    if found is None:
        assert not within
        return
    assert total(cost, found) <= budget * (1 + 1e-9) + 1e-9
    assert found == sorted(found)
    if within:
        assert total(damage, found) <= min(within) + 1e-9


def brute(damage: DamageTable, horizon: int, mean_depth: float) -> float:
    """The least damage of any depths that never rise, one by one."""
    steps = np.arange(1, horizon)
    best = np.inf
    for depths in combinations_with_replacement(sorted(damage.depths, reverse=True), horizon - 1):
        if sum(depths) <= mean_depth * (horizon - 1) + 1e-9:
            best = min(best, sum(float(damage.at(d, [s])[0]) for d, s in zip(depths, steps, strict=True)))
    return best


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=4, max_size=4),
    st.integers(2, 7),
    st.integers(8, 24),
)
def test_mean_depth_gives_the_least_damage_there_is(rows: list[list[int]], horizon: int, quarters: int) -> None:
    damage = table({5 - i: tuple(map(float, row)) for i, row in enumerate(rows)}, (1, 2, 4, 9))
    plan = ds.plan(f"optimal:mean_depth={quarters / 4}", num_layers=6, horizon=horizon, profile=profile(damage))
    assert plan.mean_depth <= quarters / 4 + 1e-9
    assert plan.nested
    found = sum(float(damage.at(plan.depth(step), [step])[0]) for step in range(1, horizon))
    assert found == pytest.approx(brute(damage, horizon, quarters / 4))


@given(st.floats(1.0, 1.6), st.sampled_from([2, 9, 40, 300, 2000]), st.integers(0, 9))
@settings(max_examples=12)
def test_a_budget_is_kept_by_the_account_of_cost(budget: float, horizon: int, start: int) -> None:
    made = profile(table())
    lowest = ds.plan(f"constant:depth=2,start={max(start, 1)}", num_layers=6, horizon=horizon, profile=made)
    spec = f"optimal:budget={budget},start={start}"
    if lowest.bytes_speedup(SHAPE, 10) < budget * (1 - 1e-9):
        with pytest.raises(SettingsError, match="out of reach"):
            ds.plan(spec, num_layers=6, horizon=horizon, profile=made)
        return
    plan = ds.plan(spec, num_layers=6, horizon=horizon, profile=made)
    assert plan.bytes_speedup(SHAPE, 10) >= budget * (1 - 1e-9)
    assert set(plan.depths[:start]) <= {6}
    assert plan.schedule.startswith("optimal")


def test_the_best_of_two_forms_depends_on_the_table() -> None:
    """Damage that grows late wants depth late, which only constant depth may have; early, a falling schedule."""
    flat = table({5: (1.0, 1.0), 4: (2.0, 2.0), 3: (9.0, 9.0), 2: (9.0, 9.0)})
    early = table({5: (1.0, 0.0), 4: (2.0, 0.0), 3: (9.0, 0.0), 2: (9.0, 9.0)})
    plans = [ds.plan("optimal:mean_depth=4", num_layers=6, horizon=9, profile=profile(t)) for t in (flat, early)]
    assert plans[0].depths[1:] == (4,) * 8
    assert plans[1].depths[1] > plans[1].depths[-1] == 3
    assert ds.PlanSpec.parse("optimal:mean_depth=4", None, profile(flat)) != ds.PlanSpec.parse(
        "optimal:mean_depth=4", None, profile(early)
    )


@pytest.mark.parametrize(
    ("spec", "given", "kind", "message"),
    [
        ("optimal:budget=1.2", None, PlanError, "--profile DIR, which depthsched calibrate"),
        ("optimal:budget=1.2@middle-out", table(), PlanError, "no other order"),
        ("optimal:budget=1.2@ranked:bridges=false", table(), PlanError, "no other order"),
        (
            "optimal:budget=1.2",
            "none",
            ProfileError,
            "no damage table.*calibrate again: depthsched calibrate --prompts",
        ),
        ("optimal", table(), SettingsError, "needs budget or mean_depth"),
        ("optimal:budget=1.2,mean_depth=4", table(), SettingsError, "not both"),
        ("optimal:budget=9", table(), SettingsError, r"budget=9 is out of reach over 9 tokens.*up to 1\."),
        ("optimal:mean_depth=1.5", table(), SettingsError, r"mean_depth=1.5 is out of reach.*from 2\.00 on"),
        ("optimal:mean_depth=4,min_depth=5", table(), SettingsError, r"from 5\.00 on"),
        ("optimal:budget=1.2,min_depth=99", table(), SettingsError, "min_depth=99 is more than the model's"),
        ("optimal:budget=1.2,start=20", table(), SettingsError, r"up to 1\.000"),
    ],
)
def test_what_cannot_be_solved_says_why(spec: str, given: Any, kind: type[DepthschedError], message: str) -> None:
    damage = given if isinstance(given, DamageTable) else None
    with pytest.raises(kind, match=message):
        ds.plan(spec, num_layers=6, horizon=9, profile=None if given is None else profile(damage))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_ranges_cover_the_steps_and_hold_like_numbers_of_tokens(counts: list[int]) -> None:
    steps = step_ranges(counts)
    assert (steps[0], steps[-1]) == (1, max(counts) + 1)
    assert list(steps) == sorted(set(steps))
    alive = [sum(count >= step for count in counts) for step in range(1, max(counts) + 1)]
    for first, end in pairwise(steps):
        assert sum(alive[first - 1 : end - 1]) <= sum(counts) / 8 + 2 * len(counts)


def test_a_table_is_read_back_and_a_bad_one_refused(tmp_path: Path) -> None:
    shape = dataclasses.replace(SHAPE, layer_bytes=(1.0,) * 6)
    made = dataclasses.replace(table(), shape=shape)
    saved = profile(made).save(tmp_path)
    assert saved.damage == made
    assert saved.digest != profile(None).save(tmp_path / "other").digest
    with pytest.raises(ValueError, match="some range"):
        DamageTable.from_json({**made.to_json(), "tokens": [1]})
