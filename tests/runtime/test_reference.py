"""The logits of every step equal the slow reference, whatever the schedule, order, family and way of running."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList

import depthsched as ds

from ..covering import covering
from ..properties.strategies import SCHEDULES, any_order, short_specs
from ..tiny import LAYERS, MAIN, VARIANTS, prompt, tiny
from .helpers import Capture, UpAndDown, closest
from .oracle import oracle_logits

TOLERANCE = 1e-4
# One last place in the embedding moves this family's tiny logits by 1e-4 (llama's by 2e-5): the processor decides.
TOLERANCES = {"gemma2": 4e-4}


def run_ours(model, inputs, plan, steps, **options):
    capture = Capture()
    run = ds.generate(model, inputs, plan, max_new_tokens=steps, logits_processor=[capture], **options)
    return run.sequences, capture.logits, run.trace


def run_attached(model, inputs, plan, steps, **options):
    capture = Capture()
    with ds.attach(model, plan, **options) as attached:
        sequences = model.generate(
            **inputs, max_new_tokens=steps, do_sample=False, logits_processor=LogitsProcessorList([capture])
        )
    return sequences, capture.logits, attached.trace


RUNNERS = {"generate": run_ours, "attach": run_attached}


def check(model, inputs, plan, steps, *, runner, skipped_kv="auto"):
    """Run, then compare every step with the reference, which is fed the depths that the trace tells."""
    sequences, logits, trace = RUNNERS[runner](model, inputs, plan, steps, skipped_kv=skipped_kv)
    assert len(logits) == len(trace.steps) == steps
    if not plan.adaptive:
        assert trace.depths == [plan.depth(i) for i in range(steps)]
    write = skipped_kv == "write" or not plan.nested
    keep_sets = [plan.keep_sets[depth] for depth in trace.depths]
    expected = oracle_logits(model, sequences, inputs["attention_mask"], keep_sets, write=write)
    assert closest(logits, expected) < TOLERANCES.get(model.config.model_type, TOLERANCE)
    return trace


@st.composite
def cases(draw):
    steps = draw(st.integers(1, 12))
    plan = ds.plan(
        draw(short_specs(LAYERS, steps)), draw(any_order(LAYERS)), num_layers=LAYERS, horizon=draw(st.integers(1, 14))
    )
    inputs = prompt(draw(st.sampled_from([1, 1, 2, 4])), draw(st.integers(1, 7)), seed=draw(st.integers(0, 99)))
    return plan, inputs, steps


@pytest.mark.parametrize("runner", RUNNERS)
@settings(max_examples=50)
@given(case=cases(), variant=st.sampled_from(sorted(VARIANTS)), skipped_kv=st.sampled_from(["auto", "auto", "write"]))
def test_any_schedule_order_and_prompt(runner, case, variant, skipped_kv):
    plan, inputs, steps = case
    check(tiny(variant), inputs, plan, steps, runner=runner, skipped_kv=skipped_kv)


BY_HAND = {
    "full": "full",
    "d3": "d3:alpha=0.85,start=2",
    "constant": "constant:depth=5",
    "linear": "linear:end=3,over=6",
    "step": "step:at=2+5,drop=2+5",
    "confidence": "confidence:depth=5,margin=0.02",
}


def test_every_built_in_schedule_is_here():
    assert set(BY_HAND) == set(SCHEDULES)


ORDERS = ["middle-out:head=1,tail=1", "early-exit", "strided", "list:layers=0+6+2+7+3"]


@pytest.mark.quick
@pytest.mark.parametrize(("schedule", "order", "runner"), covering(list(BY_HAND), ORDERS, list(RUNNERS)))
def test_every_schedule_with_every_order(schedule, order, runner):
    plan = ds.plan(BY_HAND[schedule], order, num_layers=LAYERS, horizon=10)
    trace = check(tiny("llama"), prompt(1, 5), plan, 10, runner=runner)
    if schedule != "full":
        assert len(set(trace.depths)) > 1  # else the case says nothing
    if schedule == "confidence":
        assert any(b > a for a, b in zip(trace.depths[1:], trace.depths[2:], strict=False)), "it never returned"


# Each family with each runner and each kind of cache, but not with each pair of them: neither knows of the other.
WITH_CACHES = covering(list(VARIANTS), ["omit", "write"], list(RUNNERS))


@pytest.mark.quick
@pytest.mark.parametrize(("variant", "skipped_kv", "runner"), WITH_CACHES)
def test_every_family_in_a_padded_batch(variant, skipped_kv, runner):
    plan = ds.plan("d3:alpha=0.8", "strided:head=0,tail=1", num_layers=LAYERS, horizon=12)
    check(tiny(variant), prompt(4, 6), plan, 12, runner=runner, skipped_kv=skipped_kv)


# The runner that wrote no skipped layers of this family above: here it does.
RISING = [(case.values[0], case.values[2]) for case in WITH_CACHES if case.values[1] == "omit"]


@pytest.mark.quick
@pytest.mark.parametrize(("variant", "runner"), RISING)
def test_every_family_when_the_depth_rises_again(variant, runner):
    plan = ds.plan(UpAndDown(), "strided:head=0,tail=0", num_layers=LAYERS, horizon=12)
    assert not plan.nested
    trace = check(tiny(variant), prompt(4, 6), plan, 12, runner=runner)
    assert min(trace.depths) == 1


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("variant", MAIN)
def test_sdpa_gives_the_logits_of_eager(variant, runner):
    plan = ds.plan("d3:alpha=0.85", "early-exit", num_layers=LAYERS, horizon=10)
    for batch in (1, 4):
        eager, sdpa = (
            RUNNERS[runner](tiny(variant, attn), prompt(batch, 6), plan, 10)[1] for attn in ("eager", "sdpa")
        )
        assert closest(eager, sdpa) < TOLERANCE


@pytest.mark.parametrize("spec", ["d3:alpha=0.8", UpAndDown()], ids=["falls", "returns"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if "sliding" in name])
def test_a_static_cache_gives_the_logits_of_a_dynamic_one(variant: str, spec: Any) -> None:
    plan = ds.plan(spec, "strided:head=0,tail=0", num_layers=LAYERS, horizon=12)
    dynamic, static = (
        run_ours(tiny(variant), prompt(2, 6), plan, 12, **options)[1]
        for options in ({}, {"cache_implementation": "static"})
    )
    assert closest(dynamic, static) < TOLERANCE


@pytest.mark.parametrize("runner", RUNNERS)
def test_write_and_omit_agree_when_the_plan_is_nested(runner):
    plan = ds.plan("d3:alpha=0.85", num_layers=LAYERS, horizon=10)
    omit, write = (
        RUNNERS[runner](tiny("llama"), prompt(2, 5), plan, 10, skipped_kv=mode)[1] for mode in ("omit", "write")
    )
    assert closest(omit, write) < 1e-5


@pytest.mark.quick
def test_the_reference_tells_a_wrong_layer_apart():
    """A reference that never disagrees proves nothing: one layer more at one step is far outside the tolerance."""
    model, inputs = tiny("llama"), prompt(1, 5)
    plan = ds.plan("constant:depth=6", num_layers=LAYERS, horizon=6)
    sequences, logits, _ = run_ours(model, inputs, plan, 6)
    keep_sets = [plan.keep(i) for i in range(6)]
    keep_sets[3] = tuple(range(7))
    wrong = oracle_logits(model, sequences, inputs["attention_mask"], keep_sets, write=False)
    assert closest(logits[:3], wrong[:3]) < TOLERANCE
    assert closest(logits[3:4], wrong[3:4]) > 100 * TOLERANCE
    rising = ds.plan(UpAndDown(), num_layers=LAYERS, horizon=6)
    sequences, logits, _ = run_ours(model, inputs, rising, 6)
    keep_sets = [rising.keep(i) for i in range(6)]
    wrong = oracle_logits(model, sequences, inputs["attention_mask"], keep_sets, write=False)
    assert closest(logits, wrong) > 100 * TOLERANCE


@pytest.mark.quick
def test_full_depth_reference_is_the_model_itself():
    for variant in VARIANTS:
        model, inputs = tiny(variant), prompt(4, 9)
        with torch.no_grad():
            positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
            own = model(**inputs, position_ids=positions, use_cache=False).logits[:, -1]
        reference = oracle_logits(model, **_named(inputs), keep_sets=[range(LAYERS)], write=False)
        assert closest([own], reference) < TOLERANCE


def _named(inputs):
    return {"sequences": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("spec", ["d3:alpha=0.9", "confidence:depth=20,margin=0.5"])
def test_smollm2(smollm2, spec, runner):
    model, tokenizer = smollm2
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        inputs = dict(tokenizer(["The sky is", "A long story short, I"], return_tensors="pt", padding=True))
        check(model, inputs, ds.plan(spec, num_layers=30, horizon=6), 6, runner=runner)
    finally:
        model.set_attn_implementation(before)
