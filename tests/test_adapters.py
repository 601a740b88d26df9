"""Which models are driven and which are refused."""

import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.adapters.families import LLAMA_FAMILIES, REFUSED
from depthsched.errors import ModelError

from .tiny import LAYERS, VARIANTS, prompt, tiny

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("variant", VARIANTS)
def test_sizes_are_those_of_the_weights(variant):
    model = tiny(variant)
    shape = adapter_for(model).shape()
    layer = model.model.layers[0]
    assert shape.num_layers == LAYERS
    assert shape.layer_params == sum(p.numel() for p in layer.parameters())
    assert (
        shape.head_params == model.lm_head.weight.numel() + model.model.norm.weight.numel() if variant != "olmo" else 1
    )
    cache = model(**prompt(1, 3), use_cache=True).past_key_values
    keys = cache.layers[0].keys
    assert shape.kv_values == 2 * keys.shape[1] * keys.shape[3]
    assert shape.weight_bytes == 4


def test_every_family_has_a_tiny_model():
    assert {model_type for model_type, _ in VARIANTS.values()} == set(LLAMA_FAMILIES)


@pytest.mark.parametrize("family", REFUSED)
def test_unsafe_families_are_refused_with_the_reason(family, model):
    model.config.model_type = family
    with pytest.raises(ModelError, match=f"{family!r} is refused: it"):
        adapter_for(model)


def test_unknown_families_are_refused_unless_forced(model):
    model.config.model_type = "brandnew"
    inputs = prompt(1, 4)
    with pytest.raises(ModelError, match="nobody has checked"):
        ds.generate(model, inputs, "full", max_new_tokens=3)
    with pytest.raises(ModelError, match="nobody has checked"):
        ds.attach(model, "full")
    run = ds.generate(model, inputs, "constant:depth=5", max_new_tokens=3, force=True)
    assert run.trace.depths == [8, 5, 5]


def test_what_is_not_a_causal_model_is_refused(model):
    with pytest.raises(ModelError, match="not a transformers model"):
        adapter_for(torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="not a causal language model"):
        adapter_for(model.model)


def test_a_model_without_layers_is_refused(model):
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(ModelError, match="no decoder layers"):
        adapter_for(model)
