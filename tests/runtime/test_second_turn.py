"""A second turn on the cache of the first one: its tokens are those of a fresh run on the whole text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

import depthsched as ds
from depthsched.errors import CacheError

from ..covering import covering
from ..tiny import MAIN, make_tiny, prompt, tiny
from .helpers import UpAndDown, greedy
from .test_backends import compiles

STEPS = 9
PLANS: dict[str, tuple[Any, dict[str, Any]]] = {
    "full": ("full", {}),
    "omit": ("d3:alpha=0.85,start=2", {}),
    "written": ("confidence:depth=5,margin=0.02", {}),
    "rising": (UpAndDown(), {"skipped_kv": "recompute"}),
    "checked": ("constant:depth=5", {"verify_below": 0.02}),
    "distance": ("constant:depth=5", {"renew": 4}),
}
BACKENDS = {"compiled": pytest.param("compiled", marks=compiles), "eager": "eager"}
first = pytest.mark.parametrize("first", BACKENDS.values())
plans = pytest.mark.parametrize(("plan", "rules"), PLANS.values(), ids=PLANS)


def turn(model: Any, inputs: Any, plan: Any, **options: Any) -> ds.Run:
    return ds.generate(model, inputs, plan, max_new_tokens=STEPS, do_sample=False, **options)


def and_then(inputs: dict[str, torch.Tensor], sequences: torch.Tensor, seed: int = 5) -> dict[str, torch.Tensor]:
    """What was written, and a new question."""
    more = prompt(len(sequences), 4, seed=seed)["input_ids"].clamp_min(3)
    ids, mask = torch.cat([sequences, more], dim=1), inputs["attention_mask"]
    later = mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])
    return {"input_ids": ids, "attention_mask": torch.cat([mask, later], dim=1)}


# Any three of batch, plan and the two backends.
@pytest.mark.quick
@pytest.mark.parametrize(("batch", "how", "first", "second"), covering((1, 3), PLANS, BACKENDS, BACKENDS, strength=3))
def test_tokens_are_those_of_a_fresh_run(batch: int, how: Any, first: str, second: str) -> None:
    model, inputs, (plan, rules) = tiny("llama", "eager"), prompt(batch, 6), how
    run = turn(model, inputs, plan, backend=first, **rules)
    longer = and_then(inputs, run.sequences)
    want = turn(model, longer, plan, backend="eager", **rules)
    for _ in range(2):  # the cache is left as it was: it begins as many turns as one likes
        got = turn(model, longer, plan, backend=second, past_key_values=run.cache, **rules)
        assert got.trace.backend == second
        assert torch.equal(got.sequences, want.sequences)
        assert got.trace.depths == want.trace.depths
    third = and_then(longer, got.sequences, seed=6)
    want = turn(model, third, plan, backend="eager", **rules)
    assert torch.equal(turn(model, third, plan, past_key_values=got.cache, **rules).sequences, want.sequences)


@pytest.mark.quick
@plans
def test_inside_attach(plan: Any, rules: dict[str, Any]) -> None:
    """The caller's own cache, turn after turn, whoever wrote it."""
    model, inputs, cache = tiny("qwen2", "sdpa"), prompt(2, 6), DynamicCache()
    rules = {"skipped_kv": "omit", **rules} if plan == PLANS["omit"][0] else {"skipped_kv": "recompute", **rules}
    sequences = None
    for seed in range(3):
        fresh = turn(model, inputs, plan, backend="eager", **rules).sequences
        if seed == 1:
            sequences = turn(model, inputs, plan, past_key_values=cache, **rules).sequences
        else:
            with ds.attach(model, plan, **rules):
                sequences = greedy(model, inputs, STEPS, past_key_values=cache)
        assert torch.equal(sequences, fresh)
        inputs = and_then(inputs, sequences, seed)


@pytest.mark.quick
def test_a_run_cache_inside_attach_and_transformers() -> None:
    model, inputs, plan = tiny("llama", "sdpa"), prompt(1, 6), "constant:depth=5"
    run = turn(model, inputs, plan)
    longer = and_then(inputs, run.sequences)
    assert run.cache is not None
    want = turn(model, longer, plan).sequences
    with ds.attach(model, plan):
        assert torch.equal(greedy(model, longer, STEPS, past_key_values=run.cache.fresh()), want)
        with pytest.raises(CacheError, match="another text"):
            greedy(model, prompt(1, 12, seed=3), STEPS, past_key_values=run.cache)
    want = greedy(model, longer, STEPS)
    assert torch.equal(greedy(model, longer, STEPS, past_key_values=run.cache.fresh()), want)


