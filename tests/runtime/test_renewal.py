"""Runs that renew their cache: logits, depths and renewed positions are those of the slow reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

import depthsched as ds
from depthsched.errors import AttachError, CacheError, PlanError
from depthsched.runtime.renewal import ends_sentence

from ..properties.strategies import any_order, short_specs
from ..tiny import LAYERS, MAIN, VARIANTS, prompt, tiny
from .helpers import Capture, RaiseAt, UpAndDown, closest, greedy
from .oracle import renewed_logits
from .test_backends import compiles

TOLERANCE = 1e-4
backends = pytest.mark.parametrize("backend", ["eager", pytest.param("compiled", marks=compiles)])


def check(model: Any, inputs: Any, plan: ds.DepthPlan, steps: int, backend: str, **rules: Any) -> ds.Run:
    """Run, and compare logits, depths and passes with the reference, which applies the rules itself."""
    capture = Capture()
    run = ds.generate(
        model, inputs, plan, max_new_tokens=steps, skipped_kv="recompute", backend=backend,
        logits_processor=[capture], **rules,
    )  # fmt: skip
    every = rules.get("renew") or 0
    logits, told = renewed_logits(
        model, run.sequences, inputs["attention_mask"], plan, steps,
        verify_below=rules.get("verify_below") or 0.0, due=lambda held, _: bool(every) and held >= every - 1,
    )  # fmt: skip
    assert run.trace.backend == backend
    assert [(s.depth, s.renewed, s.tried) for s in run.trace.steps] == told
    assert closest(capture.logits, logits) < TOLERANCE
    return run


@st.composite
def cases(draw: st.DrawFn) -> Any:
    steps = draw(st.integers(1, 14))
    spec = draw(st.one_of(short_specs(LAYERS, steps), st.just(UpAndDown())))
    plan = ds.plan(spec, draw(any_order(LAYERS)), num_layers=LAYERS, horizon=draw(st.integers(1, 14)))
    inputs = prompt(draw(st.sampled_from([1, 1, 3])), draw(st.integers(1, 7)), seed=draw(st.integers(0, 99)))
    rules = {
        "verify_below": draw(st.sampled_from([None, None, 0.005, 0.02, 0.1])),
        "renew": draw(st.sampled_from([None, None, 1, 2, 5])),
    }
    return plan, inputs, steps, rules


@pytest.mark.quick
@backends
@settings(max_examples=25)
@given(case=cases(), variant=st.sampled_from(sorted(VARIANTS)), main=st.sampled_from(MAIN))
def test_any_plan_rule_and_prompt(backend: str, case: Any, variant: str, main: str) -> None:
    plan, inputs, steps, rules = case
    check(tiny(variant if backend == "eager" else main), inputs, plan, steps, backend, **rules)


@pytest.mark.quick
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_family_when_the_depth_rises_again(variant: str) -> None:
    plan = ds.plan(UpAndDown(), "strided:head=0,tail=0", num_layers=LAYERS, horizon=12)
    run = check(tiny(variant), prompt(3, 6), plan, 12, "eager")
    assert any(s.renewed for s in run.trace.steps)


@backends
@pytest.mark.parametrize("rules", [{}, {"verify_below": 0.2}, {"renew": 4}], ids=["confidence", "verify", "every"])
def test_smollm2(smollm2: tuple[Any, Any], rules: dict[str, Any], backend: str) -> None:
    model, tokenizer = smollm2
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        inputs = dict(tokenizer(["The sky is", "A long story short, I"], return_tensors="pt", padding=True))
        spec = "constant:depth=20" if rules else "confidence:depth=20,margin=0.1"
        run = check(model, inputs, ds.plan(spec, num_layers=30, horizon=6), 6, backend, **rules)
        assert any(s.renewed or s.tried for s in run.trace.steps)
    finally:
        model.set_attn_implementation(before)


@pytest.mark.quick
def test_the_reference_tells_a_missing_renewal_apart() -> None:
    model, inputs, plan = tiny("llama"), prompt(1, 5), ds.plan(UpAndDown(), num_layers=LAYERS, horizon=10)
    capture = Capture()
    run = ds.generate(model, inputs, plan, max_new_tokens=10, skipped_kv="write", logits_processor=[capture])
    logits, _ = renewed_logits(model, run.sequences, inputs["attention_mask"], plan, 10)
    assert closest(capture.logits, logits) > 100 * TOLERANCE


@pytest.mark.quick
@settings(max_examples=25)
@given(case=cases(), variant=st.sampled_from(sorted(v for v in VARIANTS if "sliding" not in v)))
def test_attach_does_the_same(case: Any, variant: str) -> None:
    plan, inputs, steps, rules = case
    model = tiny(variant)
    ours = ds.generate(
        model, inputs, plan, max_new_tokens=steps, skipped_kv="recompute", backend="eager", do_sample=False, **rules
    )
    with ds.attach(model, plan, skipped_kv="recompute", **rules) as attached:
        sequences = greedy(model, inputs, steps)
    assert torch.equal(sequences, ours.sequences)
    found, want = (
        [(s.depth, s.renewed, s.tried) for s in trace.steps] for trace in (attached.trace or ours.trace, ours.trace)
    )
    assert found == want


@pytest.mark.quick
def test_attach_with_beams_and_sentences() -> None:
    """Rows change places between steps: their tokens and their cache go together."""
    model, inputs = tiny("llama", "sdpa"), prompt(2, 5)
    options: dict[str, Any] = {"max_new_tokens": 10, "num_beams": 3, "do_sample": False}
    want = model.generate(**inputs, **options)
    with ds.attach(model, "constant:depth=5", renew=1):
        assert torch.equal(model.generate(**inputs, **options), want)
    with ds.attach(model, "constant:depth=5", verify_below=1.0) as attached:
        assert torch.equal(model.generate(**inputs, **options), want)
        assert attached.trace is not None
        assert {s.tried for s in attached.trace.steps[1:]} == {5}


@pytest.mark.quick
def test_what_attach_refuses() -> None:
    model = tiny("mistral-sliding")
    with ds.attach(model, UpAndDown(), skipped_kv="recompute"):
        with pytest.raises(CacheError, match="give past_key_values=DynamicCache"):
            greedy(model, prompt(1, 5))
        assert greedy(model, prompt(1, 5), past_key_values=DynamicCache()).shape == (1, 13)
        with pytest.raises(AttachError, match="give no inputs_embeds"):
            model.generate(inputs_embeds=torch.zeros(1, 3, 32), max_new_tokens=2)
    with pytest.raises(PlanError, match="the tokenizer is for renew='sentence'"):
        ds.attach(model, "full", tokenizer=object())
    with pytest.raises(PlanError, match="renew=4 renews"):
        ds.attach(model, "full", renew=4, skipped_kv="write")


@pytest.mark.quick
@backends
def test_where_nothing_rises_it_is_omit(backend: str) -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(3, 6)
    some, others = (
        ds.generate(model, inputs, "d3:alpha=0.9", max_new_tokens=12, skipped_kv=kv, backend=backend)
        for kv in ("omit", "recompute")
    )
    assert torch.equal(some.sequences, others.sequences)
    assert some.cost.total == others.cost.total
    assert others.to_json()["renewal"] == {"passes": 0, "positions": 0, "checked": 0}


@pytest.mark.quick
@backends
def test_rows_that_end_are_dropped_and_do_not_count(backend: str) -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(4, 6)
    free = ds.generate(model, inputs, "full", max_new_tokens=16).tokens
    options: dict[str, Any] = {
        "eos_token_id": int(free[1, 3]), "pad_token_id": 0, "max_new_tokens": 16, "backend": backend, "renew": 3,
        "verify_below": 0.02,
    }  # fmt: skip
    kept, dropped = (
        ds.generate(model, inputs, "confidence:depth=5,margin=0.01", drop_finished=drop, **options)
        for drop in (False, True)
    )
    assert bool((kept.tokens == 0).any())
    assert torch.equal(kept.tokens, dropped.tokens)
    assert [(s.depth, s.renewed, s.tried) for s in kept.trace.steps] == [
        (s.depth, s.renewed, s.tried) for s in dropped.trace.steps
    ]


@pytest.mark.quick
def test_cost_counts_what_ran() -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(2, 6)
    run = ds.generate(model, inputs, "constant:depth=5", max_new_tokens=10, renew=4, verify_below=0.02)
    shape, expected = run.shape, 0.0
    for i, step in enumerate(run.trace.steps[1:], start=1):
        expected += shape.step_bytes(step.depth, 6 + i, batch=2)
        expected += shape.step_bytes(step.tried, 6 + i, batch=2) if step.tried else 0
        expected += 2 * step.renewed * LAYERS * shape.kv_values * shape.kv_bytes
    assert run.cost.total == pytest.approx(expected)
    layers = sum(s.depth + s.tried for s in run.trace.steps[1:])
    assert run.trace.mean_depth == pytest.approx(layers / 9)
    found = run.to_json()["renewal"]
    assert found["positions"] == sum(s.renewed for s in run.trace.steps) > 0
    assert found["checked"] == sum(s.tried > 0 for s in run.trace.steps) > 0
    assert f"renewed {found['positions']} positions, {found['checked']} unsure tokens checked" in run.report()
    assert run.trace.to_rows()[3].keys() >= {"renewed", "tried"}


@backends
def test_sentences(smollm2: tuple[Any, Any], backend: str) -> None:
    model, tokenizer = smollm2
    inputs = tokenizer("The sky is blue. It is", return_tensors="pt")
    run = ds.generate(
        model, inputs, "constant:depth=24", max_new_tokens=40, renew="sentence", tokenizer=tokenizer, backend=backend
    )
    steps, texts = run.trace.steps, [tokenizer.decode([token]) for token in run.tokens[0].tolist()]
    assert [s.depth == 30 for s in steps[1:]] == [ends_sentence(text) for text in texts[:-1]]
    assert any(s.renewed for s in steps)


@pytest.mark.quick
def test_what_ends_a_sentence() -> None:
    assert all(map(ends_sentence, [".", "!", "?", ' done."', "\n", "。", "...)", ".\n\n"]))
    assert not any(map(ends_sentence, ["", " ", "a", ",", ";", "3.1", '"']))


@pytest.mark.quick
@backends
def test_nothing_is_left_after_an_exception(backend: str) -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(2, 6)
    options: dict[str, Any] = {"max_new_tokens": 12, "renew": 3, "backend": backend}
    want = ds.generate(model, inputs, "constant:depth=5", **options).sequences
    for step in (0, 4, 6):
        with pytest.raises(KeyboardInterrupt):
            ds.generate(
                model, inputs, "constant:depth=5", logits_processor=[RaiseAt(step, KeyboardInterrupt())], **options
            )
        assert type(model.model.layers) is torch.nn.ModuleList
    assert torch.equal(ds.generate(model, inputs, "constant:depth=5", **options).sequences, want)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"verify_below": 0.0}, r"verify_below=0.0 must be above 0 and at most 1"),
        ({"verify_below": 1.5}, r"verify_below=1.5 must be above 0"),
        ({"verify_below": 0.2, "skipped_kv": "write"}, r"verify_below=0.2 renews .* which skipped_kv='write' excludes"),
        ({"renew": 4, "skipped_kv": "omit"}, r"renew=4 renews .* which skipped_kv='omit' excludes"),
        ({"renew": 0}, r"renew=0 must be a number of steps from 1, or 'sentence'"),
        ({"renew": True}, r"renew=True must be a number"),
        ({"renew": "word"}, r"renew='word' must be a number"),
        ({"renew": "sentence"}, r"renew='sentence' needs the tokenizer"),
        ({"renew": 4, "lossless": True}, r"renew=4 is for runs without lossless"),
        ({"skipped_kv": "recompute", "lossless": True}, r"leaves every layer's K and V; leave it out"),
        ({"renew": 4, "cache_implementation": "static"}, r"cache_implementation='static' cannot"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        ds.generate(tiny("llama"), prompt(1, 4), "constant:depth=5", max_new_tokens=2, **options)


@pytest.mark.quick
def test_a_cache_with_a_window_is_refused() -> None:
    model = tiny("mistral-sliding")
    cache = DynamicCache(config=model.config)
    with pytest.raises(PlanError, match="without a sliding window"):
        ds.generate(model, prompt(1, 4), UpAndDown(), max_new_tokens=4, skipped_kv="recompute", past_key_values=cache)


@pytest.mark.quick
def test_a_backend_that_cannot_is_eager_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from depthsched.runtime.native import NativeBackend

    monkeypatch.delattr(NativeBackend, "renews")
    model = tiny("llama", "sdpa")
    with pytest.raises(PlanError, match="'compiled' does not renew"):
        ds.generate(model, prompt(1, 4), "constant:depth=5", max_new_tokens=4, renew=2, backend="compiled")
    run = ds.generate(model, prompt(1, 4), "constant:depth=5", max_new_tokens=4, renew=2)
    assert run.trace.backend == "eager"
