"""Which models are driven, which are refused, and why."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, DynamicCache

import depthsched as ds
from depthsched.adapters import Adapter, LlamaAdapter, adapter_for
from depthsched.adapters.families import LLAMA_FAMILIES, REFUSED
from depthsched.errors import ModelError

from .tiny import CHOSEN, LAYERS, VARIANTS, make_tiny, prompt, tiny

pytestmark = pytest.mark.quick


SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 128,
}


def test_every_family_of_the_adapter_is_tested():
    assert {model_type for model_type, _ in VARIANTS.values()} == set(LLAMA_FAMILIES)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_shape_of_every_family(variant):
    model = tiny(variant)
    shape = adapter_for(model).shape()
    layers = model.model.layers
    assert shape.num_layers == LAYERS
    assert shape.weight_bytes == shape.kv_bytes == 4
    assert shape.head_params == model.lm_head.weight.numel() + sum(p.numel() for p in model.model.norm.parameters())
    read = sum(p.numel() * (CHOSEN if ".experts." in name else 1) for name, p in layers.state_dict().items())
    assert shape.layer_params == round(read / LAYERS)
    with torch.no_grad():
        cache = model(**prompt(1, 1), use_cache=True).past_key_values
    keys, values = cache.layers[3].keys, cache.layers[3].values
    assert shape.kv_values == keys.numel() + values.numel()


@pytest.mark.parametrize("variant", VARIANTS)
def test_written_keys_and_values_are_those_of_the_layer_itself(variant):
    model = tiny(variant)
    adapter, states = adapter_for(model), {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, args, kwargs, i=i: states.update({i: (args, kwargs)}), with_kwargs=True
        )
        for i, layer in enumerate(model.model.layers)
    ]
    try:
        with torch.no_grad():
            own = model(**prompt(1, 4), use_cache=True).past_key_values
    finally:
        for hook in hooks:
            hook.remove()
    written = DynamicCache(config=model.config)
    with torch.no_grad():
        for i, layer in enumerate(model.model.layers):
            args, kwargs = states[i]
            adapter.write_kv(layer, args[0], written, kwargs["position_embeddings"])
    for mine, theirs in zip(written.layers, own.layers, strict=True):
        assert torch.allclose(mine.keys, theirs.keys, atol=1e-6)
        assert torch.allclose(mine.values, theirs.values, atol=1e-6)


def test_one_token_in_a_mixture_of_experts_reads_what_the_shape_counts():
    """The gradient of one token's logits reaches exactly the weights that the token read."""
    checked = 0
    for variant in VARIANTS:
        model = make_tiny(variant)
        if not any(".experts." in name for name, _ in model.named_parameters()):
            continue
        model(**prompt(1, 1), use_cache=False).logits.square().sum().backward()
        layers = model.model.layers
        read = sum(buffer.numel() for name, buffer in layers.named_buffers() if name in layers.state_dict())
        for name, parameter in layers.named_parameters():
            # Of an expert without a gradient nothing was read; the other weights count in full.
            hit = parameter.grad.flatten(1).any(1).float().mean() if ".experts." in name else 1
            read += parameter.numel() * float(hit)
        assert adapter_for(model).shape().layer_params == pytest.approx(read / LAYERS, abs=0.5)
        checked += 1
    assert checked > 5


def test_length_layers_are_the_first_of_each_attention_type():
    assert adapter_for(tiny("llama")).length_layers == {0}
    assert adapter_for(tiny("qwen2-sliding")).length_layers == {0, 3}
    assert adapter_for(tiny("gemma3-sliding")).length_layers == {0, 5}
    assert adapter_for(tiny("mixtral-sliding")).length_layers == {0}


@pytest.mark.parametrize("family", REFUSED)
def test_refused_families_are_refused_with_the_reason(model, family):
    model.config.model_type = family
    for call in (lambda: ds.attach(model, "full"), lambda: ds.generate(model, prompt(1, 3), "full")):
        with pytest.raises(ModelError) as caught:
            call()
        assert str(caught.value).startswith(f"model family {family!r} is refused: {REFUSED[family]}; known: apertus, ")
        assert "\n" not in str(caught.value)


def test_why_a_family_is_unsafe():
    assert "recurrent" in REFUSED["lfm2"]
    assert "share keys and values" in REFUSED["gemma4"]
    assert not set(REFUSED) & set(LLAMA_FAMILIES)


