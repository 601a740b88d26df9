"""A lossless plan inside transformers' own generate: the text is the one that it writes without a plan."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import DynamicCache, GenerationConfig, TextStreamer, pipeline

import depthsched as ds
from depthsched.errors import AttachError, CacheError, PlanError

from ..tiny import LAYERS, make_tiny, prompt, tiny
from .helpers import RaiseAt, greedy
from .test_attach import snapshot

PLAN = "constant:depth=6"


@pytest.mark.quick
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("draft_tokens", [1, 4, "auto", "confidence:0.2"])
@pytest.mark.parametrize("variant", ["llama", "qwen3"])
def test_the_text_is_that_of_plain_generate(variant: str, draft_tokens: Any, batch: int) -> None:
    model, inputs = tiny(variant, "sdpa"), prompt(batch, 6)
    want = greedy(model, inputs, 20)
    with ds.attach(model, PLAN, lossless=True, draft_tokens=draft_tokens) as attached:
        assert torch.equal(greedy(model, inputs, 20), want)
        assert torch.equal(model.generate(inputs["input_ids"][:1], max_new_tokens=4, do_sample=False), want[:1, :10])
    assert attached.trace is not None
    assert attached.trace.backend == "attach"
    assert attached.trace.rounds
    assert torch.equal(greedy(model, inputs, 20), want)


@pytest.mark.quick
@settings(max_examples=15)
@given(st.data())
def test_any_processor_and_end(data: st.DataObject) -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(data.draw(st.integers(1, 3)), 5)
    options: dict[str, Any] = {"pad_token_id": 0}
    if data.draw(st.booleans()):
        options["eos_token_id"] = data.draw(st.sampled_from(greedy(model, inputs, 12)[:, 5:].flatten().tolist()))
    if data.draw(st.booleans()):
        options |= data.draw(st.sampled_from([{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}]))
    want = greedy(model, inputs, 12, **options)
    with ds.attach(model, data.draw(st.sampled_from([PLAN, "d3:alpha=0.9", "confidence:depth=5"])), lossless=True,
                   draft_tokens=data.draw(st.integers(1, 5))):  # fmt: skip
        assert torch.equal(greedy(model, inputs, 12, **options), want)


def test_sampled_tokens_have_full_depths_distribution() -> None:
    size, draws = 6, 6_000
    model = make_tiny("llama", "sdpa", vocab_size=size, pad_token_id=None, bos_token_id=None)
    ids = torch.tensor([[1, 4, 2]])
    with torch.no_grad():
        one = torch.softmax(model(ids).logits[0, -1], dim=-1)
        both = torch.cat([ids.expand(size, -1), torch.arange(size)[:, None]], dim=-1)
        second = one @ torch.softmax(model(both).logits[:, -1], dim=-1)
    torch.manual_seed(0)
    with ds.attach(model, "constant:depth=5", lossless=True, draft_tokens="confidence:0.5"):
        found = torch.zeros(size)
        for _ in range(draws // 500):
            options = {"max_new_tokens": 8, "do_sample": True, "top_k": 0}
            out = model.generate(ids, num_return_sequences=500, **options)
            found += out[:, 4].bincount(minlength=size)
    assert chisquare(found.numpy(), (second * draws).double().numpy(), sum_check=False).pvalue > 1e-3


def test_streamers_pipelines_and_stop_strings(smollm2: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = smollm2
    writer = pipeline("text-generation", model=model, tokenizer=tokenizer)
    text = "One, two, three, four,"
    options = {"max_new_tokens": 16, "do_sample": False}
    want = writer(text, **options)[0]["generated_text"]
    inputs = tokenizer(text, return_tensors="pt")
    stopped = model.generate(**inputs, **options, stop_strings=[" seven"], tokenizer=tokenizer)
    capsys.readouterr()
    with ds.attach(model, "constant:depth=24", lossless=True, draft_tokens=4):
        assert writer(text, **options)[0]["generated_text"] == want
        again = model.generate(**inputs, **options, stop_strings=[" seven"], tokenizer=tokenizer)
        assert torch.equal(again, stopped)
        model.generate(**inputs, **options, streamer=TextStreamer(tokenizer))
    assert capsys.readouterr().out.strip() == want


@pytest.mark.quick
def test_a_cache_and_an_output_object() -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(1, 6)
    want, cache = greedy(model, inputs, 10), DynamicCache(config=model.config)
    with ds.attach(model, PLAN, lossless=True, draft_tokens=3):
        first = greedy(model, inputs, 4, past_key_values=cache, return_dict_in_generate=True)
        assert first.past_key_values is cache
        assert cache.get_seq_length() == first.sequences.shape[1] - 1
        assert torch.equal(
            model.generate(first.sequences, past_key_values=cache, max_new_tokens=6, do_sample=False), want
        )
        with pytest.raises(PlanError, match="needs the whole text"):
            model.generate(want[:, -1:], past_key_values=cache, max_new_tokens=2)


@pytest.mark.quick
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["success", "interrupt"])
def test_no_trace_is_left(model: Any, error: Any) -> None:
    before, inputs = snapshot(model), prompt(1, 5)
    want = greedy(model, inputs)
    attached = ds.attach(model, PLAN, lossless=True, draft_tokens=3)
    assert snapshot(model) == before
    with attached:
        if error:
            with pytest.raises(KeyboardInterrupt):
                greedy(model, inputs, logits_processor=[RaiseAt(4, error)])
        assert torch.equal(greedy(model, inputs), want)
    assert snapshot(model) == before


@pytest.mark.quick
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_beams": 2}, AttachError, "num_beams: a lossless run follows one continuation"),
        ({"generation_config": GenerationConfig(num_beams=2)}, AttachError, "num_beams"),
        ({"prompt_lookup_num_tokens": 2}, AttachError, "prompt_lookup_num_tokens"),
        ({"num_assistant_tokens": 3}, AttachError, "draft_tokens of ds.attach"),
        ({"inputs_embeds": torch.zeros(1, 4, 32)}, AttachError, "takes token ids"),
        ({"custom_generate": print}, AttachError, "the decode loop is ours"),
        ({"position_ids": torch.arange(4)[None]}, AttachError, "does not take position_ids; leave lossless out"),
        ({"output_scores": True}, PlanError, "output_scores is not kept"),
        ({"cache_implementation": "static"}, PlanError, "cache_implementation='static'"),
        ({"stop_strings": ["x"]}, PlanError, "needs the tokenizer"),
        ({"use_cache": False}, CacheError, "leave use_cache on"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    model = tiny("llama", "sdpa")
    with ds.attach(model, PLAN, lossless=True), pytest.raises(error, match=words):
        model.generate(**prompt(1, 4), max_new_tokens=2, **options)
    assert greedy(model, prompt(1, 4), 2).shape == (1, 6)


@pytest.mark.quick
def test_bad_arguments_of_attach() -> None:
    model = tiny("llama", "sdpa")
    for options, words in (
        ({"draft_tokens": 3}, "add lossless=True"),
        ({"lossless": True, "draft_tokens": "x"}, "must be auto"),
        ({"lossless": True, "skipped_kv": "write"}, "leave it out"),
    ):
        with pytest.raises(PlanError, match=words):
            ds.attach(model, PLAN, **options)
    with pytest.raises(PlanError, match="for 5 layers"):
        ds.attach(model, ds.plan("full", num_layers=5, horizon=4), lossless=True)


@pytest.mark.quick
def test_one_plan_at_a_time(model: Any) -> None:
    for first in (True, False):
        for second in (True, False):
            with ds.attach(model, PLAN, lossless=first), pytest.raises(AttachError, match="already runs a plan"):
                ds.attach(model, PLAN, lossless=second).__enter__()
    assert "generate" not in vars(model)


@pytest.mark.quick
def test_another_thread_is_refused(model: Any) -> None:
    inside, found = threading.Event(), []
    done = threading.Event()

    class Wait:
        def __call__(self, ids: torch.Tensor, scores: Any) -> torch.Tensor:
            inside.set()
            done.wait(10)
            return torch.zeros(len(ids), dtype=torch.bool)

    with ds.attach(model, PLAN, lossless=True):
        thread = threading.Thread(target=lambda: greedy(model, prompt(1, 4), 4, stopping_criteria=[Wait()]))
        thread.start()
        inside.wait(10)
        try:
            greedy(model, prompt(1, 4), 4)
        except AttachError as error:
            found.append(str(error))
        done.set()
        thread.join()
    assert "another thread" in found[0]


@pytest.mark.quick
def test_wrappers_and_sliding_windows() -> None:
    model = make_tiny("mistral-sliding", "sdpa")
    with ds.attach(model, PLAN, lossless=True), pytest.raises(PlanError, match="sliding window of 5"):
        greedy(model, prompt(1, 4), 8)
    assert len(model.model.layers) == LAYERS
