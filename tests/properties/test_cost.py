"""The account of cost against a slow one that counts every layer of every step."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched.cost import Cost, step_costs
from depthsched.errors import PlanError

from .strategies import plans


@st.composite
def shapes(draw: st.DrawFn, num_layers: int) -> ds.ModelShape:
    """Shapes with and without stored bytes of their own."""
    sizes = {
        name: draw(st.integers(1, 999))
        for name in ("layer_params", "head_params", "kv_values", "attention_width", "kv_params")
    }
    each = st.lists(st.integers(1, 9999), min_size=num_layers, max_size=num_layers).map(tuple)
    return ds.ModelShape(
        num_layers,
        **sizes,
        weight_bytes=draw(st.sampled_from([2, 4])),
        kv_bytes=draw(st.sampled_from([1, 2, 4])),
        layer_bytes=draw(each | st.just(())),
        head_bytes=draw(st.none() | st.integers(0, 9999)),
        kv_weight_bytes=draw(each | st.just(())),
    )


def slow_bytes(shape: ds.ModelShape, keep: Any, tokens: int, batch: int, writes: bool, bridge: int) -> float:
    """One step, layer by layer."""
    moved = shape.head_bytes if shape.head_bytes is not None else shape.head_params * shape.weight_bytes
    moved += bridge * shape.weight_bytes
    for layer in range(shape.num_layers):
        if layer in keep:
            moved += shape.layer_bytes[layer] if shape.layer_bytes else shape.layer_params * shape.weight_bytes
            for _ in range(batch):
                moved += tokens * shape.kv_values * shape.kv_bytes
        elif writes:
            projections = (
                shape.kv_weight_bytes[layer] if shape.kv_weight_bytes else shape.kv_params * shape.weight_bytes
            )
            moved += projections + batch * shape.kv_values * shape.kv_bytes
    return moved


def slow_flops(shape: ds.ModelShape, keep: Any, tokens: int, batch: int, writes: bool, bridge: int) -> float:
    """One step, row by row and layer by layer: a product and a sum for each weight and each key and value."""
    count = 0
    for _ in range(batch):
        count += 2 * (shape.head_params + bridge)
        for layer in range(shape.num_layers):
            if layer in keep:
                count += 2 * shape.layer_params + 2 * 2 * shape.attention_width * tokens
            elif writes:
                count += 2 * shape.kv_params
    return count


@given(st.data(), plans(max_layers=12, max_horizon=20), st.integers(0, 50), st.integers(1, 4), st.booleans())
def test_every_step_is_the_sum_of_its_layers(
    data: st.DataObject, plan: ds.DepthPlan, prompt: int, batch: int, writes: bool
) -> None:
    shape = data.draw(shapes(plan.num_layers))
    depths = data.draw(st.lists(st.sampled_from(sorted(plan.keep_sets)), max_size=12))
    bridges = data.draw(st.fixed_dictionaries({depth: st.integers(0, 500) for depth in plan.keep_sets}))
    for flops, slow in ((False, slow_bytes), (True, slow_flops)):
        found = step_costs(
            shape,
            depths,
            prompt,
            keep_sets=plan.keep_sets,
            batch=batch,
            writes=writes,
            bridge_params=bridges.__getitem__,
            flops=flops,
        )
        assert found.full.shape == found.scheduled.shape == (len(depths),)
        for step, depth in enumerate(depths, start=1):
            tokens = prompt + step
            every = slow(shape, range(plan.num_layers), tokens, batch, False, 0)
            some = slow(shape, plan.keep_sets[depth], tokens, batch, writes, bridges[depth])
            assert (found.full[step - 1], found.scheduled[step - 1]) == (every, some)
        assert found.total == sum(found.scheduled)
        assert found.ratio == (sum(found.full) / sum(found.scheduled) if depths else 1.0)


@given(st.data(), plans(max_layers=12, max_horizon=20))
def test_a_plan_fills_in_its_own_depths_and_writes(data: st.DataObject, plan: ds.DepthPlan) -> None:
    shape = data.draw(shapes(plan.num_layers))
    found = plan.cost(shape, prompt_tokens=5, batch=2)
    want = plan.cost(shape, plan.depths[1:], 5, batch=2, writes=not plan.nested)
    assert found.scheduled.tolist() == want.scheduled.tolist()
    assert plan.bytes_speedup(shape, 5, batch=2) == want.ratio
    assert plan.flops_speedup(shape, 5) == plan.cost(shape, prompt_tokens=5, flops=True).ratio
    assert len(found.full) == plan.horizon - 1


@given(st.data(), plans(max_layers=12, max_horizon=20))
def test_runs_join(data: st.DataObject, plan: ds.DepthPlan) -> None:
    shape = data.draw(shapes(plan.num_layers))
    one, other = plan.cost(shape), plan.cost(shape, prompt_tokens=9)
    both = sum((one, other), Cost())
    assert both.full.tolist() == [*one.full.tolist(), *other.full.tolist()]
    assert both.total == one.total + other.total
    assert both.total_full == one.total_full + other.total_full


@given(st.data(), st.integers(2, 12))
def test_stored_bytes_count_those_layers_that_run(data: st.DataObject, num_layers: int) -> None:
    """A quantised model: a plan that keeps the small layers saves more than one that keeps the large ones."""
    shape = data.draw(shapes(num_layers))
    stored = tuple(1000.0 * 2**layer for layer in range(num_layers))
    shape = dataclasses.replace(shape, layer_bytes=stored, head_bytes=7.0)
    plan = ds.plan("constant:depth=1", "early-exit:head=1", num_layers=num_layers, horizon=2)
    kv = shape.kv_values * shape.kv_bytes
    assert plan.cost(shape).full.tolist() == [sum(stored) + 7 + num_layers * kv]
    assert plan.cost(shape).scheduled.tolist() == [stored[0] + 7 + kv]


@pytest.mark.parametrize("name", ["layer_bytes", "kv_weight_bytes"])
def test_stored_bytes_of_another_number_of_layers_are_refused(name: str) -> None:
    with pytest.raises(PlanError, match=f"{name} has 2 values"):
        ds.ModelShape(3, 1, 1, 1, 1, **{name: (1.0, 2.0)})  # type: ignore[arg-type]