def bitnet():
    config = AutoConfig.for_model("bitnet", **SMALL, num_key_value_heads=2, pad_token_id=0, eos_token_id=None)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def test_an_unknown_family_is_refused_unless_forced():
    model = bitnet()
    with pytest.raises(ModelError, match=r"'bitnet' is refused: nobody has checked.*, granite, granitemoe, llama"):
        ds.attach(model, "full")
    expected = model.generate(**prompt(1, 3), max_new_tokens=5, do_sample=False)
    run = ds.generate(model, prompt(1, 3), "full", max_new_tokens=5, force=True)
    assert torch.equal(run.sequences, expected)
    with ds.attach(model, "constant:depth=1@early-exit", force=True) as attached:
        model.generate(**prompt(1, 3), max_new_tokens=5, do_sample=False)
    assert attached.trace.depths == [2, 1, 1, 1, 1]


def gemma3_with_images() -> tuple[Any, Any]:
    """A Gemma 3 that takes images, and a text model with the same weights."""
    text = make_tiny("gemma3-sliding", final_logit_softcapping=None)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "gemma3",
        text_config=text.config.to_dict(),
        vision_config={**vision, "image_size": 28, "patch_size": 14},
        image_token_id=100,
        mm_tokens_per_image=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    model.get_decoder().load_state_dict(text.model.state_dict())
    model.lm_head = text.lm_head
    return model, text


def test_the_text_part_of_a_model_with_images() -> None:
    model, text = gemma3_with_images()
    plan = ds.plan("d3:alpha=0.8", "strided:head=0,tail=1", num_layers=LAYERS, horizon=12)
    runs = [ds.generate(each, prompt(2, 6), plan, max_new_tokens=12) for each in (model, text)]
    assert runs[0].trace.depths == runs[1].trace.depths
    assert len(set(runs[0].tokens[0].tolist())) > 4
    assert torch.equal(runs[0].tokens, runs[1].tokens)
    assert runs[0].shape == runs[1].shape


def test_images_reach_an_attached_model() -> None:
    model, _ = gemma3_with_images()
    inputs: dict[str, Any] = prompt(2, 6)
    inputs["input_ids"][:, 3] = 100
    inputs |= {"pixel_values": torch.randn(2, 3, 28, 28), "token_type_ids": (inputs["input_ids"] == 100).long()}
    options = {"max_new_tokens": 6, "do_sample": False}
    expected = model.generate(**inputs, **options)
    with ds.attach(model, "full"):
        assert torch.equal(model.generate(**inputs, **options), expected)


def test_models_that_are_no_causal_language_models(model):
    with pytest.raises(ModelError, match="Linear is not a transformers model"):
        ds.generate(nn.Linear(2, 2), prompt(1, 3), "full")
    with pytest.raises(ModelError, match="str is not a transformers model"):
        ds.attach("smollm2", "full")
    with pytest.raises(ModelError, match="not a causal language model"):
        ds.attach(model.model, "full")


def test_a_model_without_decoder_layers(model):
    model.model.layers = nn.ModuleList()
    with pytest.raises(ModelError, match="no decoder layers"):
        ds.attach(model, "full")
    del model.model.layers
    with pytest.raises(ModelError, match="no decoder layers"):
        ds.generate(model, prompt(1, 3), "full")


def test_a_final_norm_of_another_name_is_asked_for_by_name() -> None:
    class Elsewhere(LlamaAdapter):
        @property
        def final_norm(self) -> Any:
            return self.decoder.after

    model = make_tiny("llama")
    norm = LlamaAdapter(model).final_norm
    decoder = model.get_decoder()
    decoder.after = decoder.norm
    del decoder.norm
    with pytest.raises(ModelError, match=r"no module 'norm' after its layers; LlamaAdapter\.final_norm must return"):
        _ = LlamaAdapter(model).final_norm
    assert Elsewhere(model).final_norm is norm
    assert Elsewhere(model).shape().head_params > LlamaAdapter(model).shape().head_params


def test_an_encoder_decoder_model_is_refused():
    config = AutoConfig.for_model("t5", d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=128)
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_config(config)
    for force in (False, True):
        with pytest.raises(ModelError):
            ds.attach(model, "full", force=force)


def test_an_adapter_that_defines_nothing_says_so(model):
    bare = Adapter(model)
    assert bare.num_layers == LAYERS
    with pytest.raises(ModelError, match="does not define shape"):
        bare.shape()
    with pytest.raises(ModelError, match="nested plan"):
        bare.write_kv(model.model.layers[0], torch.zeros(1, 1, 32), None, None)


def test_a_fresh_model_of_each_dtype_is_driven():
    for dtype in (torch.bfloat16, torch.float16):
        model = make_tiny("llama", dtype=dtype)
        run = ds.generate(model, prompt(2, 4), "constant:depth=4", max_new_tokens=4, skipped_kv="write")
        assert run.tokens.shape == (2, 4)
        assert run.shape.weight_bytes == 2
