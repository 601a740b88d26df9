"""A plan inside every mode of an unmodified generate(): caches, padding, beams, pipelines, second turns."""

import pytest
import torch
from transformers import DynamicCache, LogitsProcessorList, StaticCache, pipeline

import depthsched as ds
from depthsched.errors import CacheError

from ..covering import covering
from ..tiny import LAYERS, prompt, tiny
from .helpers import Capture, UpAndDown, closest, greedy, padded_ids
from .oracle import oracle_logits

TOLERANCE = 1e-4
PLAN = ds.plan("d3:alpha=0.85,start=1", "early-exit", num_layers=LAYERS, horizon=12)


def check_scheduled(model, inputs, plan, steps, repeat=1, **kwargs):
    capture = Capture()
    with ds.attach(model, plan) as attached:
        sequences = greedy(model, inputs, steps, logits_processor=LogitsProcessorList([capture]), **kwargs)
    assert attached.trace.depths == list(plan.depths[:steps])
    mask = inputs["attention_mask"].repeat_interleave(repeat, 0)
    keep_sets = [plan.keep(i) for i in range(steps)]
    expected = oracle_logits(model, sequences, mask, keep_sets, write=not plan.nested)
    assert closest(capture.logits, expected) < TOLERANCE


DROPS_FIRST = ds.plan("d3:alpha=0.8", "list:layers=0+1+7+4+2", num_layers=LAYERS, horizon=12)
RISES = ds.plan(UpAndDown(), "list:layers=0+1+7+4+2", num_layers=LAYERS, horizon=12)


# Each three of these in every combination; one row or four padded ones change with the rest.
CASES = covering(
    ("llama", "mistral-sliding", "qwen2-sliding"),
    {"early-exit": PLAN, "drops-layer-0": DROPS_FIRST, "rises": RISES},
    {
        "dynamic": {},
        "static": {"cache_implementation": "static"},
        "chunks-of-1": {"prefill_chunk_size": 1},
        "chunks-of-3": {"prefill_chunk_size": 3},
    },
    (1, 4),
    strength=3,
)


@pytest.mark.quick
@pytest.mark.parametrize(("variant", "plan", "options", "batch"), CASES)
def test_caches_padding_and_chunked_prefill(variant, plan, options, batch):
    check_scheduled(tiny(variant), prompt(batch, 7), plan, 12, **options)


@pytest.mark.quick
@pytest.mark.parametrize("implementation", ["dynamic", "static"])
@pytest.mark.parametrize("plan", [DROPS_FIRST, RISES], ids=["drops-layer-0", "rises"])
def test_the_own_loop_on_either_cache(plan, implementation):
    model, inputs, capture = tiny("llama"), prompt(4, 7), Capture()
    run = ds.generate(
        model, inputs, plan, max_new_tokens=12, logits_processor=[capture], cache_implementation=implementation
    )
    keep_sets = [plan.keep(i) for i in range(12)]
    expected = oracle_logits(model, run.sequences, inputs["attention_mask"], keep_sets, write=not plan.nested)
    assert closest(capture.logits, expected) < TOLERANCE


@pytest.mark.quick
@pytest.mark.parametrize("batch", [1, 2])
def test_beam_search_at_full_depth(batch):
    model, inputs = tiny("llama"), prompt(batch, 5, seed=1)
    options = {"num_beams": 4, "num_return_sequences": 3}
    expected = greedy(model, inputs, **options)
    assert not torch.equal(expected[:1], greedy(model, inputs)[:1])
    with ds.attach(model, "full"):
        assert torch.equal(greedy(model, inputs, **options), expected)


@pytest.mark.quick
@pytest.mark.parametrize("plan", [PLAN, RISES], ids=["nested", "rises"])
def test_scores_of_beams_equal_the_reference(plan):
    """Each returned beam's score is the sum of its log-probabilities, recomputed from scratch."""
    model, inputs = tiny("llama"), prompt(2, 5)
    with ds.attach(model, plan) as attached:
        out = greedy(
            model,
            inputs,
            num_beams=3,
            num_return_sequences=3,
            length_penalty=0.0,
            return_dict_in_generate=True,
            output_scores=True,
        )
    assert attached.trace.depths == list(plan.depths[:8])
    mask = inputs["attention_mask"].repeat_interleave(3, 0)
    logits = oracle_logits(model, out.sequences, mask, [plan.keep(i) for i in range(8)], write=not plan.nested)
    chosen = out.sequences[:, 5:].T
    scores = sum(step.log_softmax(-1).gather(1, t[:, None])[:, 0] for step, t in zip(logits, chosen, strict=True))
    assert torch.allclose(out.sequences_scores, scores, atol=1e-4)


