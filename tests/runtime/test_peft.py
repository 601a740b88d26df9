"""A plan on a PEFT model acts as on the merged model, through every way in."""

import copy
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.errors import ModelError

from ..tiny import LAYERS, make_tiny, prompt
from .helpers import greedy, padded_ids

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT reads it


def with_lora(model: Any, seed: int = 0) -> Any:
    """The model with LoRA weights that change what it says."""
    targets = ["q_proj", "v_proj", "down_proj"]
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return wrapped


PLANS = ["full", "d3:alpha=0.9", "constant:depth=5@early-exit", "confidence:depth=5,margin=0.02"]


@pytest.mark.quick
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("spec", PLANS)
def test_tokens_of_lora_equal_those_of_the_merged_model(spec: str, batch: int) -> None:
    plain = make_tiny("llama")
    wrapped, inputs = with_lora(copy.deepcopy(plain)), prompt(batch, 5)
    merged = with_lora(copy.deepcopy(plain)).merge_and_unload()
    plan = ds.plan(spec, num_layers=LAYERS, horizon=12)
    wanted = ds.generate(merged, inputs, plan, max_new_tokens=12, backend="eager")
    assert not torch.equal(wanted.tokens, ds.generate(plain, inputs, plan, max_new_tokens=12, backend="eager").tokens)
    for backend in ("auto", "compiled"):
        run = ds.generate(wrapped, inputs, plan, max_new_tokens=12, backend=backend)
        assert torch.equal(run.tokens, wanted.tokens)
        assert run.trace.depths == wanted.trace.depths
        assert run.trace.backend == "eager"  # a compiled step would read the weights without LoRA
    for model in (wrapped, merged):
        with ds.attach(model, plan) as attached:
            assert torch.equal(greedy(model, inputs, 12), wanted.sequences)
        assert attached.trace is not None
        assert attached.trace.depths == wanted.trace.depths


def test_tokens_of_lora_on_the_embedded_model(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    inputs = padded_ids(tokenizer, ["The sky is", "One, two, three, four,"])
    plan = ds.plan("d3:alpha=0.97", num_layers=30, horizon=12)
    wrapped = with_lora(copy.deepcopy(model))
    run = ds.generate(wrapped, inputs, plan, max_new_tokens=12, backend="eager")
    with ds.attach(wrapped, plan):
        sequences = greedy(wrapped, inputs, 12)
    merged = wrapped.merge_and_unload()
    wanted = ds.generate(merged, inputs, plan, max_new_tokens=12, backend="eager")
    assert torch.equal(run.tokens, wanted.tokens)
    assert torch.equal(sequences, wanted.sequences)


@pytest.mark.quick
def test_attaching_to_the_wrapper_or_to_its_model_is_the_same_and_comes_off() -> None:
    wrapped, inputs = with_lora(make_tiny("llama")), prompt(1, 5)
    inner, before = wrapped.get_base_model(), greedy(wrapped, inputs)
    attributes = set(vars(inner))
    for target in (wrapped, inner):
        with ds.attach(target, "constant:depth=5"):
            assert not torch.equal(greedy(wrapped, inputs), before)
        assert torch.equal(greedy(wrapped, inputs), before)
    assert set(vars(inner)) == attributes


@pytest.mark.quick
def test_prompts_that_are_learned_are_refused() -> None:
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(make_tiny("llama"), config)
    for call in (lambda: ds.attach(wrapped, "full"), lambda: ds.generate(wrapped, prompt(1, 5), "full")):
        with pytest.raises(ModelError, match="prompt"):
            call()
