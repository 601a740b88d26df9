"""Every argument of generate does what it says or is refused by name: none is taken and ignored."""

import inspect
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.utils import GenerationMixin

import depthsched as ds
from depthsched.errors import AttachError, PlanError
from depthsched.runtime import arguments

from ..tiny import make_tiny, prompt
from .helpers import RaiseAt, greedy

pytestmark = pytest.mark.quick

# A value at which each refused argument would change what generate does.
ACTIVE: dict[str, Any] = {
    "num_beams": 2,
    "num_beam_groups": 2,
    "diversity_penalty": 0.5,
    "early_stopping": True,
    "length_penalty": 2.0,
    "guidance_scale": 1.5,
    "penalty_alpha": 0.6,
    "prompt_lookup_num_tokens": 2,
    "assistant_early_exit": 2,
    "num_assistant_tokens": 7,
    "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.9,
    "assistant_lookbehind": 3,
    "target_lookbehind": 3,
    "max_matching_ngram_size": 2,
    "assistant_ensemble_weight": 0.5,
    "decoder_start_token_id": 1,
    "max_length": 12,
    "dola_layers": "low",
    "speculation_type": "dflash",
}
REFUSED = sorted(
    {*arguments.MODES, *arguments.OWN_LOOP, *arguments.KNOBS} - {"input_ids", "inputs"}
)  # these two Python itself refuses


def active(name: str) -> Any:
    return ACTIVE.get(name, True if name in arguments._SWITCHES else [[5]])


def fields() -> list[str]:
    return sorted(vars(GenerationConfig()))


def test_the_table_knows_every_field_of_a_configuration() -> None:
    assert sorted(set(fields()) - arguments.known()) == []


def test_the_table_knows_every_parameter_of_generate() -> None:
    own = {"self", "generation_config", "streamer", "kwargs"}  # parameters of ds.generate, or how the others come
    assert set(inspect.signature(GenerationMixin.generate).parameters) - own <= arguments.known()


def test_each_argument_stands_in_one_table() -> None:
    tables = [arguments.TAKEN, arguments.NOTES, arguments.MODES, arguments.OWN_LOOP, arguments.KNOBS]
    assert sum(map(len, tables)) == len(arguments.known())


@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_a_keyword(model: Any, name: str) -> None:
    with pytest.raises(PlanError, match=rf"does not take {name}: "):
        ds.generate(model, prompt(1, 5), "d3", max_new_tokens=4, **{name: active(name)})


CONFIGURED = [name for name in REFUSED if name in fields() and name != "max_length"]


def config_with(name: str) -> GenerationConfig:
    config = GenerationConfig()
    setattr(config, name, active(name))
    return config


@pytest.mark.parametrize("name", CONFIGURED)
def test_refused_inside_a_configuration(model: Any, name: str) -> None:
    with pytest.raises(PlanError, match=rf"does not take {name}: "):
        ds.generate(model, prompt(1, 5), "d3", max_new_tokens=4, generation_config=config_with(name))


@pytest.mark.parametrize("name", sorted({*arguments.MODES, *arguments.OWN_LOOP} & set(fields())))
def test_refused_in_the_models_own_configuration(name: str) -> None:
    model = make_tiny("llama")
    setattr(model.generation_config, name, active(name))
    with pytest.raises(PlanError, match=rf"does not take {name}: "):
        ds.generate(model, prompt(1, 5), "d3", max_new_tokens=4)


WAYS = [
    (name, way)
    for name in sorted(arguments.MODES)
    for way in ("keyword", "given", "model")
    if way == "keyword" or name in fields()
]


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_modes_that_attach_refuses(name: str, way: str) -> None:
    model = make_tiny("llama")
    options: dict[str, Any] = {}
    if way == "keyword":
        options = {name: active(name)}
    elif way == "given":
        options = {"generation_config": config_with(name)}
    else:
        setattr(model.generation_config, name, active(name))
    with ds.attach(model, "d3"), pytest.raises(AttachError, match=rf"does not take {name}: "):
        greedy(model, prompt(1, 5), 4, **options)


def test_a_typing_error_is_told() -> None:
    with pytest.raises(PlanError, match="temprature; did you mean 'temperature'"):
        ds.generate(make_tiny("llama"), prompt(1, 5), "d3", temprature=0.5)


def test_what_a_configuration_of_defaults_says_is_no_refusal(model: Any) -> None:
    full = GenerationConfig(**GenerationConfig._get_default_generation_params(), max_new_tokens=4)
    full.max_length = None
    run = ds.generate(model, prompt(1, 5), "d3", generation_config=full)
    assert run.tokens.shape == (1, 4)


