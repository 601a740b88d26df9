"""At full depth the tokens are those of transformers' generate."""

import copy
from threading import Thread

import pytest
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer
from transformers.generation.streamers import BaseStreamer

import depthsched as ds
from depthsched.errors import PlanError

from ..covering import covering
from ..tiny import LAYERS, MAIN, VARIANTS, make_tiny, prompt, tiny
from .helpers import padded_ids

STEPS = 16
SAMPLING = {"do_sample": True, "temperature": 1.3, "top_p": 0.95, "top_k": 20}


def plain(model, inputs, steps=STEPS, seed=0, **kwargs):
    torch.manual_seed(seed)
    return model.generate(**inputs, max_new_tokens=steps, **{"do_sample": False, **kwargs})


def ours(model, inputs, steps=STEPS, seed=0, **kwargs):
    """In half precision the compiled backend rounds in another place than transformers, and eager in the same."""
    torch.manual_seed(seed)
    kwargs = {"backend": "auto" if model.dtype == torch.float32 else "eager", **kwargs}
    return ds.generate(model, inputs, "full", max_new_tokens=steps, **kwargs).sequences


def attached(model, inputs, steps=STEPS, seed=0, **kwargs):
    with ds.attach(model, "full"):
        return plain(model, inputs, steps, seed, **kwargs)


RUNNERS = {"generate": ours, "attach": attached}
runners = pytest.mark.parametrize("run", RUNNERS.values(), ids=RUNNERS)


# Any three settings meet in every combination: what takes four at once would have to hide in each of three.
CASES = covering(
    MAIN,
    {"fp32": torch.float32, "bf16": torch.bfloat16},
    ("eager", "sdpa"),
    (1, 4),
    {"greedy": {}, "sampling": SAMPLING},
    RUNNERS,
    strength=3,
)


@pytest.mark.quick
@pytest.mark.parametrize(("variant", "dtype", "attn", "batch", "sampling", "run"), CASES)
def test_tokens_equal_generate(variant, dtype, attn, batch, sampling, run):
    model, inputs = tiny(variant, attn, dtype), prompt(batch, 6)
    expected = plain(model, inputs, **sampling)
    assert expected.shape == (batch, 6 + STEPS)
    assert len(set(expected[0, 6:].tolist())) > 4  # a model that repeats one token would hide anything
    assert torch.equal(run(model, inputs, **sampling), expected)


@runners
@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - set(MAIN)))
def test_tokens_equal_generate_in_the_other_families(variant, run):
    for attn in ("eager", "sdpa"):
        model, inputs = tiny(variant, attn), prompt(4, 6)
        assert torch.equal(run(model, inputs), plain(model, inputs))


@runners
def test_other_seeds_sample_other_tokens(run):
    model, inputs = tiny("llama"), prompt(2, 6)
    one, two = run(model, inputs, seed=1, **SAMPLING), run(model, inputs, seed=2, **SAMPLING)
    assert not torch.equal(one, two)
    assert torch.equal(run(model, inputs, seed=1, **SAMPLING), one)


@pytest.mark.parametrize(
    ("dtype", "sampling"),
    [(torch.float32, {}), (torch.bfloat16, {}), (torch.bfloat16, SAMPLING)],
    ids=["fp32-greedy", "bf16-greedy", "bf16-sampling"],
)
def test_smollm2(smollm2, dtype, sampling):
    model, tokenizer = smollm2
    batch = padded_ids(tokenizer, ["The sky is", "One, two, three, four,", "Hello", "Why do birds sing? Because"])
    one = padded_ids(tokenizer, ["The sky is"])
    model = copy.deepcopy(model).to(dtype)
    for inputs in (one, batch):
        expected = plain(model, inputs, 6, **sampling)
        for run in RUNNERS.values():
            assert torch.equal(run(model, inputs, 6, **sampling), expected)


@pytest.mark.quick
@runners
@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.8},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 6, "eos_token_id": list(range(0, 128, 2))},
        {"bad_words_ids": [[n] for n in range(60)]},
        {"suppress_tokens": list(range(40, 128))},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_generate(options, run):
    model, inputs = tiny("llama"), prompt(2, 6)
    expected = plain(model, inputs, **options)
    assert torch.equal(run(model, inputs, **options), expected)


@pytest.mark.quick
@runners
def test_rows_stop_at_their_own_end_token(run):
    model, inputs = tiny("llama"), prompt(4, 6)
    free = plain(model, inputs)[:, 6:]
    stop = int(free[1, 3])
    expected = plain(model, inputs, eos_token_id=stop, pad_token_id=0)
    assert expected.shape[1] < 6 + STEPS or (expected[1, 10:] == 0).all()
    assert torch.equal(run(model, inputs, eos_token_id=stop, pad_token_id=0), expected)
    one = {name: tensor[1:2, 1:] for name, tensor in inputs.items()}
    short = plain(model, one, eos_token_id=stop)
    assert short.shape[1] < 5 + STEPS
    assert torch.equal(run(model, one, eos_token_id=stop), short)


