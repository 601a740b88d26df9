"""Models inside other things: the transformers model is found, or one line says why it cannot be driven."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, pipeline

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.errors import ModelError

from .tiny import VOCAB, make_tiny, prompt

pytestmark = [
    pytest.mark.quick,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),  # what PEFT asks transformers
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),  # PEFT on norms that it is told to tune
]


def peft_model(model: Any, kind: str = "LoraConfig", **settings: Any) -> Any:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    return peft.get_peft_model(model, getattr(peft, kind)(task_type="CAUSAL_LM", **settings)).eval()


WEIGHTS: dict[str, dict[str, Any]] = {
    "LoraConfig": {"target_modules": ["q_proj", "v_proj"], "init_lora_weights": False},
    "LoHaConfig": {"target_modules": ["q_proj", "v_proj"], "init_weights": False},
    "IA3Config": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LNTuningConfig": {},
}
PROMPTS: dict[str, dict[str, Any]] = {
    "PromptTuningConfig": {"num_virtual_tokens": 3},
    "PromptEncoderConfig": {"num_virtual_tokens": 3},
    "PrefixTuningConfig": {"num_virtual_tokens": 3},
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_model_inside_peft(model: Any, kind: str) -> None:
    wrapped = peft_model(model, kind, **WEIGHTS[kind])
    adapter = adapter_for(wrapped)
    assert adapter.model is model
    assert adapter.layers is model.model.layers
    assert (adapter.device, adapter.dtype) == (torch.device("cpu"), torch.float32)
    run = ds.generate(wrapped, prompt(1, 5), "full", max_new_tokens=6, do_sample=False)
    assert torch.equal(run.sequences, wrapped.generate(**prompt(1, 5), max_new_tokens=6, do_sample=False))


def test_the_weights_of_an_adapter_are_read_as_well(model: Any) -> None:
    before = adapter_for(model).shape()
    wrapped = peft_model(model, r=4, target_modules=["q_proj", "v_proj"])
    shape = adapter_for(wrapped).shape()
    added_v, added_q = 4 * (32 + 16), 4 * (32 + 32)
    assert shape.layer_params == before.layer_params + added_q + added_v
    assert shape.layer_bytes == tuple(b + 4 * (added_q + added_v) for b in before.layer_bytes)
    assert shape.kv_weight_bytes == tuple(b + 4 * added_v for b in before.kv_weight_bytes)


def test_adapters_of_mixed_kinds(model: Any) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]), mixed=True)
    wrapped.add_adapter("other", peft.LoHaConfig(target_modules=["v_proj"]))
    assert adapter_for(wrapped).model is model


@pytest.mark.parametrize("kind", PROMPTS)
def test_learned_prompts_are_refused(model: Any, kind: str) -> None:
    refused(peft_model(model, kind, **PROMPTS[kind]), "is refused: its learned prompt enters in the wrapper")


def test_adapters_that_wrap_attention_are_refused(model: Any) -> None:
    wrapped = peft_model(model, "AdaptionPromptConfig", adapter_len=2, adapter_layers=2, target_modules="self_attn")
    refused(wrapped, "PEFT type ADAPTION_PROMPT is refused: it wraps the attention")


def refused(model: Any, message: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: adapter_for(model),
        lambda: ds.attach(model, "constant:depth=4"),
        lambda: ds.generate(model, prompt(1, 3), "constant:depth=4"),
        lambda: adapter_for(model, force=True),
    ]
    for call in calls:
        with pytest.raises(ModelError) as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def distributed(model: Any) -> Any:
    """As DistributedDataParallel, which needs a process group to be made."""
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = model
    return wrapped


def test_compiled_and_distributed_wrappers_are_opened(model: Any) -> None:
    compiled = torch.compile(model)
    for wrapped in (compiled, distributed(model), distributed(compiled), torch.compile(peft_model(model))):
        assert adapter_for(wrapped).model is model
    run = ds.generate(compiled, prompt(1, 3), "constant:depth=4", max_new_tokens=4)
    assert run.trace.depths == [8, 4, 4, 4]


def in_place(model: Any) -> Any:
    model.compile()
    return model


def a_layer(model: Any) -> Any:
    model.model.layers[3].compile()
    return model


def a_wrapped_layer(model: Any) -> Any:
    model.model.layers[3] = torch.compile(model.model.layers[3])
    return model


def the_decoder(model: Any) -> Any:
    model.model = torch.compile(model.model)
    return model


def the_forward(model: Any) -> Any:
    model.forward = torch.compile(model.forward)
    return model


def attention_forward(model: Any) -> Any:
    attention = model.model.layers[2].self_attn
    attention.forward = torch.compile(attention.forward)
    return model


@pytest.mark.parametrize("way", [in_place, a_layer, a_wrapped_layer, the_decoder, the_forward, attention_forward])
@pytest.mark.parametrize("outside", [lambda model: model, torch.compile, peft_model], ids=["bare", "compile", "peft"])
def test_models_compiled_in_place_are_refused(model: Any, way: Callable[[Any], Any], outside: Any) -> None:
    if outside is peft_model:
        outside = lambda m: peft_model(m, target_modules=["gate_proj"])  # noqa: E731
    refused(outside(way(model)), "was compiled in place, and compiled code may hold the layers of another depth")


def test_a_forward_that_compiling_leaves_alone_is_no_obstacle(model: Any) -> None:
    model.model.layers[2].forward = torch.compiler.disable(model.model.layers[2].forward)
    assert adapter_for(model).model is model


def test_data_parallel_is_refused(model: Any) -> None:
    refused(nn.DataParallel(model), "pass model.module")


class Engine(nn.Module):
    """A wrapper that nobody knows, which looks like the model inside it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.module = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def test_what_is_no_model_says_where_the_model_is(model: Any, smollm2: tuple[Any, Any]) -> None:
    refused(Engine(model), "Engine is not a transformers model; pass its .module")
    tokenizer = smollm2[1]
    refused(
        pipeline("text-generation", model=model, tokenizer=tokenizer), "is not a transformers model; pass its .model"
    )
    for thing in ("smollm2", [model], (model, tokenizer), None, tokenizer, nn.Linear(2, 2), type(model)):
        refused(thing, f"{type(thing).__name__} is not a transformers model")


def test_an_encoder_and_decoder_in_wrappers(model: Any) -> None:
    config = AutoConfig.for_model("t5", d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=VOCAB)
    refused(torch.compile(AutoModelForSeq2SeqLM.from_config(config)), "")
    refused(torch.compile(make_tiny("llama").model), "not a causal language model")
