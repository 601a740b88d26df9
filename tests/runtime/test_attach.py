"""A plan inside an unmodified generate(): what works, what is refused, and that nothing stays behind."""

import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LogitsProcessorList, pipeline

import depthsched as ds
from depthsched.errors import AttachError, CacheError, PlanError

from ..tiny import LAYERS, prompt, tiny
from .helpers import Capture, RaiseAt, closest, padded_ids
from .oracle import oracle_logits

TOLERANCE = 1e-4
PLAN = ds.plan("d3:alpha=0.85,start=1", "early-exit", num_layers=LAYERS, horizon=12)


@dataclass(frozen=True)
class UpAndDown(ds.DepthSchedule):
    monotone = False

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - (3 * step) % num_layers


def greedy(model, inputs, steps=8, **kwargs):
    return model.generate(**inputs, max_new_tokens=steps, do_sample=False, **kwargs)


def snapshot(model):
    """Everything an attachment could leave behind."""
    with torch.no_grad():
        logits = model(**prompt(2, 5), use_cache=False).logits
    return {
        "keys": list(model.state_dict()),
        "attributes": {name: id(value) for name, value in model.__dict__.items()},
        "decoder": {name: id(value) for name, value in model.model.__dict__.items()},
        "modules": {name: id(module) for name, module in model.named_modules()},
        "list": type(model.model.layers),
        "generate": model.generate.__func__,
        "hooks": [
            (name, dict(hooks))
            for name, module in model.named_modules()
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
            if hooks
        ],
        "config": model.config.to_json_string(),
        "generation": model.generation_config.to_json_string(),
        "logits": logits.tolist(),
    }


class Own(Exception):
    pass


@pytest.mark.quick
@pytest.mark.parametrize("spec", ["d3:alpha=0.85", "confidence:depth=5,margin=0.02"])
@pytest.mark.parametrize("error", [None, Own("mine"), KeyboardInterrupt()], ids=["success", "exception", "interrupt"])
@pytest.mark.parametrize("way", ["attach", "generate"])
def test_no_trace_is_left(model, way, error, spec):
    before, tokens = snapshot(model), greedy(model, prompt(2, 5))
    processors = LogitsProcessorList([RaiseAt(4, error)] if error else [])

    def run():
        if way == "generate":
            ds.generate(model, prompt(2, 5), spec, max_new_tokens=8, logits_processor=processors)
        else:
            with ds.attach(model, spec):
                assert list(model.state_dict()) == before["keys"]
                greedy(model, prompt(2, 5), logits_processor=processors)

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    assert snapshot(model) == before
    assert torch.equal(greedy(model, prompt(2, 5)), tokens)


@pytest.mark.quick
def test_an_error_inside_generate_leaves_the_attachment_usable(model):
    with ds.attach(model, PLAN) as attached:
        expected = greedy(model, prompt(1, 5))
        with pytest.raises(Own):
            greedy(model, prompt(1, 5), logits_processor=LogitsProcessorList([RaiseAt(3, Own())]))
        assert torch.equal(greedy(model, prompt(1, 5)), expected)
        assert attached.trace.depths == list(PLAN.depths[:8])


@pytest.mark.quick
def test_what_a_user_put_on_the_instance_comes_back(model):
    calls = []
    original = model.generate

    def mine(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    model.generate = mine
    with ds.attach(model, PLAN) as attached:
        greedy(model, prompt(1, 5))
    assert model.generate is mine
    assert calls == [1]
    assert attached.trace.depths == list(PLAN.depths[:8])


@pytest.mark.quick
def test_attachments_follow_each_other(model):
    expected = [ds.generate(model, prompt(1, 5), p, max_new_tokens=8).sequences for p in ("full", PLAN)]
    attached = ds.attach(model, PLAN)
    for _ in range(2):
        assert torch.equal(greedy(model, prompt(1, 5)), expected[0])
        with attached:
            assert torch.equal(greedy(model, prompt(1, 5)), expected[1])
            assert torch.equal(greedy(model, prompt(1, 5)), expected[1])


@pytest.mark.quick
def test_a_forward_outside_generate_runs_at_full_depth(model):
    with torch.no_grad():
        full = model(**prompt(1, 5)).logits
        with ds.attach(model, PLAN):
            assert torch.equal(model(**prompt(1, 5)).logits, full)
            greedy(model, prompt(1, 5))
            assert torch.equal(model(**prompt(1, 5)).logits, full)


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


@pytest.mark.quick
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "options",
    [{}, {"cache_implementation": "static"}, {"prefill_chunk_size": 1}, {"prefill_chunk_size": 3}],
    ids=["dynamic", "static", "chunks-of-1", "chunks-of-3"],
)
@pytest.mark.parametrize("plan", [PLAN, DROPS_FIRST, RISES], ids=["early-exit", "drops-layer-0", "rises"])
@pytest.mark.parametrize("variant", ["llama", "mistral-sliding", "qwen2-sliding"])
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