class StopAt(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


@pytest.mark.quick
@runners
def test_stopping_criteria(run):
    model, inputs = tiny("llama"), prompt(2, 6)
    got = run(model, inputs, stopping_criteria=StoppingCriteriaList([StopAt(11)]))
    assert got.shape[1] == 11
    assert torch.equal(got, plain(model, inputs)[:, :11])


class Keep(BaseStreamer):
    def __init__(self):
        self.seen, self.ended = [], False

    def put(self, value):
        assert not self.ended
        self.seen.append(value.clone())

    def end(self):
        self.ended = True


@pytest.mark.quick
@runners
def test_a_streamer_sees_what_it_sees_in_generate(run):
    model, inputs = tiny("llama"), prompt(1, 6)
    expected, got = Keep(), Keep()
    plain(model, inputs, streamer=expected)
    run(model, inputs, streamer=got)
    assert got.ended
    assert [s.reshape(-1).tolist() for s in got.seen] == [s.reshape(-1).tolist() for s in expected.seen]


@runners
def test_text_streams_while_a_thread_generates(smollm2, run):
    model, tokenizer = smollm2
    inputs = padded_ids(tokenizer, ["The sky is"])
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=120)
    thread = Thread(target=run, args=(model, inputs, 6), kwargs={"streamer": streamer})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == tokenizer.decode(plain(model, inputs, 6)[0, inputs["input_ids"].shape[1] :])


@pytest.mark.quick
@runners
def test_a_generation_config_is_heard(run):
    model, inputs = tiny("llama"), prompt(2, 6)
    config = GenerationConfig(max_new_tokens=5, do_sample=True, temperature=0.7, top_k=5, pad_token_id=0)
    torch.manual_seed(3)
    expected = model.generate(**inputs, generation_config=config)
    torch.manual_seed(3)
    if run is ours:
        got = ds.generate(model, inputs, "full", max_new_tokens=5, generation_config=config).sequences
    else:
        with ds.attach(model, "full"):
            got = model.generate(**inputs, generation_config=config)
    assert torch.equal(got, expected)


@pytest.mark.quick
def test_the_run_tells_what_happened():
    model, inputs = tiny("llama"), prompt(2, 6)
    run = ds.generate(model, inputs, "constant:depth=4", max_new_tokens=5)
    assert run.tokens.shape == (2, 5)
    assert torch.equal(run.sequences[:, 6:], run.tokens)
    assert torch.equal(run.sequences[:, :6], inputs["input_ids"])
    assert run.trace.depths == [8, 4, 4, 4, 4]
    assert run.trace.mean_depth == 4
    assert run.layer_speedup == 2
    assert run.bytes_speedup == pytest.approx(run.plan.bytes_speedup(run.shape, 6, batch=2))
    assert run.to_json()["tokens"] == run.tokens.tolist()
    assert ds.generate(model, prompt(1, 3), "full", max_new_tokens=2).to_json()["depths"] == [8, 8]
    assert [list(s.tokens) for s in run.trace.steps] == run.tokens.T.tolist()
    frame = run.trace.to_frame()
    assert frame.index.tolist() == [0, 1, 2, 3, 4]
    assert frame["layers"][1] == [0, 1, 6, 7]
    assert run.prefill_seconds > 0
    assert run.decode_seconds > 0


@pytest.mark.quick
def test_shape_counts_the_weights():
    model = make_tiny("llama")
    shape = ds.generate(model, prompt(1, 3), "full", max_new_tokens=1).shape
    assert shape.num_layers == LAYERS
    per_layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32  # q and o, k and v, the MLP, two norms
    assert shape.layer_params == per_layer
    assert shape.head_params == 128 * 32 + 32
    assert (shape.kv_values, shape.kv_params, shape.attention_width) == (2 * 2 * 8, 2 * 32 * 16, 32)
    assert (shape.weight_bytes, shape.kv_bytes) == (4, 4)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        (torch.zeros(1, 0, dtype=torch.long), {}, "prompt is empty"),
        (torch.zeros(3, dtype=torch.long), {}, "shape [batch, tokens]"),
        (torch.zeros(1, 3), {}, "token ids"),
        ("text", {}, "token ids"),
        ({"input_ids": torch.ones(2, 3).long(), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}, {}, "left"),
        (torch.ones(1, 3).long(), {"num_beams": 2}, "beam search"),
        (torch.ones(1, 3).long(), {"generation_config": GenerationConfig(num_beams=2)}, "beam search"),
        (torch.ones(1, 3).long(), {"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens"),
        (torch.ones(1, 3).long(), {"backend": "warp"}, "unknown backend 'warp'"),
        (torch.ones(1, 3).long(), {"skipped_kv": "maybe"}, "skipped_kv='maybe'"),
    ],
)
def test_what_generate_refuses(inputs, options, words):
    with pytest.raises(PlanError) as caught:
        ds.generate(tiny("llama"), inputs, "full", max_new_tokens=2, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
