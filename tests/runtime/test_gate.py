"""The layer list that decides at every pass what runs, and the gate that sees every pass."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from transformers import DynamicCache

import depthsched as ds
from depthsched.adapters import Adapter, adapter_for
from depthsched.errors import AttachError
from depthsched.runtime.depths import DepthLayers
from depthsched.runtime.gate import GatedLayers, LayerGate, Pass

from ..tiny import LAYERS, make_tiny, prompt

pytestmark = pytest.mark.quick


@pytest.fixture
def adapter(model: Any) -> Adapter:
    return adapter_for(model)


def layers(adapter: Adapter, keep: Sequence[int], *, write_kv: bool = False) -> list[Any]:
    """What runs in place of each layer when only these run."""
    rest = [i for i in range(LAYERS) if i not in keep]
    order = "list:layers=" + "+".join(map(str, rest))
    plan = ds.plan(f"constant:depth={max(len(keep), 1)}", order, num_layers=LAYERS, horizon=2)
    return DepthLayers(adapter, plan, write_kv=write_kv)[len(keep)]


@torch.no_grad()
def logits(model: Any, **kwargs: Any) -> Any:
    return model(**prompt(1, 5), **kwargs).logits


def test_names_indices_and_slices_are_those_of_the_list(model: Any, adapter: Adapter) -> None:
    plain, keys = model.model.layers, list(model.state_dict())
    with LayerGate(adapter, lambda this: list(plain)):
        gated = model.model.layers
        assert isinstance(gated, nn.ModuleList)
        assert list(model.state_dict()) == keys
        assert len(gated) == LAYERS
        assert [gated[i] for i in range(LAYERS)] == list(plain)
        assert gated[-1] is plain[-1]
        assert len(gated[:LAYERS]) == len(list(gated)) == LAYERS
        assert isinstance(gated[:3], list)
        assert [slot.self_attn for slot in gated] == [layer.self_attn for layer in plain]
        assert [m for m in model.modules() if isinstance(m, type(plain[0]))] == list(plain)
    assert model.model.layers is plain


def test_skipped_layers_pass_their_input_on(model: Any, adapter: Adapter) -> None:
    """Without a cache, a subset of layers is the model with only those layers in it."""
    short = make_tiny("llama", num_hidden_layers=3)
    for index, layer in enumerate((0, 4, 7)):
        short.model.layers[index].load_state_dict(model.model.layers[layer].state_dict())
    for part in ("embed_tokens", "norm"):
        getattr(short.model, part).load_state_dict(getattr(model.model, part).state_dict())
    short.lm_head.load_state_dict(model.lm_head.state_dict())
    full, some = logits(model, use_cache=False), layers(adapter, (0, 4, 7))
    with LayerGate(adapter) as gate:
        forward = lambda: logits(model, use_cache=False)  # noqa: E731
        assert torch.equal(gate.run(gate.full, forward), full)
        assert torch.equal(gate.run(some, forward), logits(short, use_cache=False))
        assert torch.equal(gate.run(gate.full, forward), full)


@pytest.mark.parametrize(("write", "lengths"), [(False, [5, 0, 5, 0, 0, 0, 0, 5]), (True, [5] * LAYERS)])
def test_which_skipped_layers_leave_keys_and_values(
    model: Any, adapter: Adapter, write: bool, lengths: list[int]
) -> None:
    """Layer 0's length is what transformers reads for masks and positions; it is always kept right."""
    some = layers(adapter, (2, 7), write_kv=write)
    with LayerGate(adapter) as gate, torch.no_grad():
        cache = gate.run(some, lambda: model(**prompt(1, 5), use_cache=True)).past_key_values
    # A dynamic cache creates layers on first use, so the last ones may be missing.
    held = [layer.get_seq_length() for layer in cache.layers]
    assert held + [0] * (LAYERS - len(held)) == lengths


def test_it_goes_on_once_and_comes_off(model: Any, adapter: Adapter) -> None:
    plain = model.model.layers
    with LayerGate(adapter):
        assert isinstance(model.model.layers, GatedLayers)
        with pytest.raises(AttachError, match="already runs a plan"), LayerGate(adapter_for(model)):
            pass
        assert isinstance(model.model.layers, GatedLayers)
    assert model.model.layers is plain
    with pytest.raises(ZeroDivisionError), LayerGate(adapter):
        1 / 0  # noqa: B018
    assert model.model.layers is plain


def test_a_gate_made_while_another_stands_runs_the_real_layers(model: Any, adapter: Adapter) -> None:
    full = logits(model)
    with LayerGate(adapter, lambda this: list(model.model.layers._modules.values())):
        later, some = LayerGate(adapter), layers(adapter, tuple(range(LAYERS - 1)))
    with later:
        assert torch.equal(later.run(later.full, lambda: logits(model)), full)
        assert not torch.equal(later.run(some, lambda: logits(model)), full)


def test_a_pass_that_nobody_announced_is_an_error_that_names_its_way(model: Any, adapter: Adapter) -> None:
    with LayerGate(adapter) as gate:
        gate.run(gate.full, lambda: logits(model))
        with pytest.raises(AttachError, match=r"from tests\.runtime\.test_gate\.logits"):
            logits(model)
        with pytest.raises(AttachError, match="no plan chose a depth"):
            gate.run(gate.full, lambda: (logits(model), logits(model)))


def test_a_forward_that_goes_around_the_list_is_an_error(model: Any, adapter: Adapter) -> None:
    with LayerGate(adapter) as gate, pytest.raises(AttachError, match="did not pass through its layer list"):
        gate.run(gate.full, lambda: None)


def test_what_a_pass_tells(model: Any, adapter: Adapter) -> None:
    seen: list[Pass] = []

    def choose(this: Pass) -> Any:
        seen.append(this)
        return gate.full

    ids, cache = prompt(2, 5)["input_ids"], DynamicCache()
    with LayerGate(adapter, choose) as gate, torch.no_grad():
        model(ids, past_key_values=cache)
        model(ids[:, :1], past_key_values=cache)
        model(ids[:, :3], past_key_values=cache)
        model(ids, use_cache=False)
    assert [this.tokens for this in seen] == [5, 1, 3, 5]
    assert [this.cache is cache for this in seen] == [True, True, True, False]


def test_a_model_saved_while_attached_is_the_model(model: Any, adapter: Adapter, tmp_path: Any) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with LayerGate(adapter):
        model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.state_dict().keys() == before.keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in before.items())