@pytest.mark.quick
def test_a_second_attach_is_refused(model):
    with ds.attach(model, PLAN):
        with pytest.raises(AttachError, match="already runs a plan"), ds.attach(model, "full"):
            pass
        with pytest.raises(AttachError, match="already runs a plan"):
            ds.generate(model, prompt(1, 3), "full", max_new_tokens=2)
        assert greedy(model, prompt(1, 5)).shape == (1, 13)


@pytest.mark.quick
def test_one_attachment_entered_twice_is_refused_and_comes_off(model):
    before, attached = snapshot(model), ds.attach(model, PLAN)
    with attached, pytest.raises(AttachError), attached:
        pass
    assert snapshot(model) == before


class Wait(Capture):
    """Stops generate in its first step until told to go on."""

    def __init__(self):
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, input_ids, scores):
        self.reached.set()
        assert self.go_on.wait(60)
        return super().__call__(input_ids, scores)


@pytest.mark.quick
def test_two_threads_on_one_attached_model(model):
    expected = ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=8).sequences
    wait, results = Wait(), []
    with ds.attach(model, PLAN):
        thread = threading.Thread(
            target=lambda: results.append(greedy(model, prompt(1, 5), logits_processor=LogitsProcessorList([wait])))
        )
        thread.start()
        try:
            assert wait.reached.wait(60)
            with pytest.raises(AttachError, match="another thread"):
                greedy(model, prompt(1, 5))
        finally:
            wait.go_on.set()
            thread.join(60)
    assert torch.equal(results[0], expected)


@pytest.mark.quick
def test_two_threads_in_the_own_loop(model):
    expected = ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=8).sequences
    wait, results = Wait(), []
    thread = threading.Thread(
        target=lambda: results.append(
            ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=8, logits_processor=[wait]).sequences
        )
    )
    thread.start()
    try:
        assert wait.reached.wait(60)
        with pytest.raises(AttachError, match="another thread"):
            ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=8)
    finally:
        wait.go_on.set()
        thread.join(60)
    assert torch.equal(results[0], expected)


@pytest.mark.quick
def test_without_a_cache_there_is_no_plan(model):
    with ds.attach(model, PLAN), pytest.raises(CacheError, match="use_cache"):
        greedy(model, prompt(1, 5), use_cache=False)
    with pytest.raises(CacheError, match="use_cache"):
        ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=4, use_cache=False)


@pytest.mark.quick
@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 2}, {"assistant_early_exit": 2}])
def test_speculation_is_refused(model, options):
    with ds.attach(model, PLAN), pytest.raises(AttachError, match=next(iter(options))):
        greedy(model, prompt(1, 5), **options)


@pytest.mark.quick
def test_an_assistant_is_refused(model):
    with ds.attach(model, PLAN), pytest.raises(AttachError, match="assistant_model"):
        greedy(model, prompt(1, 5), assistant_model=tiny("llama"))


@pytest.mark.quick
def test_speculation_set_on_the_model_is_refused(model):
    model.generation_config.prompt_lookup_num_tokens = 2
    with ds.attach(model, PLAN), pytest.raises(AttachError):
        greedy(model, prompt(1, 5))


def first_turn(model, way, plan, cache, skipped_kv):
    if way == "generate":
        return ds.generate(
            model, prompt(1, 5), plan, max_new_tokens=6, past_key_values=cache, skipped_kv=skipped_kv
        ).sequences
    with ds.attach(model, plan, skipped_kv=skipped_kv):
        return greedy(model, prompt(1, 5), 6, past_key_values=cache)


@pytest.mark.quick
@pytest.mark.parametrize("way", ["generate", "attach"])
def test_a_second_turn_on_a_cache_with_holes_is_refused(model, way):
    cache = DynamicCache(config=model.config)
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
def test_plans_that_do_not_fit(model):
    other = ds.plan("full", num_layers=LAYERS + 1)
    for call in (lambda: ds.attach(model, other), lambda: ds.generate(model, prompt(1, 3), other)):
        with pytest.raises(PlanError, match="9 layers and the model has 8"):
            call()
    for call in (
        lambda: ds.attach(model, RISES, skipped_kv="omit"),
        lambda: ds.generate(model, prompt(1, 3), RISES, skipped_kv="omit"),
    ):
        with pytest.raises(PlanError, match="not nested"):
            call()
    with pytest.raises(PlanError, match="order already"):
        ds.attach(model, PLAN, order="strided")


@pytest.mark.quick
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("way", ["generate", "attach"])
def test_signals_are_those_of_the_raw_distribution(model, way, batch):
    """Also when processors change the scores: the schedule sees the model. The least sure row counts."""
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
        expected = ((-(p * p.log()).sum(-1)).max(), top[:, 0].min(), (top[:, 0] - top[:, 1]).min())
        assert record.signals == pytest.approx([float(x) for x in expected], abs=1e-5)
        assert record.depth == (5 if record.signals.margin >= 0.02 else LAYERS)