def test_the_number_of_tokens_a_configuration_asks_for(model: Any) -> None:
    run = lambda **given: ds.generate(model, prompt(1, 5), "d3", **given).tokens.shape[1]  # noqa: E731
    assert run(generation_config=GenerationConfig(max_new_tokens=6)) == 6
    assert run(generation_config=GenerationConfig(max_length=12)) == 7
    assert run(generation_config=GenerationConfig(max_new_tokens=6), max_new_tokens=3) == 3
    with pytest.raises(PlanError, match="room for -1 new tokens"):
        run(generation_config=GenerationConfig(max_length=4))


@pytest.mark.parametrize("batch", [1, 3])
def test_scores_and_logits_are_those_of_transformers(model: Any, batch: int) -> None:
    options = {
        "do_sample": True, "temperature": 0.7, "top_k": 9, "repetition_penalty": 1.3, "output_scores": True,
        "output_logits": True, "return_dict_in_generate": True,
    }  # fmt: skip
    torch.manual_seed(4)
    wanted = model.generate(**prompt(batch, 5), max_new_tokens=7, **options)
    torch.manual_seed(4)
    run = ds.generate(model, prompt(batch, 5), "full", max_new_tokens=7, **options)
    assert torch.equal(run.sequences, wanted.sequences)
    assert run.scores is not None
    assert run.logits is not None
    for ours, theirs in ((run.scores, wanted.scores), (run.logits, wanted.logits)):
        assert len(ours) == len(theirs) == 7
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)
    plain = ds.generate(model, prompt(batch, 5), "full", max_new_tokens=7)
    assert plain.scores is None
    assert plain.logits is None


@pytest.mark.parametrize("where", ["keyword", "given", "model"])
@pytest.mark.parametrize("spec", ["full", "d3:alpha=0.97"])
def test_stop_strings(smollm2: tuple[Any, Any], where: str, spec: str) -> None:
    model, tokenizer = smollm2
    inputs = tokenizer("One, two, three,", return_tensors="pt")
    free = ds.generate(model, inputs, spec, max_new_tokens=12, do_sample=False, backend="eager")
    words = tokenizer.decode(free.tokens[0])
    stop = words[6:9]
    options: dict[str, Any] = {"stop_strings": [stop]} if where == "keyword" else {}
    if where == "given":
        options = {"generation_config": GenerationConfig(stop_strings=[stop])}
    if where == "model":
        model.generation_config.stop_strings = [stop]
    common = {"max_new_tokens": 12, "do_sample": False}
    try:
        with ds.attach(model, ds.plan(spec, num_layers=30, horizon=12)):
            wanted = model.generate(**inputs, tokenizer=tokenizer, **common, **options)
        run = ds.generate(model, inputs, spec, backend="eager", tokenizer=tokenizer, **common, **options)
        assert run.sequences.tolist() == wanted.tolist()
        assert run.tokens.shape[1] < 12
        assert stop in tokenizer.decode(run.tokens[0])
        with pytest.raises(PlanError, match="needs the tokenizer"):
            ds.generate(model, inputs, spec, **common, **options)
    finally:
        model.generation_config.stop_strings = None


@pytest.mark.parametrize("chunk", [1, 2, 3, 50])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_prefill_in_chunks_gives_the_same_run(model: Any, chunk: int, batch: int) -> None:
    whole = ds.generate(model, prompt(batch, 7), "d3:alpha=0.8", max_new_tokens=8, output_logits=True)
    parts = ds.generate(
        model, prompt(batch, 7), "d3:alpha=0.8", max_new_tokens=8, output_logits=True, prefill_chunk_size=chunk
    )
    assert torch.equal(whole.tokens, parts.tokens)
    for a, b in zip(whole.logits or (), parts.logits or (), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_cache_chosen_in_a_configuration_is_the_callers(model: Any) -> None:
    config = GenerationConfig(cache_implementation="static")
    run = ds.generate(model, prompt(1, 5), "d3", max_new_tokens=4, backend="compiled", generation_config=config)
    assert run.trace.backend == "eager"
    assert "own cache" in run.trace.reason


def test_a_processor_that_runs_the_model_is_told_so(model: Any) -> None:
    """In every backend: its pass is one that no plan chose a depth for."""

    def peek(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        model(input_ids)
        return scores

    with pytest.raises(AttachError, match=r"no plan chose a depth for, from .*test_arguments.*peek"):
        ds.generate(model, prompt(1, 5), "d3", max_new_tokens=4, logits_processor=LogitsProcessorList([peek]))


def test_a_refusal_leaves_an_open_attach_usable(model: Any) -> None:
    with ds.attach(model, "constant:depth=5"):
        expected = greedy(model, prompt(1, 5))
        for options in ({"dola_layers": "low"}, {"logits_processor": LogitsProcessorList([RaiseAt(2, KeyError())])}):
            with pytest.raises((AttachError, KeyError)):
                greedy(model, prompt(1, 5), **options)
        assert torch.equal(greedy(model, prompt(1, 5)), expected)