@pytest.mark.quick
def test_several_samples_of_one_prompt():
    model, inputs = tiny("llama"), prompt(2, 5)
    options = {"max_new_tokens": 8, "do_sample": True, "num_return_sequences": 3}
    torch.manual_seed(5)
    expected = model.generate(**inputs, **options)
    torch.manual_seed(5)
    with ds.attach(model, "full"):
        assert torch.equal(model.generate(**inputs, **options), expected)
    capture = Capture()
    with ds.attach(model, PLAN):
        sequences = model.generate(**inputs, **options, logits_processor=LogitsProcessorList([capture]))
    mask = inputs["attention_mask"].repeat_interleave(3, 0)
    reference = oracle_logits(model, sequences, mask, [PLAN.keep(i) for i in range(8)], write=False)
    assert closest(capture.logits, reference) < TOLERANCE


def test_pipelines(smollm2):
    model, tokenizer = smollm2
    plan = ds.plan("d3:alpha=0.9", num_layers=30, horizon=6)
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    options = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    with ds.attach(model, plan) as attached:
        [answer] = generator("The sky is", **options)
    assert attached.trace.depths == list(plan.depths)
    run = ds.generate(model, padded_ids(tokenizer, ["The sky is"]), plan, max_new_tokens=6)
    assert answer["generated_text"] == tokenizer.decode(run.tokens[0], skip_special_tokens=True)


def first_turn(model, way, plan, cache, skipped_kv):
    if way == "generate":
        return ds.generate(
            model, prompt(1, 5), plan, max_new_tokens=6, past_key_values=cache, skipped_kv=skipped_kv
        ).sequences
    with ds.attach(model, plan, skipped_kv=skipped_kv):
        return greedy(model, prompt(1, 5), 6, past_key_values=cache)


@pytest.mark.quick
@pytest.mark.parametrize("way", ["generate", "attach"])
def test_a_second_turn_on_holes_that_cannot_be_cut_is_refused(model, way):
    cache = StaticCache(config=model.config, max_cache_len=32)
    sequences = first_turn(model, way, PLAN, cache, "omit")
    inputs = {"input_ids": sequences, "attention_mask": torch.ones_like(sequences)}
    with pytest.raises(CacheError, match="holes"):
        ds.generate(model, inputs, PLAN, max_new_tokens=3, past_key_values=cache)
    with ds.attach(model, PLAN), pytest.raises(CacheError, match="holes"):
        greedy(model, inputs, 3, past_key_values=cache)


@pytest.mark.quick
@pytest.mark.parametrize("second", ["generate", "attach"])
@pytest.mark.parametrize("way", ["generate", "attach"])
def test_a_second_turn_on_a_written_cache_equals_the_reference(model, way, second):
    cache = DynamicCache(config=model.config)
    sequences = first_turn(model, way, PLAN, cache, "write")
    more = torch.cat([sequences, prompt(1, 4, seed=8)["input_ids"]], dim=1)
    inputs, capture = {"input_ids": more, "attention_mask": torch.ones_like(more)}, Capture()
    if second == "generate":
        final = ds.generate(
            model, inputs, PLAN, max_new_tokens=6, past_key_values=cache, skipped_kv="write", logits_processor=[capture]
        ).sequences
    else:
        with ds.attach(model, PLAN, skipped_kv="write"):
            final = greedy(model, inputs, 6, past_key_values=cache, logits_processor=LogitsProcessorList([capture]))
    # The last token of turn one was never fed; it opens the second prefill, at full depth like the new prompt.
    full = range(LAYERS)
    keep_sets = [full, *(PLAN.keep(i) for i in range(1, 6)), *[full] * 5, *(PLAN.keep(i) for i in range(1, 6))]
    reference = oracle_logits(model, final, torch.ones(1, 5, dtype=torch.long), keep_sets, write=True)
    assert closest(capture.logits, reference[-6:]) < TOLERANCE


@pytest.mark.quick
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("way", ["generate", "attach"])
def test_signals_are_those_of_the_raw_distribution(model, way, batch):
    """Also when processors change the scores: the schedule sees the model. The row that wants the deepest counts."""
    plan, inputs = ds.plan("confidence:depth=5,margin=0.02", num_layers=LAYERS, horizon=8), prompt(batch, 5)
    options = {"do_sample": True, "temperature": 0.2, "top_k": 3, "repetition_penalty": 1.5}
    torch.manual_seed(0)
    if way == "generate":
        run = ds.generate(model, inputs, plan, max_new_tokens=8, **options)
        sequences, trace = run.sequences, run.trace
    else:
        with ds.attach(model, plan) as attached:
            sequences = model.generate(**inputs, max_new_tokens=8, **options)
        trace = attached.trace
    keep_sets = [plan.keep_sets[d] for d in trace.depths]
    logits = oracle_logits(model, sequences, inputs["attention_mask"], keep_sets, write=True)
    assert trace.steps[0].signals is None
    for before, record in zip(logits, trace.steps[1:], strict=False):
        p = before.softmax(-1)
        top = p.sort(descending=True).values
        margins = (top[:, 0] - top[:, 1]).tolist()
        unsure = [m for m in margins if m < 0.02]
        assert record.depth == (LAYERS if unsure else 5)
        assert record.signals.asdict() == {"margin": pytest.approx((unsure or margins)[0], abs=1e-5)}