@pytest.mark.quick
@pytest.mark.parametrize("variant", MAIN)
def test_only_what_is_new_is_computed(variant: str) -> None:
    model, inputs = make_tiny(variant, "sdpa"), prompt(1, 6)
    seen: list[int] = []
    handle = model.model.layers[0].register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    try:
        for plan, made in (("full", 1), ("constant:depth=5", STEPS)):
            run = turn(model, inputs, plan, backend="eager")
            longer = and_then(inputs, run.sequences)
            seen.clear()
            turn(model, longer, plan, backend="eager", past_key_values=run.cache)
            # The last token was never fed; of a shallow turn all of its own come again, at full depth.
            assert seen[0] == made + 4
    finally:
        handle.remove()


@pytest.mark.quick
@settings(max_examples=20)
@given(st.data())
def test_any_length_and_end(data: st.DataObject) -> None:
    model = tiny("llama", "sdpa")
    inputs, (plan, rules) = prompt(1, data.draw(st.integers(1, 9))), data.draw(st.sampled_from([*PLANS.values()]))
    steps = data.draw(st.integers(1, 12))
    run = ds.generate(model, inputs, plan, max_new_tokens=steps, backend="eager", **rules)
    cut = data.draw(st.integers(0, steps - 1))  # a streamer or the reader may have stopped earlier
    longer = and_then(inputs, run.sequences[:, : run.sequences.shape[1] - cut])
    assert run.cache is not None
    held = run.cache.get_seq_length()
    if held > longer["input_ids"].shape[1] - 4:
        return  # the new question does not come after what is held: another text
    want = turn(model, longer, plan, backend="eager", **rules).sequences
    assert torch.equal(turn(model, longer, plan, past_key_values=run.cache, **rules).sequences, want)


@pytest.mark.quick
def test_several_answers_from_one_cache() -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(1, 6)
    run = turn(model, inputs, "constant:depth=5")
    longer = and_then(inputs, run.sequences)
    options: dict[str, Any] = {"num_return_sequences": 3, "do_sample": True, "max_new_tokens": 6}
    torch.manual_seed(0)
    want = ds.generate(model, longer, "constant:depth=5", **options).sequences
    torch.manual_seed(0)
    got = ds.generate(model, longer, "constant:depth=5", past_key_values=run.cache, **options).sequences
    assert torch.equal(got, want)


@pytest.mark.quick
def test_what_is_refused() -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(2, 6)
    run = turn(model, inputs, "full")
    longer = and_then(inputs, run.sequences)
    ids, mask = longer["input_ids"], longer["attention_mask"]
    changed = ids.clone()
    changed[1, 7] = (changed[1, 7] + 1) % 100
    cases = [
        ({"input_ids": changed, "attention_mask": mask}, "another text: it differs at token 7"),
        ({"input_ids": ids[:1], "attention_mask": mask[:1]}, "a batch of 2 rows and the text has 1"),
        ({"input_ids": ids, "attention_mask": torch.ones_like(mask)}, "padded otherwise"),
        ({"input_ids": ids[:, :9], "attention_mask": mask[:, :9]}, "holds 14 tokens and the text has 9"),
        (prompt(2, 3), "another text"),
    ]
    for given_, words in cases:
        with pytest.raises(CacheError, match=words):
            turn(model, given_, "full", past_key_values=run.cache)
    cache = DynamicCache()
    turn(model, prompt(1, 6), "full", past_key_values=cache)
    with pytest.raises(CacheError, match="give the whole text"):
        turn(model, prompt(1, 3), "full", past_key_values=cache)


@pytest.mark.quick
def test_where_there_is_none() -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(2, 6)
    assert turn(model, inputs, "full", drop_finished=True).cache is None
    assert turn(tiny("mistral-sliding"), inputs, "full").cache is None
    assert turn(tiny("mistral-sliding"), inputs, "constant:depth=5", renew=4).cache is not None


@first
def test_smollm2(smollm2: tuple[Any, Any], first: str) -> None:
    model, tokenizer = smollm2
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    run = turn(model, inputs, "confidence:depth=20,margin=0.2", skipped_kv="recompute", backend=first)
    more = tokenizer(" And the capital of Spain", return_tensors="pt")["input_ids"]
    ids = torch.cat([run.sequences, more], dim=1)
    options: dict[str, Any] = {"skipped_kv": "recompute", "backend": first}
    want = turn(model, ids, "confidence:depth=20,margin=0.2", **options)
    got = turn(model, ids, "confidence:depth=20,margin=0.2", past_key_values=run.cache, **options)
    assert torch.equal(got.sequences, want.sequences)
