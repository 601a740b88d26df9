"""The layer list that yields stand-ins."""

import pytest
import torch
from torch import nn

from depthsched.adapters import adapter_for
from depthsched.errors import AttachError
from depthsched.runtime.switch import LayerSwitch, SwitchedLayers

from ..tiny import LAYERS, make_tiny, prompt

pytestmark = pytest.mark.quick


@pytest.fixture
def adapter(model):
    return adapter_for(model)


def logits(model, **kwargs):
    with torch.no_grad():
        return model(**prompt(1, 5), **kwargs).logits


def test_names_indices_and_slices_are_those_of_the_list(model, adapter):
    plain, keys = model.model.layers, list(model.state_dict())
    with LayerSwitch(adapter) as switch:
        switched = model.model.layers
        assert isinstance(switched, nn.ModuleList)
        assert list(model.state_dict()) == keys
        assert len(switched) == LAYERS
        switch.select((0, 1, 6, 7))
        assert [switched[i] for i in range(LAYERS)] == list(plain)
        assert switched[-1] is plain[-1]
        assert len(switched[:LAYERS]) == len(list(switched)) == LAYERS
        assert isinstance(switched[:3], list)
        kept = [i for i, layer in enumerate(switched) if layer is plain[i]]
        assert kept == [0, 1, 6, 7]
        assert kept == [i for i, layer in enumerate(switched[:LAYERS]) if layer is plain[i]]
        assert [m for m in model.modules() if isinstance(m, type(plain[0]))] == list(plain)
    assert model.model.layers is plain


def test_skipped_layers_pass_their_input_on(model, adapter):
    """Without a cache, a subset of layers is the model with only those layers in it."""
    short = make_tiny("llama", num_hidden_layers=3)
    for index, layer in enumerate((0, 4, 7)):
        short.model.layers[index].load_state_dict(model.model.layers[layer].state_dict())
    for part in ("embed_tokens", "norm"):
        getattr(short.model, part).load_state_dict(getattr(model.model, part).state_dict())
    short.lm_head.load_state_dict(model.lm_head.state_dict())
    full = logits(model, use_cache=False)
    with LayerSwitch(adapter) as switch:
        assert torch.equal(logits(model, use_cache=False), full)
        switch.select((0, 4, 7))
        assert torch.equal(logits(model, use_cache=False), logits(short, use_cache=False))
        switch.select(())
        nothing = model.lm_head(model.model.norm(model.model.embed_tokens(prompt(1, 5)["input_ids"])))
        assert torch.equal(logits(model, use_cache=False), nothing)
        switch.select(None)
        assert torch.equal(logits(model, use_cache=False), full)


@pytest.mark.parametrize(("write", "lengths"), [(False, [5, 0, 5, 0, 0, 0, 0, 5]), (True, [5] * LAYERS)])
def test_which_skipped_layers_leave_keys_and_values(model, adapter, write, lengths):
    """Layer 0's length is what transformers reads for masks and positions; it is always kept right."""
    with LayerSwitch(adapter, write_kv=write) as switch:
        switch.select((2, 7))
        with torch.no_grad():
            cache = model(**prompt(1, 5), use_cache=True).past_key_values
    # A dynamic cache creates layers on first use, so the last ones may be missing.
    held = [layer.get_seq_length() for layer in cache.layers]
    assert held + [0] * (LAYERS - len(held)) == lengths


def test_it_goes_on_once_and_comes_off(model, adapter):
    plain = model.model.layers
    switch = LayerSwitch(adapter)
    with pytest.raises(AttachError, match="no longer attached"):
        switch.select(None)
    with switch:
        assert isinstance(model.model.layers, SwitchedLayers)
        with pytest.raises(AttachError, match="already runs a plan"), LayerSwitch(adapter_for(model)):
            pass
        assert isinstance(model.model.layers, SwitchedLayers)
    assert model.model.layers is plain
    with pytest.raises(AttachError, match="no longer attached"):
        switch.select((0,))
    with pytest.raises(ZeroDivisionError), switch:
        1 / 0  # noqa: B018
    assert model.model.layers is plain


def test_a_model_saved_while_attached_is_the_model(model, adapter, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with LayerSwitch(adapter) as switch:
        switch.select((0, 7))
        model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.state_dict().keys() == before.keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in before.items())
