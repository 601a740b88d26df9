"""The staircase gives the logits of step-by-step decoding."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bridge import Bridge
from depthsched.errors import PlanError
from depthsched.runtime.eager import EagerBackend
from depthsched.score import Sample
from depthsched.score.staircase import Staircase

from ..tiny import LAYERS, VARIANTS, VOCAB, tiny

NESTED = [
    "full",
    "constant:depth=3",
    "d3:alpha=0.8",
    "linear:end=2",
    "step:at=2+4,drop=2+5",
    "d3:alpha=0.7,start=3,min_depth=2",
]
ORDERS = ["middle-out:head=1,tail=1", "early-exit", "strided", "list:layers=0+7+3+4", "ranked:layers=6+0+5+2"]


def samples(lengths: list[tuple[int, int]], seed: int = 0) -> list[Sample]:
    g = torch.Generator().manual_seed(seed)
    draw = lambda n: tuple(torch.randint(3, VOCAB, (n,), generator=g).tolist())  # noqa: E731
    return [Sample(draw(p), draw(c)) for p, c in lengths]


def some_bridges(plan: ds.DepthPlan, hidden: int, dtype: torch.dtype = torch.float32) -> dict[int, dict[int, Bridge]]:
    """A bridge before a skipped layer, one before a kept layer and one behind the last, at every lower depth."""
    g = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=g).to(dtype)  # noqa: E731
    make = lambda: Bridge(draw(hidden, hidden) * 0.05, draw(hidden) * 0.1)  # noqa: E731
    found = {}
    for depth, keep in plan.keep_sets.items():
        skipped = sorted(set(range(plan.num_layers)) - set(keep))
        if skipped:
            found[depth] = {skipped[0]: make(), keep[-1]: make(), plan.num_layers: make()}
    return found


def bridged(plan: ds.DepthPlan, bridges: Any) -> ds.DepthPlan:
    """The plan with these bridges in place of a profile's."""
    copy = dataclasses.replace(plan)
    vars(copy)["bridges"] = bridges or {}
    return copy


def step_by_step(model: Any, plan: ds.DepthPlan, sample: Sample, bridges: Any) -> torch.Tensor:
    rows = []
    ids = torch.tensor([sample.prompt])
    with EagerBackend(adapter_for(model), bridged(plan, bridges)) as engine, torch.no_grad():
        _, decoder = engine.prefill(ids, torch.ones_like(ids), DynamicCache(config=model.config))
        for step in range(1, len(sample.completion)):
            token = torch.tensor(sample.completion[step - 1 : step])
            rows.append(decoder.step(token, plan.depth(step))[0])
    return torch.stack(rows)


@torch.no_grad()
def worst(model: Any, plan: ds.DepthPlan, rows: list[Sample], bridges: Any = None) -> float:
    adapter = adapter_for(model)
    batch = Staircase(adapter, rows)
    states = batch.run(batch.depths(plan), plan.keep_sets, bridges)
    mine = [adapter.logits(states[i][batch.valid[i]]) for i in range(len(rows))]
    return max(
        float((a - step_by_step(model, plan, row, bridges)).abs().max()) for a, row in zip(mine, rows, strict=True)
    )


@settings(max_examples=20)
@given(
    schedule=st.sampled_from(NESTED),
    order=st.sampled_from(ORDERS),
    lengths=st.lists(st.tuples(st.integers(1, 6), st.integers(2, 8)), min_size=1, max_size=4),
    bridged=st.booleans(),
    attn=st.sampled_from(["eager", "sdpa"]),
)
def test_equals_step_by_step(
    schedule: str, order: str, lengths: list[tuple[int, int]], bridged: bool, attn: str
) -> None:
    plan = ds.plan(schedule, order, num_layers=LAYERS, horizon=8)
    bridges = some_bridges(plan, 32) if bridged else None
    assert worst(tiny("llama", attn), plan, samples(lengths), bridges) < 1e-4


@pytest.mark.quick
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_family(variant: str) -> None:
    plan = ds.plan("linear:end=3", num_layers=LAYERS, horizon=8)
    assert worst(tiny(variant, "sdpa"), plan, samples([(3, 9), (6, 5)]), some_bridges(plan, 32)) < 1e-4


@pytest.fixture(scope="module")
def smollm2_float64(smollm2: tuple[Any, Any]) -> Any:
    return copy.deepcopy(smollm2[0]).double()


@settings(max_examples=8)
@given(
    schedule=st.sampled_from(NESTED),
    order=st.sampled_from(ORDERS),
    bridged=st.booleans(),
    # Logits of a model cut to a few layers reach 80, where float32 rounds by 1e-4: float64 tells that from an error.
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_on_smollm2(
    smollm2: tuple[Any, Any], smollm2_float64: Any, schedule: str, order: str, bridged: bool, dtype: torch.dtype
) -> None:
    model, tokenizer = smollm2
    if dtype == torch.float64:
        model = smollm2_float64
    plan = ds.plan(schedule, order, num_layers=30, horizon=8)
    text = [
        tokenizer(t)["input_ids"] for t in ("The capital of France is", "1 2 3 4 5 6", " Paris, and it is so", " 7 8 9")
    ]
    rows = [Sample(tuple(text[0]), tuple(text[2])), Sample(tuple(text[1]), tuple(text[3]))]
    bridges = some_bridges(plan, 576, dtype) if bridged else None
    assert worst(model, plan, rows, bridges) < (1e-10 if dtype == torch.float64 else 1e-3)


def test_bridges_change_the_states() -> None:
    """The oracle above would not see bridges that neither side applies."""
    model, rows = tiny("llama", "sdpa"), samples([(4, 6)])
    plan = ds.plan("constant:depth=5", num_layers=LAYERS, horizon=8)
    batch = Staircase(adapter_for(model), rows)
    depths = batch.depths(plan)
    for layer, bridge in some_bridges(plan, 32)[5].items():
        plain, bridged = batch.run(depths, plan.keep_sets), batch.run(depths, plan.keep_sets, {5: {layer: bridge}})
        assert (plain - bridged).abs().max() > 1e-3, layer


def test_leaves_the_model_as_it_was_also_after_an_error() -> None:
    model = tiny("llama", "sdpa")
    adapter, layers, names = adapter_for(model), adapter_for(model).layers, list(model.state_dict())
    batch = Staircase(adapter, samples([(4, 6)]))

    def fail(layer: int, hidden: torch.Tensor) -> None:
        if layer == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.full(tap=fail)
    assert adapter.layers is layers
    assert list(model.state_dict()) == names
    assert not adapter.decoder.norm._forward_pre_hooks


def test_refuses_a_layer_that_comes_back() -> None:
    batch = Staircase(adapter_for(tiny("llama")), samples([(4, 3)]))
    with pytest.raises(PlanError, match="layer 2 runs again"):
        batch.run([7, 8], {8: range(8), 7: [0, 1, 3, 4, 5, 6, 7]})
